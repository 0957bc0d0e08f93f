"""A scripted log, its archive in memory, and backups of a replica of it: all that a restore draws from."""

from __future__ import annotations

import random
from pathlib import Path

from backup.restored import Dump, dump
from merganser.consumers.apply import BatchLimits
from merganser.consumers.catchup import apply_until
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.objects import Objects
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.backup.manifest import Backup, Type
from merganser.pipeline.backup.snapshot import ChunkLimits
from merganser.pipeline.restore.restore import Restored, Restorer
from merganser.pipeline.restore.sources import Origin, Wish
from merganser.schemas.position import Position
from stories.txworld import TxWorld
from stories.world import STORE_LIMITS, World
from support.memory import MemoryObjects

SMALL = ChunkLimits(rows=16)
CLUSTER = "fake-cluster"


class Town:
    """*world*'s log is archived up to any position that is asked for; backups lie in the same archive."""

    def __init__(
        self, world: World | TxWorld, folder: Path, key: Key | None = None, objects: Objects | None = None
    ) -> None:
        self.world, self.folder, self.random = world, folder, random.Random(1)
        self.memory = MemoryObjects()
        self.objects: Objects = objects or self.memory
        self.archive = Archive(self.objects, key)
        self.store = folder / "store.duckdb"
        self.tables = sorted(world.log.tables)
        self._folds: dict[Position, Path] = {}

    @property
    def ends(self) -> Position:
        return self.world.log.ends(list(self.world.log.partitions))

    def some_position(self, below: Position | None = None) -> Position:
        """Any cut through all partitions."""
        return Position({tp: self.random.randint(0, end) for tp, end in (below or self.ends).items()})

    def apply(self, until: Position) -> None:
        """Bring the replica to *until*."""
        self.fold(self.store, until)

    def fold(self, path: Path, until: Position, tables: list[str] | None = None) -> None:
        """What a replica comes to that reads up to *until*, and nothing further."""
        store = Store(path, CLUSTER, "g", STORE_LIMITS)
        tables = tables or self.tables
        try:
            cut = BoundedLog(self.world.log, until.of(set(tables)))
            apply_until(cut, store, tables, cut.until, batches=BatchLimits(records=40))
        finally:
            store.close()

    def folded(self, until: Position) -> Path:
        """A store at rest that read up to *until*; made once. Copy it, do not open it to write."""
        if until not in self._folds:
            path = self.folder / f"fold{len(self._folds)}.duckdb"
            self.fold(path, until)
            self._folds[until] = path
        return self._folds[until]

    def archive_up_to(self, position: Position) -> None:
        tables = sorted({tp.topic for tp in position})
        limits = SegmentLimits(records=25, age_s=60)
        cut = BoundedLog(self.world.log, position)  # it archives all that it sees
        with Archiver(cut, self.archive, tables, limits=limits, until=position) as archiver:
            archiver.wait(position, 120)

    def back_up(self, type_: Type = "full") -> Backup:
        with StoreFile(self.store) as source:
            return Backups(self.objects, self.archive.key, SMALL).create(source, Request(type_), self.archive_up_to)

    def restorer(self, path: Path, live: bool = False, force: bool = False, step: object = None) -> Restorer:
        log = self.world.log if live else None
        origin = Origin(self.archive, log)  # type: ignore[arg-type]
        restorer = Restorer(origin, path, "g", force, STORE_LIMITS, BatchLimits(records=40))
        if step is not None:
            restorer.step = step  # type: ignore[assignment]
        return restorer

    def restore(self, path: Path, wish: Wish, live: bool = False, force: bool = False) -> Restored:
        restorer = self.restorer(path, live, force)
        return restorer.run(restorer.origin.plan(wish))


def held(path: Path) -> Dump:
    """All that a store holds, but for what is of its host's clock."""
    with StoreFile(path) as store, store.reading() as cursor:
        found = dump(cursor)
        sql = "SELECT CAST(COLUMNS(* EXCLUDE caught_up_ms) AS VARCHAR) FROM _merganser.positions ORDER BY ALL"
        found["_merganser.positions"] = cursor.execute(sql).fetchall()
    return found
