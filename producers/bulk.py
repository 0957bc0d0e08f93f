"""Bulk loading: encoded rows in large plain Kafka transactions, each with a note of what it holds, or whole records.

Invariants:
- The rows of a chunk and its note are one Kafka transaction: a reader of committed records has both or neither.
- No row is part of a transaction of ours. To a replica they are ordinary records: it holds none back, and a reader
  may see a part of a chunk. Kafka's transaction is there for the note, and so that a chunk that failed leaves nothing.
- The note is sent once every row is acknowledged, so the topic of the notes is held up for milliseconds only.
- librdkafka itself picks the partitions of rows, with the partitioner and the settings of `Producer`; whole
  records say theirs.

No callback is run for each record: if one could not be delivered, librdkafka refuses to commit. Of whole records
the last one in each partition tells how far they reach.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message
from confluent_kafka import Producer as KafkaProducer

from ..schemas.errors import UsageError
from ..schemas.headers import check_id
from ..schemas.kafka import Deadline, log_error
from ..schemas.position import Position
from .commit import SendFailed, TransactionalClient


@dataclass(frozen=True)
class BulkOptions:
    """Bounds of a bulk writer. A chunk is within both, or it is refused."""

    rows: int = 50_000
    bytes: int = 16 * 1024 * 1024  # of keys and values
    compression: str = "lz4"
    transaction_timeout_s: float = 10.0  # a killed import's transaction hides what follows it for so long


@dataclass(frozen=True)
class Note:
    """What is written beside a chunk's rows."""

    topic: str
    partition: int
    key: bytes
    value: bytes


class WholeRecord(NamedTuple):
    """A record as it is to be, its place included. *time_ms* counts where the topic keeps producers' times."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    time_ms: int = 0  # 0: now

    @property
    def size(self) -> int:
        beside = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + beside


#: What librdkafka counts for a message besides its key and value.
_ENVELOPE = 512

#: librdkafka's own limit.
_LARGEST = 1_000_000_000


class BulkWriter:
    """Writes chunks, one after the other; for one thread. The newest writer of an *id_* fences the older ones."""

    def __init__(self, client_config: Mapping[str, Any], id_: str, options: BulkOptions | None = None) -> None:
        if why := check_id(id_):
            raise UsageError(f"bulk writer id {id_!r}: {why}")
        self.options = options or BulkOptions()
        timeout_s = self.options.transaction_timeout_s
        settings = {
            **client_config,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "compression.type": self.options.compression,
            "queue.buffering.max.messages": self.options.rows + 1,
            "queue.buffering.max.kbytes": self.options.bytes // 1024 + self.options.rows // 8 + 1024,
            "message.timeout.ms": int(timeout_s * 1000),
            "error_cb": log_error,
        }
        told = int(settings.get("message.max.bytes", 1_000_000))
        #: Of a key and a value together, by what this client was told: the topic may allow less.
        self.row_bytes = told - _ENVELOPE
        # A record that is written again was in a topic already, and has a header more: it is for the topic to judge.
        # Of several together none is larger than was told: the topic would refuse them all.
        settings["message.max.bytes"] = _LARGEST
        settings["batch.size"] = min(told, int(settings.get("batch.size", told)))
        self._client = TransactionalClient(settings, id_, shared=True, timeout_s=timeout_s, init_timeout_s=timeout_s)

    def open(self) -> None:
        """Fence older writers of this id. When this returns, what they wrote is committed or never will be.
        LogUnavailable, ProducerFenced."""
        self._client.open()

    def write(
        self,
        topic: str,
        keys: Sequence[bytes] | None,
        values: Sequence[bytes],
        note: Callable[[], Note],
        *,
        confirm: Callable[[], str | None] = lambda: None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """One chunk: rows, note, commit. RolledBack, CommitInDoubt or ProducerFenced.

        *confirm* is asked once the rows are acknowledged, and says why they must not be committed, if so. Then
        *note* is asked for the note.
        """
        size = sum(map(len, values)) + (sum(map(len, keys)) if keys is not None else 0)
        self._check(len(values), size)
        self._run(lambda client: _produce(client, topic, keys, values), note, confirm, on_step)

    def write_whole(
        self,
        records: Sequence[WholeRecord],
        *,
        confirm: Callable[[], str | None] = lambda: None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> Position:
        """One chunk of *records* that say for themselves what they are; else as :meth:`write`. The position just
        past them."""
        self._check(len(records), sum(record.size for record in records))
        past: list[Position] = []
        self._run(lambda client: _produce_whole(client, records, past.append), None, confirm, on_step)
        return Position({tp: offset for each in past for tp, offset in each.items()})

    def _check(self, rows: int, size: int) -> None:
        if rows > self.options.rows or (size > self.options.bytes and rows > 1):
            raise UsageError(f"a chunk of {rows:,} rows and {size:,} bytes is larger than {self.options}")

    def _run(
        self,
        produce: Callable[[KafkaProducer], None],
        note: Callable[[], Note] | None,
        confirm: Callable[[], str | None],
        on_step: Callable[[str], None],
    ) -> None:
        def send(client: KafkaProducer, deadline: Deadline) -> None:
            on_step("begun")
            produce(client)
            _acknowledged(client, deadline)
            on_step("sent")
            if why := confirm():
                raise SendFailed(why, ours=True)
            if note is not None:
                made = note()
                client.produce(made.topic, made.value, made.key, made.partition)
                _acknowledged(client, deadline)
                on_step("noted")

        self._client.run(uuid.uuid4().hex, send)
        on_step("committed")

    def close(self) -> None:
        self._client.close()


def _produce(client: KafkaProducer, topic: str, keys: Sequence[bytes] | None, values: Sequence[bytes]) -> None:
    if keys is None:
        messages: list[dict[str, Any]] = [{"value": value} for value in values]
    else:
        messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
    if messages and client.produce_batch(topic, messages) != len(messages):
        errors = (message["_error"] for message in messages if message.get("_error"))
        raise SendFailed(f"{topic}: {next(errors, 'a row was not taken')}")


def _produce_whole(client: KafkaProducer, records: Sequence[WholeRecord], past: Callable[[Position], None]) -> None:
    """*past* is told the position after the last record in each partition."""

    def report(error: KafkaError | None, message: Message[bytes, bytes]) -> None:
        if error is None:
            past(Position.past(message.topic() or "", message.partition() or 0, message.offset() or 0))

    last = {(record.topic, record.partition): i for i, record in enumerate(records)}
    for i, (topic, partition, key, value, headers, time_ms) in enumerate(records):
        told = report if last[topic, partition] == i else None
        client.produce(topic, value, key, partition, on_delivery=told, timestamp=time_ms, headers=list(headers))


def whole_chunks(records: Iterable[WholeRecord], rows: int, size: int) -> Iterator[Sequence[WholeRecord]]:
    """*records*, so many at a time that a chunk is within both bounds, or is one record."""
    chunk: list[WholeRecord] = []
    held = 0
    for record in records:
        if chunk and (len(chunk) >= rows or held + record.size > size):
            yield chunk
            chunk, held = [], 0
        chunk.append(record)
        held += record.size
    if chunk:
        yield chunk


def _acknowledged(client: KafkaProducer, deadline: Deadline) -> None:
    if client.flush(deadline.left_s):
        raise SendFailed(f"not acknowledged within {deadline.timeout_s:g} s")
