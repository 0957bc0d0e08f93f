"""What a node remembers of its last minutes, and what it counts for who looks. No broker."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import merganser as mg
from merganser.pipeline.serving.monitoring.figures import Counting
from merganser.pipeline.serving.monitoring.pulse import Pulse, Sample, following
from merganser.schemas.position import Position, TopicPartition
from serving.world import ORDERS, world

_PLACES = [TopicPartition(table, partition) for table in "ab" for partition in range(2)]
_POSITIONS = st.dictionaries(st.sampled_from(_PLACES), st.integers(0, 50), max_size=4).map(Position)


class Replica:
    def __init__(self) -> None:
        self.read_position = mg.Position()


class Lookout:
    def __init__(self) -> None:
        self.lacking: Mapping[TopicPartition, int] | None = None

    def behind(self) -> Mapping[TopicPartition, int] | None:
        return self.lacking


def everything(table: str) -> bool:
    return True


@given(st.lists(_POSITIONS, min_size=2, max_size=5))
def test_what_was_done_never_goes_back_whatever_partitions_come_and_go(positions: list[Position]) -> None:
    sample = Sample(0)
    for n, (was, now) in enumerate(pairwise(positions)):
        after = following(sample, was, now, None, n + 1.0)
        for table, done in after.done.items():
            moved = sum(max(0, now[tp] - was[tp]) for tp in now if tp in was and tp.topic == table)
            assert done == sample.done.get(table, 0) + moved
        sample = after


def test_a_partition_that_joins_is_no_work_and_its_lag_is_its_tables() -> None:
    replica, lookout, clock = Replica(), Lookout(), iter(range(100))
    replica.read_position = mg.Position.parse("orders/0:1000")
    pulse = Pulse(replica, lookout, now=lambda: float(next(clock)))
    replica.read_position = mg.Position.parse("orders/0:1010,orders/1:5000,stock/0:7")
    lookout.lacking = {TopicPartition("orders", 0): 2, TopicPartition("orders", 1): 3}
    pulse.beat()
    told = pulse.since(0.0, everything)
    assert told["at_s"] == [1.0]
    assert told["tables"] == {"orders": {"done": [10], "lag": [5]}, "stock": {"done": [0], "lag": [0]}}


def test_it_is_bounded_and_tells_of_granted_tables_only() -> None:
    replica, lookout, clock = Replica(), Lookout(), iter(range(10_000))
    replica.read_position = mg.Position.parse("orders/0:1,hidden/0:1")
    pulse = Pulse(replica, lookout, now=lambda: float(next(clock)))
    for _ in range(1000):
        pulse.beat()
    told = pulse.since(-1.0, lambda table: table == "orders")
    assert len(told["at_s"]) == 300 and set(told["tables"]) == {"orders"}
    assert pulse.since(told["at_s"][-1], everything) == {"at_s": [], "tables": {}}


def test_the_figures_are_those_of_the_store_and_read_once_a_second(tmp_path: Path) -> None:
    with world(tmp_path, rows=20) as opened:
        now = [100.0]
        counting = Counting(opened.replica, now=lambda: now[0])
        first = counting.figures()
        assert first.tables[ORDERS]["rows"] == 20 and first.tables[ORDERS]["puts"] == 20
        opened.put(ORDERS, 777)
        opened.replica.wait(opened.end)
        now[0] += 0.5
        assert counting.figures() is first
        now[0] += 0.6
        assert counting.figures().tables[ORDERS]["rows"] == 21
