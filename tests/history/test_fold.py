"""The fold, against another oracle: the brute force of the stories, at every step of random ways through a log."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from history.fold import Fold, Record
from history.journal import Plan
from merganser.schemas.position import TopicPartition
from stories.txworld import PARTITIONS, TxWorld

PARTS = [TopicPartition(table, partition) for table in "abc" for partition in range(PARTITIONS)]


class WithRows(Fold):
    """A fold that keeps the rows of append tables."""

    def append(self, record: Record) -> None:
        self.rows[record.part, ("row", record.offset)] = record


def records(world: TxWorld) -> list[list[Record]]:
    log: list[list[Record]] = [[] for _ in PARTS]
    for event in world.events:
        counts: dict[int, int] = {}
        for other in world.events if event.tx else ():
            if other.tx == event.tx:
                part = PARTS.index(TopicPartition(other.table, other.partition))
                counts[part] = counts.get(part, 0) + 1
        condition = None if event.condition is None else str(event.condition)
        part = PARTS.index(TopicPartition(event.table, event.partition))
        key = None if event.table == "c" else event.id
        value = None if event.n is None else (event.id, event.n)
        log[part].append(
            Record(part, event.offset, key, value, event.tx, counts or None, condition, event.ops, spoiled=event.poison)
        )
    for part in log:
        part.sort(key=lambda record: record.offset)
    return log


@pytest.mark.parametrize("seed", range(40))
def test_the_fold_is_the_brute_force_at_every_position(seed: int) -> None:
    world, rng = TxWorld(seed, guarded=seed % 4 > 0), random.Random(seed)
    fold = WithRows(records(world))
    ends: Mapping[TopicPartition, int] = world.log.ends(PARTS)
    while any(at < ends[tp] for at, tp in zip(fold.at, PARTS, strict=True)):
        ahead = [min(ends[tp], at + rng.randrange(4)) for at, tp in zip(fold.at, PARTS, strict=True)]
        fold.advance(ahead)
        want = world.state(dict(zip(PARTS, ahead, strict=True)))
        rows: dict[str, set[tuple[int, int, int]]] = {table: set() for table in "abc"}
        for (part, _), record in fold.rows.items():
            rows[PARTS[part].topic].add((*record.value, record.offset))
        assert rows == {table: set(content.values()) for table, content in want.rows.items()}
        held = {(*PARTS[r.part], r.offset) for unit in fold.held for r in unit.records}
        assert held == want.pending
        outcomes = {tx: state.removeprefix("repeats ") for tx, state in fold.outcomes.items() if isinstance(tx, str)}
        assert outcomes == {tx: state for tx, state in want.transactions.items() if tx.startswith("t")}


def test_the_fold_numbers_partitions_in_the_order_of_their_places() -> None:
    """Where transactions cross, the first record decides: the fold's first has to be the replicas' first."""
    partitions = Plan("", "", "busy").partitions
    assert partitions == sorted(partitions)
