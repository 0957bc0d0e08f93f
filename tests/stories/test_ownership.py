"""Records that come too late, or twice, or of partitions that are no longer ours (FAILURES 12)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from confluent_kafka import Message
from confluent_kafka import TopicPartition as KafkaPartition

from merganser.consumers.checks import Seen, digest
from merganser.consumers.chunk import Chunk
from merganser.consumers.collect import Collector
from merganser.consumers.decode import TableDecoder
from merganser.consumers.kafka import KafkaReader
from merganser.consumers.log import End, Poll
from merganser.schemas.errors import LogTruncated
from merganser.schemas.position import Position, TopicPartition
from stories.world import World
from support.fakelog import FakeRecord
from support.naive import both_ways, caught

ZERO, ONE = TopicPartition("plain", 0), TopicPartition("plain", 1)


def records(world: World, count: int) -> list[FakeRecord]:
    """*count* rows in each of the partitions 0 and 1 of the append table."""
    for _ in range(count):
        world._put("plain", 0)
        world._put("plain", 1)
    both = world.log.partitions[ZERO] + world.log.partitions[ONE]
    return [record for record in both if record is not None]


def collector(world: World) -> Collector:
    made = Collector()
    made.follow(TableDecoder(world.log.table("plain"), 1, world.log.versions))
    made.own(ZERO, 0, None)
    made.own(ONE, 0, None)
    return made


def polled(records: Sequence[FakeRecord]) -> Poll:
    """A poll that brought *records*."""
    poll = Poll()
    poll.add(records)
    return poll


def read_twice() -> Collector:
    """Three records of each partition, given twice; the first two of partition 0 are in the store."""
    world = World(1)
    again = records(world, 3)
    collected = collector(world)
    collected.own(ZERO, 2, None)
    collected.add(polled(again))
    collected.add(polled(again))
    return collected


def offsets(collected: Collector) -> list[tuple[int, int]]:
    [part] = [part for stage in collected.take().stages for part in stage.tables]
    rows = part.rows().rows.select(["_partition", "_offset"]).to_pylist()
    return sorted((row["_partition"], row["_offset"]) for row in rows)


def test_a_buffered_record_of_a_revoked_partition_is_dropped() -> None:
    world = World(1)
    late = records(world, 3)
    collected = collector(world)
    collected.disown([ONE])
    collected.add(polled(late))
    assert offsets(collected) == [(0, 0), (0, 1), (0, 2)]


def test_a_buffered_record_of_a_table_that_is_no_longer_followed_is_dropped() -> None:
    world = World(1)
    world._put("keyed", 0)
    late = [record for record in world.log.partitions[TopicPartition("keyed", 0)] if record is not None]
    collected = collector(world)
    collected.add(polled([*late, *records(world, 1)]))
    assert offsets(collected) == [(0, 0), (1, 0)]


class Prefetched:
    """A consumer that gives what it had fetched before it was assigned anew."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def assign(self, partitions: object) -> None:
        pass

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        given, self._messages = self._messages[:count], self._messages[count:]
        return given


class LastAssigned(KafkaReader):
    """Naive: what comes can only be of the topics assigned last."""

    def assign(self, position: Position) -> None:
        self._topics = set()
        super().assign(position)


@both_ways
def test_a_late_record_of_a_dropped_topic_is_not_taken_for_one_of_the_only_topic(naive: bool) -> None:
    reader = (LastAssigned if naive else KafkaReader)({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "g")
    reader.close()
    late = [Message(topic=t, partition=0, offset=n, value=t.encode()) for n, t in enumerate(["plain", "keyed"])]
    reader._consumer = Prefetched(late)  # type: ignore[assignment]
    reader.assign(Position({ZERO: 0, TopicPartition("keyed", 0): 0}))
    reader.assign(Position({ZERO: 0}))
    poll = reader.poll(10, 0.0)
    with caught(naive):
        assert {topic: chunk.values for topic, chunk in poll.chunks.items()} == {
            "plain": [b"plain"],
            "keyed": [b"keyed"],
        }


class Rebalanced(Prefetched):
    """A consumer that loses a partition and gains it again after it gave its first record."""

    reader: KafkaReader

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        if len(self._messages) == 1:
            for callback in (self.reader._on_revoke, self.reader._on_assign):
                callback(self, [KafkaPartition("plain", 0)])  # type: ignore[arg-type]
        return super().consume(count, timeout_s)

    def incremental_assign(self, partitions: object) -> None:
        pass

    incremental_unassign = incremental_assign


class AnyOwner:
    def gained(self, partitions: Collection[TopicPartition]) -> Position:
        return Position(dict.fromkeys(partitions, 0))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        pass

    lost = revoked


@both_ways
def test_what_a_poll_gathered_of_a_partition_that_was_given_up_meanwhile_is_dropped(
    naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(Poll, "drop", lambda self, partitions: None)
    reader = KafkaReader({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "g")
    reader.close()
    consumer = Rebalanced([Message(topic="plain", partition=0, offset=n, value=b"") for n in (5, 0)])
    consumer.reader, reader._ownership = reader, AnyOwner()
    reader._consumer = consumer  # type: ignore[assignment]
    reader.assign(Position({ZERO: 5}))
    with caught(naive):
        assert reader.poll(10, 0.0).chunks["plain"].offsets == [0]


def test_a_record_below_the_position_is_dropped() -> None:
    assert offsets(read_twice()) == [(0, 2), (1, 0), (1, 1), (1, 2)]


def test_without_the_drop_those_records_would_be_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(self: Collector, topic: str, chunk: Chunk) -> Chunk:
        return chunk

    monkeypatch.setattr(Collector, "_wanted", everything)
    assert len(offsets(read_twice())) == 12


def test_the_record_remembered_has_to_be_shown_again_and_is_not_applied_twice() -> None:
    world = World(1)
    log = [record for record in records(world, 3) if record.partition() == 0]
    collected = collector(world)
    collected.own(ZERO, 2, Seen(1, digest(log[1].key(), log[1].value())))
    assert collected.add(polled(log[1:])) == []
    assert offsets(collected) == [(0, 2)]


@pytest.mark.parametrize("shown", ["another record", "a later record", "the end"])
def test_a_log_that_does_not_show_it_has_been_truncated(shown: str) -> None:
    world = World(1)
    log = [record for record in records(world, 3) if record.partition() == 0]
    collected = collector(world)
    collected.own(ZERO, 2, Seen(1, b"another digest"))
    polls = {
        "another record": polled(log[1:]),
        "a later record": polled(log[2:]),
        "the end": Poll(ends=[End(ZERO, 3)]),
    }
    [why] = collected.add(polls[shown])
    assert isinstance(why, LogTruncated) and "plain/0" in str(why)


def test_what_could_not_be_decoded_without_the_registry_is_decoded_later() -> None:
    world = World(2)
    collected = collector(world)
    world.write(40)
    for _ in range(3):
        world._schema("plain", 0)
    for _ in range(9):
        world._put("plain", 0)
    whole = [r for tp in (ZERO, ONE) for r in world.log.partitions[tp] if r is not None]
    world.log.registry_fails = 1
    collected.add(polled(whole))
    with pytest.raises(Exception, match="the script says so"):
        collected.take()
    assert sum(move.read for move in collected.take().moves.values()) == len(whole)
