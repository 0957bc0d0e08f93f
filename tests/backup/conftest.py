"""Stores at rest, built of the scripted log."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.apply import BatchLimits
from merganser.consumers.catchup import apply_until
from merganser.consumers.store import Store
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.schemas.position import Position, TopicPartition
from stories.txworld import TxWorld
from stories.world import STORE_LIMITS, World, replica


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, updates, deletes, poison, schema changes."""
    return _of_rows(7, 600, tmp_path_factory.mktemp("backup") / "store.duckdb")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows."""
    return _of_rows(11, 40, tmp_path_factory.mktemp("backup") / "small.duckdb")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other rows than those of `small`, for the same tables."""
    return _of_rows(12, 40, tmp_path_factory.mktemp("backup") / "other.duckdb")


def _of_rows(seed: int, records: int, path: Path) -> Path:
    world = World(seed)
    world.write(records)
    with replica(world, path, BatchLimits(records=500)) as opened:
        opened.run()
    return path


@pytest.fixture(scope="session")
def tx_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transactions, conditions, operation ids: all that ``_merganser`` can hold, some held back too."""
    world, path = TxWorld(3, transactions=60), tmp_path_factory.mktemp("backup") / "tx.duckdb"
    store = Store(path, world.log.cluster_id, "g", STORE_LIMITS)
    until = cut_in_a_transaction(world)
    apply_until(BoundedLog(world.log, until), store, list(world.log.tables), until, batches=BatchLimits(records=20))
    store.close()
    return path


def cut_in_a_transaction(world: TxWorld) -> Position:
    """A position that splits a transaction, near the end."""
    ends = dict(world.log.ends(list(world.log.partitions)))
    for event in reversed(world.events):
        part = (event.table, event.partition)
        if event.tx and any(e.tx == event.tx and (e.table, e.partition) != part for e in world.events):
            return Position({**ends, TopicPartition(*part): event.offset})
    raise AssertionError("no transaction has two partitions")
