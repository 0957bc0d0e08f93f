"""Stores at rest, built of the scripted log."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.apply import BatchLimits
from stories.txworld import TxWorld
from stories.world import World, replica


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, updates, deletes, poison, schema changes."""
    world, path = World(7), tmp_path_factory.mktemp("backup") / "store.duckdb"
    world.write(600)
    with replica(world, path, BatchLimits(records=50)) as opened:
        opened.run()
    return path


@pytest.fixture(scope="session")
def tx_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transactions, conditions, operation ids: all that ``_merganser`` can hold, some held back too."""
    world, path = TxWorld(3, transactions=60), tmp_path_factory.mktemp("backup") / "tx.duckdb"
    last = {tp: records[-1] for tp, records in world.log.partitions.items() if records}
    # Cut the log before the last record of a transaction, so that something is held back.
    cut = max((e for e in world.events if e.tx), key=lambda e: world.events.index(e))
    tp = next(tp for tp in last if (tp.topic, tp.partition) == (cut.table, cut.partition))
    del world.log.partitions[tp][cut.offset :]
    with replica(world, path, BatchLimits(records=20)) as opened:
        opened.loop.begin()
        ends = world.log.ends(list(world.log.partitions))
        while not opened.progress.read.reaches(ends):
            opened.loop.turn()
            opened.loop.flush()
    return path
