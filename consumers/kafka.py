"""Reader over confluent-kafka.

Invariants: offsets are handed to ``assign``, never sought (FAILURES 11); the consumer never chooses a
start by itself (``auto.offset.reset=error``); message and EOF offsets are trusted, ``position()`` is
not. One thread owns the consumer, which ``consume`` requires.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from ..schemas.position import Position, TopicPartition
from .chunk import Chunk, Record
from .log import End, Ownership, Poll, Problem, check_group

_log = logging.getLogger(__name__)

#: Errors after which the consumer goes on by itself; librdkafka retries them.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._MAX_POLL_EXCEEDED,
    }
)

#: Messages in hand at one time. From 700 new objects on, Python's collector looks through them.
_SLICE = 500

#: How long a poll goes on taking what is there already, without waiting for it.
_TAKE_S = 0.02


def reader_config(client: Mapping[str, Any], group: str) -> dict[str, Any]:
    """librdkafka's settings for reading a log exactly."""
    return {
        **client,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "check.crcs": True,
        # The prefetch queue is the reader's share of the memory bound. Once it is full, librdkafka
        # waits this backoff (1 s by default) before it fetches on: with a short one, a small queue
        # is as fast as a large one. Small fetches are even faster, they stay in the processor's cache;
        # a record larger than that comes all the same, alone.
        "queued.max.messages.kbytes": 8 * 1024,
        "queued.min.messages": 10_000,
        "max.partition.fetch.bytes": 256 * 1024,
        "fetch.queue.backoff.ms": 5,
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
    }


_CLOSE_S = 5.0


class KafkaReader:
    """A Reader of one Kafka cluster."""

    def __init__(self, client: Mapping[str, Any], group: str, kind: type[Chunk] = Chunk) -> None:
        check_group(group)
        self._config = reader_config(client, group)
        self._consumer = Consumer(self._config)
        self._ownership: Ownership | None = None
        self._kind = kind
        self._gathered = Poll()
        self._paused: set[TopicPartition] = set()
        self._topics: set[str] = set()  # ever read: records of dropped ones may still come

    def assign(self, position: Position) -> None:
        self._topics |= {tp.topic for tp in position}
        self.pause(())  # librdkafka remembers it of a partition, whoever assigns that again
        self._consumer.assign([KafkaPartition(*tp, offset) for tp, offset in position.items()])

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        self._consumer.close()
        self._consumer = Consumer({**self._config, "group.protocol": "consumer"})
        self._ownership = ownership
        self._topics |= set(topics)
        self._consumer.subscribe(
            sorted(topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        self.pause(self._paused - set(partitions))
        self._consumer.incremental_unassign([KafkaPartition(*tp) for tp in partitions])

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        wanted = set(partitions)
        if resumed := self._paused - wanted:
            self._consumer.resume([KafkaPartition(*tp) for tp in resumed])
        if added := wanted - self._paused:
            self._consumer.pause([KafkaPartition(*tp) for tp in added])
        self._paused = wanted

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        poll = self._gathered = Poll.of(self._kind)
        # consume() waits until it is full or the time is over, so wait for the first record alone.
        asked = 1
        messages = self._consumer.consume(asked, timeout_s)
        began = time.monotonic()
        while messages:
            self._sort(messages, poll)
            max_records -= len(messages)
            passed_s = time.monotonic() - began
            more_is_there = len(messages) == asked and passed_s < _TAKE_S
            if max_records <= 0 or not (more_is_there or passed_s < gather_s):
                break
            asked = min(max_records, _SLICE)
            messages = self._consumer.consume(asked, max(0.0, gather_s - passed_s))
        return poll

    def _sort(self, messages: list[Message], poll: Poll) -> None:
        """Records and events, each to its place in *poll*."""
        if any(map(Message.error, messages)):
            for message in messages:
                if message.error() is not None:
                    self._note(message, poll)
            messages = [message for message in messages if message.error() is None]
        if messages:
            only = next(iter(self._topics)) if len(self._topics) == 1 else None
            # confluent-kafka's stubs allow None where records have none.
            poll.add(cast(Sequence[Record], messages), only)

    def _note(self, message: Message, poll: Poll) -> None:
        """Sort an event that is no record into ends, problems and what passes by itself."""
        error = message.error()
        assert error is not None
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or partition < 0 or error.code() in _PASSING:
            if error.fatal():
                raise KafkaException(error)
            _log.warning("kafka: %s", error.str())
        elif error.code() == KafkaError._PARTITION_EOF and offset is not None:
            poll.ends.append(End(TopicPartition(topic, partition), offset))
        else:
            truncated = error.code() == KafkaError._LOG_TRUNCATION
            poll.problems.append(Problem(TopicPartition(topic, partition), error.str(), truncated))

    def known_ends(self) -> Position:
        ends: dict[TopicPartition, int] = {}
        for partition in self._consumer.assignment():
            known = self._consumer.get_watermark_offsets(partition, cached=True)
            if known is not None and known[1] > 0:
                ends[TopicPartition(partition.topic, partition.partition)] = known[1]
        return Position(ends)

    def report(self, position: Position) -> None:
        offsets = [KafkaPartition(*tp, offset) for tp, offset in position.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _log.info("group offsets not reported: %s", error)

    def close(self) -> None:
        """Bounded: with no broker to answer, librdkafka waits a minute for its last commit of offsets, which only
        tools look at. What is not over by then ends with the process."""
        closing = threading.Thread(target=self._consumer.close, name="merganser-closing", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    # -- rebalances of a split group, called from within consume() ----------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        assert self._ownership is not None
        starts = self._ownership.gained(_ours(partitions))
        consumer.incremental_assign([KafkaPartition(*tp, offset) for tp, offset in starts.items()])

    def _on_revoke(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        assert self._ownership is not None
        self.pause(self._paused - set(_ours(partitions)))
        self._gathered.drop(_ours(partitions))  # librdkafka itself drops what this very consume() has of them
        self._ownership.revoked(_ours(partitions))
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        assert self._ownership is not None
        self.pause(self._paused - set(_ours(partitions)))
        self._gathered.drop(_ours(partitions))
        self._ownership.lost(_ours(partitions))
        consumer.incremental_unassign(partitions)


def _ours(partitions: list[KafkaPartition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.partition) for p in partitions]
