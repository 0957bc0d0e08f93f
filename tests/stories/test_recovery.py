"""Any history, read in any portions, stopped at any step: the store holds the fold of the log, exactly."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from merganser.consumers.apply import BatchLimits
from merganser.consumers.audit import audit_store
from merganser.consumers.batch import Batch, TableRows
from merganser.consumers.decode import _SEQ, TablePart
from merganser.consumers.digest import quarantine_digest, table_digest
from merganser.consumers.rows import write_rows
from merganser.consumers.store import Store
from stories.world import Crash, FakeReplica, World, replica

SEEDS = int(os.environ.get("MERGANSER_STORIES", "20"))


def limits(seed: int) -> BatchLimits:
    return BatchLimits(records=1 + seed % 40, linger_ms=0, poll_records=1 + seed % 25)


def follow_with_crashes(world: World, path: Path, rounds: int = 4) -> None:
    """Write, follow, stop anywhere; the last round follows to the end."""
    rng = random.Random(world.random.random())
    for round_ in range(rounds):
        world.write(rng.randint(5, 60))
        crash_in = rng.randint(0, 40) if round_ < rounds - 1 else None
        try:
            with replica(world, path, limits(rng.randrange(1000)), crash_in) as opened:
                opened.run()
        except Crash:
            pass


def check(world: World, opened: FakeReplica) -> None:
    for table in ("keyed", "plain"):
        assert opened.rows(table, world.columns(table)) == world.expected(table)
    assert opened.poison() == world.poison
    with opened.store.reading(1) as cursor:
        assert [why for account in audit_store(cursor) for why in account.wrong] == []


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_store_is_the_fold_of_the_log_wherever_it_was_stopped(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    follow_with_crashes(world, tmp_path / "store.duckdb")
    with replica(world, tmp_path / "store.duckdb", limits(seed)) as opened:
        opened.run()
        check(world, opened)


@pytest.mark.parametrize("seed", range(SEEDS // 4))
def test_two_replicas_at_one_position_have_one_digest(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    follow_with_crashes(world, tmp_path / "a.duckdb")
    digests = []
    for name, size in (("a", 1000), ("b", 7)):
        batch = BatchLimits(records=size, linger_ms=0, poll_records=size)
        with replica(world, tmp_path / f"{name}.duckdb", batch) as opened:
            opened.run()
            with opened.store.reading(1) as cursor:
                tables = [table_digest(cursor, t) for t in ("keyed", "plain")]
                digests.append([*tables, *(quarantine_digest(cursor, t) for t in ("keyed", "plain"))])
    assert digests[0] == digests[1]


class OffsetsElsewhere(Store):
    """The naive store: rows in one transaction, positions in the next one."""

    def _move(self, batch: Batch) -> None:
        self._con.commit()
        self._step("between")
        self._con.begin()
        super()._move(batch)


def without_delete(con: Any, rows: TableRows, step: Any) -> None:
    """The naive upsert: insert what is new, delete nothing."""
    write_rows(con, replace(rows, key=(), gone=None), step)


def all_of_a_batch(self: TablePart, without: Any = ()) -> TableRows:
    """The naive batch: each put is a row, also the second of a key (FAILURES 28)."""
    rows = _rows(self)
    pieces = [self._lay_out(piece) for piece in self.puts]
    every = pa.concat_tables(pieces).drop_columns([_SEQ]) if pieces else None
    return replace(rows, rows=every)


_rows = TablePart.rows


@pytest.mark.parametrize("naive", [OffsetsElsewhere, without_delete, all_of_a_batch])
def test_the_stories_catch_a_naive_variant(naive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(naive, type):
        monkeypatch.setattr("stories.world.Store", naive)
    elif naive is without_delete:
        monkeypatch.setattr("merganser.consumers.store.write_rows", naive)
    else:
        monkeypatch.setattr(TablePart, "rows", naive)
    for seed in range(6):
        world = World(seed)
        path = tmp_path / f"{seed}.duckdb"
        try:
            follow_with_crashes(world, path)
            with replica(world, path, limits(seed)) as opened:
                opened.run()
                check(world, opened)
        except AssertionError:
            return
    pytest.fail("the naive variant was not seen")
