"""Stores of a scripted log, replays of their tables, and ways to damage one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from merganser.consumers.apply import BatchLimits
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.replay.plan import Wish
from merganser.pipeline.replay.replay import Replayed, Replayer
from merganser.pipeline.replay.sources import Source
from merganser.schemas.position import Position
from restore.town import Town
from restore.town import held as all_held
from stories.world import STORE_LIMITS

Dump = dict[str, list[tuple[object, ...]]]


def held(path: Path) -> Dump:
    """All that a store holds, without the list of derived tables where there are none."""
    found: Dump = {**all_held(path)}
    if not found.get("_merganser.derived"):
        found.pop("_merganser.derived", None)
    return found


@dataclass
class Scene:
    """A copy of what a replica of *town* came to, at *path*."""

    town: Town
    path: Path
    source: Source

    @classmethod
    def of(cls, town: Town, folder: Path, at: Position) -> Scene:
        path = folder / "store.duckdb"
        shutil.copyfile(town.folded(at), path)
        return cls(town, path, Source(town.world.log, "the log"))  # type: ignore[arg-type]  # it has at_time too

    def replay(
        self, table: str, into: str = "new", step: Callable[[str], None] | None = None, **more: object
    ) -> Replayed:
        replayer = Replayer(self.path, self.source, STORE_LIMITS, BatchLimits(records=40))
        if step is not None:
            replayer.step = step
        return replayer.run(Wish(table, into, **more))  # type: ignore[arg-type]

    def sql(self, *statements: str) -> None:
        """Change the store behind everybody's back."""
        with duckdb.connect(str(self.path)) as con:
            for statement in statements:
                con.execute(statement)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with StoreFile(self.path) as store:
            return list(store.query(sql).rows())

    def damage(self, table: str) -> None:
        """Rows lost, doubled and changed, and accounts that are off."""
        self.sql(
            f"DELETE FROM {table} WHERE _offset % 3 = 0",
            f"INSERT INTO {table} SELECT * FROM {table} LIMIT 2",
            f"UPDATE {table} SET n = n + 1 WHERE _offset % 2 = 0",
            f"DELETE FROM _merganser.quarantine WHERE topic = '{table}'",
            f"DELETE FROM _merganser.pending WHERE topic = '{table}'",
            f"UPDATE _merganser.positions SET puts = puts + 1 WHERE topic = '{table}'",
        )
