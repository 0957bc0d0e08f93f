"""Transactions that cannot become whole: what a collector makes of them, record by record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merganser.consumers.batch import Batch
from merganser.consumers.collect import Collector, MustStop
from merganser.consumers.decode import TableDecoder
from merganser.consumers.log import Poll
from merganser.schemas.errors import SplitTransaction, Undecidable
from merganser.schemas.headers import Condition, Marks
from merganser.schemas.position import Position, TopicPartition
from stories.txworld import _IDS, _KEY, _ROW, TxWorld
from support.frames import framed
from support.naive import both_ways, caught

ZERO, ONE = TopicPartition("a", 0), TopicPartition("a", 1)
BOTH = {ZERO: 1, ONE: 1}


class Reading:
    """A collector of table a, and what is written to the log of it."""

    def __init__(self, *owned: TopicPartition, compacted: bool = False) -> None:
        self.log = TxWorld(1, transactions=0).log
        self.collector = Collector()
        table = replace(self.log.table("a"), compacted=compacted)
        self.collector.follow(TableDecoder(table, 1, self.log.versions))
        for tp in owned:
            self.collector.own(tp, 0, None)

    def write(self, tp: TopicPartition, id_: int, marks: Marks) -> None:
        key, value = framed(_IDS["a"] + 50, _KEY, {"id": id_}), framed(_IDS["a"], _ROW, {"id": id_, "n": 1})
        decided = marks.resolution is not None
        record = self.log.put(*tp, None if decided else key, None if decided else value, marks)
        poll = Poll()
        poll.add([record])
        self.collector.add(poll)

    def take(self) -> Batch:
        assert not self.collector.empty
        return self.collector.take()


def test_a_decision_that_comes_after_its_transaction_was_settled_holds_nothing_up() -> None:
    reading = Reading(ZERO, ONE)
    reading.write(ZERO, 1, Marks("t", BOTH))
    reading.write(ZERO, 0, Marks("t", resolution="apply"))
    reading.take()
    reading.write(ONE, 0, Marks("t", resolution="apply"))
    reading.collector.waiting.close(["t"], Position({ZERO: 2, ONE: 1}))
    assert reading.take().moves[ONE].applied == 1
    reading.write(ONE, 0, Marks("t", resolution="apply"))
    assert reading.take().moves[ONE].applied == 1
    assert reading.collector.waiting.unclosed() == ["t"]
    reading.collector.waiting.close(["t"], Position({ZERO: 2, ONE: 2}))
    batch = reading.take()
    assert batch.moves[ONE].applied == 2 and not batch.operations


def test_what_lacks_records_is_torn_once_the_log_is_read_past_them_and_not_before() -> None:
    reading = Reading(ZERO, ONE)
    reading.write(ZERO, 1, Marks("t", BOTH))
    reading.take()
    assert not reading.collector.waiting.torn(reading.collector.position)
    reading.collector.waiting.close(["t"], Position({ZERO: 1, ONE: 1}))
    reading.take()
    assert not reading.collector.waiting.torn(reading.collector.position)
    reading.write(ONE, 2, Marks())
    reading.take()
    assert [(why.table, why.tx) for why in reading.collector.waiting.torn(reading.collector.position)] == [("a", "t")]


@pytest.mark.parametrize("first", [ZERO, ONE])
def test_a_decision_is_not_passed_over_while_other_partitions_are_read_slowly(first: TopicPartition) -> None:
    """It is in the log already: the lowest partition that lacks records says which it is, once all are read."""
    reading, second = Reading(ZERO, ONE), ONE if first == ZERO else ZERO
    reading.write(first, 1, Marks("t", {first: 2, second: 1}))
    reading.write(first, 0, Marks("t", resolution="discard"))
    reading.take()
    reading.collector.waiting.close(["t"], Position({first: 2, second: 1}))
    reading.take()
    assert not reading.collector.waiting.torn(reading.collector.position)
    reading.write(second, 0, Marks("t", resolution="discard"))
    batch = reading.take()
    assert (batch.moves[first].applied, batch.moves[second].applied) == (2, 1)


def test_a_decision_elsewhere_than_in_the_lowest_partition_decides_nothing() -> None:
    reading = Reading(ZERO, ONE)
    reading.write(ONE, 1, Marks("t", {ZERO: 1, ONE: 2}))
    reading.write(ONE, 0, Marks("t", resolution="discard"))
    reading.collector.waiting.close(["t"], Position({ZERO: 1, ONE: 2}))
    reading.write(ZERO, 2, Marks())
    reading.take()
    reading.collector.waiting.close(["t"], Position({ZERO: 1, ONE: 2}))
    reading.take()
    assert [why.table for why in reading.collector.waiting.torn(reading.collector.position)] == ["a"]


@pytest.mark.parametrize("excused", ["begun above 0", "no manifest"])
def test_what_may_lack_records_is_whole_then(excused: str) -> None:
    reading = Reading(ZERO, ONE)
    if excused == "begun above 0":
        reading.collector.own(ZERO, 0, None, late=range(1))
    reading.write(ZERO, 1, Marks("t", BOTH if excused == "begun above 0" else None))
    assert reading.take().moves[ZERO].applied == 0
    reading.collector.waiting.close(["t"], Position({ZERO: 1, ONE: 0}))
    batch = reading.take()
    assert batch.moves[ZERO].applied == 1 and [op.id for op in batch.operations] == ["t"]


def test_a_condition_over_partitions_of_another_member_is_refused_by_name() -> None:
    reading = Reading(ZERO)
    reading.write(ZERO, 1, Marks("plain", BOTH))
    assert [op.id for op in reading.take().operations] == ["plain"]
    reading.write(ZERO, 1, Marks("t", BOTH, Condition("absent")))
    with pytest.raises(MustStop) as refused:
        reading.take()
    [why] = refused.value.stopped
    assert isinstance(why, SplitTransaction) and "a/1" in str(why)


@pytest.mark.parametrize(
    "guard", [Marks(condition=Condition("absent")), Marks(ops=("o",)), Marks("t", BOTH, ops=("o",))]
)
@both_ways
def test_what_the_cleaner_may_have_changed_the_fate_of_is_refused_by_name(
    guard: Marks, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that was accepted before it is gone, and it would be the row now."""
    if naive:
        monkeypatch.setattr(Collector, "_check_kept", lambda *_: None)
    reading = Reading(ZERO, ONE, compacted=True)
    reading.write(ZERO, 1, Marks("plain", BOTH))
    reading.write(ONE, 2, Marks("plain"))
    assert reading.take().moves[ZERO].applied == 1
    reading.log.gap(*ZERO, 1)
    reading.write(ZERO, 1, guard)
    with caught(naive):
        with pytest.raises(MustStop) as refused:
            reading.take()
        [why] = refused.value.stopped
        assert isinstance(why, Undecidable) and "a/0 has one at offset 2" in str(why)


def test_a_part_of_a_transaction_that_is_decided_on_elsewhere_is_refused_too() -> None:
    reading = Reading(ZERO)
    reading.write(ZERO, 1, Marks("t", BOTH, guarded=True))
    with pytest.raises(MustStop):
        reading.take()


@pytest.mark.parametrize("cut", [False, True])
def test_a_decision_on_a_transaction_that_is_whole_changes_nothing(cut: bool) -> None:
    reading = Reading(ZERO, ONE)
    reading.write(ZERO, 1, Marks("t", BOTH))
    reading.write(ONE, 2, Marks("t", BOTH))
    operations = reading.take().operations if cut else []
    reading.write(ZERO, 0, Marks("t", resolution="discard"))
    batch = reading.take()
    assert [op.state for op in [*operations, *batch.operations]] == ["applied"]
    assert not any(stage.units for stage in batch.stages)


def test_of_contrary_decisions_the_first_in_the_partition_that_lacks_records_counts() -> None:
    reading = Reading(ZERO, ONE)
    reading.write(ZERO, 1, Marks("t", BOTH))
    reading.write(ZERO, 0, Marks("t", resolution="discard"))
    reading.write(ONE, 0, Marks("t", resolution="apply"))
    reading.write(ONE, 0, Marks("t", resolution="discard"))
    reading.take()
    reading.collector.waiting.close(["t"], Position({ZERO: 2, ONE: 2}))
    [stage] = [stage for stage in reading.take().stages if stage.units]
    assert [unit.resolution for unit in stage.units] == ["apply"]


@pytest.mark.parametrize(
    "headers",
    [
        [("merganser-if", b"version:" + b"9" * 5000)],
        [("merganser-tx", b"t a/0:" + b"9" * 5000)],
        [("merganser-tx", b"t"), ("merganser-resolve", b"apply"), ("merganser-if", b"absent")],
        [("merganser-tx", b"t"), ("merganser-resolve", b"maybe")],
        [("merganser-op", b"\xff")],
        [("merganser-tx", b"t a/0:0")],
        [("merganser-tx", b"t a/0:1 guardedjunk")],
    ],
)
def test_headers_that_no_producer_of_ours_writes_go_to_quarantine(headers: list[tuple[str, bytes]]) -> None:
    reading = Reading(ZERO)
    record = reading.log.put(*ZERO, b"", b"")
    poll = Poll()
    poll.add([replace(record, marks=tuple(headers))])
    reading.collector.add(poll)
    [poison] = reading.take().poison
    assert "header merganser-" in poison.reason
