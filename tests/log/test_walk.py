"""A log read from one position to another, by who is no replica: each record once, and the end is the reader's word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from archive.archives import table
from merganser.consumers import walk as walking
from merganser.consumers.log import End, Poll
from merganser.consumers.walk import walk
from merganser.schemas.errors import NotFreshEnough, TableStopped
from merganser.schemas.hanging import OpenTransaction
from merganser.schemas.position import Position, TopicPartition
from support.fakelog import FakeLog, FakeReader
from support.naive import both_ways, caught

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def log_of(*runs: int, seed: int = 1) -> FakeLog:
    """Partitions 0, 1… of runs: so many records, then so many gaps."""
    log = FakeLog(seed)
    log.add(table())
    for partition, (records, gaps) in enumerate(zip(runs[::2], runs[1::2], strict=True)):
        for n in range(records):
            log.put("t", partition, None, bytes([n]))
        log.gap("t", partition, gaps)
    return log


def found(polls: Iterator[Poll]) -> dict[int, list[int]]:
    """The offsets that come of each partition."""
    offsets: dict[int, list[int]] = {0: [], 1: []}
    for poll in polls:
        for chunk in poll.chunks.values():
            for partition, offset in zip(chunk.partitions, chunk.offsets, strict=True):
                offsets[partition].append(offset)
    return offsets


@pytest.mark.parametrize("seed", range(5))
def test_each_record_from_the_one_position_to_the_other_comes_once(seed: int) -> None:
    log, told = log_of(30, 0, 20, 0, seed=seed), list[int]()
    begin, end = Position({P0: 4, P1: 20}), Position({P0: 25, P1: 20})
    offsets = found(walk(log, "test", begin, end, 5, told=told.append))
    assert offsets[0][:21] == list(range(4, 25)) and offsets[1] == []
    assert all(before < after for before, after in pairwise(offsets[0]))
    assert sum(told) == len(offsets[0])


@both_ways
def test_a_tail_without_records_is_the_end_all_the_same(naive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control records, aborted ones, what compaction took: only the reader's word tells of them."""
    log = log_of(3, 5, 0, 2)
    if naive:  # the end is where the last record is
        monkeypatch.setattr(FakeReader, "poll", _without_ends(FakeReader.poll))
    with caught(naive):
        ends = log.ends([P0, P1])
        assert ends == {P0: 8, P1: 2}
        assert found(walk(log, "test", Position(), ends, 0.2)) == {0: [0, 1, 2], 1: []}


def _without_ends(poll):  # type: ignore[no-untyped-def]
    def polled(self: FakeReader, *args: object) -> Poll:
        got: Poll = poll(self, *args)
        got.ends = []
        return got

    return polled


def test_nothing_is_asked_where_nothing_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(3, 0, 3, 0)
    monkeypatch.setattr(FakeReader, "poll", lambda *_: pytest.fail("polled"))
    assert list(walk(log, "test", Position({P0: 3}), Position({P0: 3}), 5)) == []
    assert list(walk(log, "test", Position(), Position(), 5)) == []


def test_what_the_log_refuses_is_told_by_name() -> None:
    log = log_of(9, 0, 3, 0)
    log.trim("t", 0, 5)
    with pytest.raises(TableStopped, match="t/0: offset out of range"):
        found(walk(log, "test", Position({P0: 2}), Position({P0: 9}), 5))


def test_what_holds_it_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(9, 0, 3, 0)
    hanging = OpenTransaction(P0, 9, 4.0)
    monkeypatch.setattr(log, "open_transactions", lambda partitions, timeout_s: [hanging])
    why = "'test' within 0.1 s: 2 offsets lack, t/0 is read to 9 of 11; t/0 has had a transaction open since offset 9"
    with pytest.raises(NotFreshEnough, match=why):
        found(walk(log, "test", Position(), Position({P0: 11, P1: 3}), 0.1))


def test_patience_begins_anew_with_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk may take long; only nothing at all is too little."""
    log, clock = log_of(9, 0, 0, 0), [0.0]

    class Clock(walking.Deadline):
        def __init__(self, timeout_s: float) -> None:
            self.timeout_s, self._until = timeout_s, clock[0] + timeout_s

        @property
        def passed(self) -> bool:
            return clock[0] >= self._until

    polls = FakeReader.poll

    def slow(self: FakeReader, *args: object) -> Poll:
        clock[0] += 3.0
        return polls(self, 1, 0)

    monkeypatch.setattr(walking, "Deadline", Clock)
    monkeypatch.setattr(FakeReader, "poll", slow)
    monkeypatch.setattr(log.random, "randint", lambda low, high: high)
    assert found(walk(log, "test", Position(), Position({P0: 9}), 4.0))[0] == list(range(9))


def test_a_reader_is_closed_however_the_walk_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = list[bool]()
    monkeypatch.setattr(FakeReader, "close", lambda self: closed.append(True))
    log = log_of(9, 0, 3, 0)
    for _ in walk(log, "test", Position(), log.ends([P0]), 5):
        break
    found(walk(log, "test", Position(), log.ends([P0]), 5))
    with pytest.raises(LookupError):
        for _ in walk(log, "test", Position(), log.ends([P0]), 5):
            raise LookupError
    assert len(closed) == 3


def test_an_end_of_another_partition_is_no_end_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    log, other = log_of(3, 0, 0, 0), TopicPartition("u", 0)
    polls = FakeReader.poll

    def with_others(self: FakeReader, *args: object) -> Poll:
        got = polls(self, 1, 0)
        got.ends.append(End(other, 99))
        return got

    monkeypatch.setattr(FakeReader, "poll", with_others)
    assert found(walk(log, "test", Position(), Position({P0: 3}), 5))[0] == [0, 1, 2]
