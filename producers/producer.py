"""The write side: rows into the log.

Invariants:
- Nothing that Kafka did not acknowledge is forgotten: it is raised, once, by the next `put`, `delete`,
  `flush` or `close`, whichever comes first.
- The token of `flush` lies past every write that was put before the call.
- Memory is bounded by the send buffer: when it is full, `put` waits, and then says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from ..schemas.catalog import Catalog
from ..schemas.encode import RowEncoder
from ..schemas.errors import DeliveryFailed, InvalidRow, LogUnavailable, UsageError
from ..schemas.kafka import Deadline, OneProcess, code, log_error, reason
from ..schemas.position import Position, TopicPartition
from ..schemas.table import Table

#: How often, at most, `put` serves delivery reports: each time costs more than a put does.
_SERVE_EVERY_S = 0.005


@dataclass(frozen=True)
class ProducerOptions:
    """Bounds and trade-offs of a producer."""

    linger_ms: float = 2
    compression: str = "lz4"
    buffer_rows: int = 100_000
    buffer_bytes: int = 64 * 1024 * 1024
    delivery_timeout_s: float = 30.0  # from put to acknowledgement, retries included


class Write:
    """A row on its way. *partition* and *offset* are None until it is acknowledged and reported.

    Reports come in while the producer is used; after `flush` all of them are in.
    """

    __slots__ = ("_lane", "_round", "offset", "partition", "table")

    def __init__(self, lane: _Lane, round_: _Round) -> None:
        self.table = lane.name
        self.partition: int | None = None
        self.offset: int | None = None
        self._lane = lane
        self._round = round_

    @property
    def position(self) -> Position | None:
        """The position just past this write, once it is acknowledged."""
        if self.partition is None or self.offset is None:
            return None
        return Position.past(self.table, self.partition, self.offset)

    def _report(self, error: KafkaError | None, message: Message[bytes, bytes]) -> None:
        """librdkafka's delivery report. A bound method is the cheapest callback per write."""
        self._round.done += 1
        if error is not None:
            self._lane.failures.add(self.table, error)
            return
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None or offset < 0:
            # A retry that the broker knew already: acknowledged, but without an offset.
            self._lane.unplaced.add(partition or 0)
            return
        self.partition = partition
        self.offset = offset
        if offset >= self._lane.ends.get(partition, 0):
            self._lane.ends[partition] = offset + 1  # the +1 of Position.past, for millions of rows

    def __repr__(self) -> str:
        where = self.position or "not acknowledged"
        return f"<Write to {self.table}: {where}>"


class Producer:
    """Writes rows to tables; idempotent, so a retry inside never writes twice.

    Safe across threads: they share one buffer, one token and one set of failures. Not across a fork:
    make one in each process. `put` and `delete` do not wait unless the buffer is full; `flush` and
    `close` wait: in asyncio call them through ``asyncio.to_thread``.

    A table's schema is looked up at its first write; after `Log.alter_table`, `refresh` takes the
    new version up.
    """

    def __init__(
        self, catalog: Catalog, client_config: Mapping[str, Any], options: ProducerOptions | None = None
    ) -> None:
        self._catalog = catalog
        self._options = options or ProducerOptions()
        self._servers = str(client_config["bootstrap.servers"])
        self._process = OneProcess("this producer")
        self._failures = _Failures()
        self._lanes: dict[str, _Lane] = {}
        self._round = _Round()
        self._rounds: list[_Round] = [self._round]
        self._counting = threading.Lock()  # guards the rounds and what was sent in them
        self._serving = threading.Lock()  # held by the one thread that runs delivery reports
        self._next_serve = 0.0
        self._closed = False
        self._client = KafkaProducer({**client_config, **self._settings()})

    # -- writing -----------------------------------------------------------------------------

    def put(self, table: str, row: Mapping[str, Any]) -> Write:
        """Write one row: insert, or replace the row of the same key. InvalidRow sends nothing."""
        lane = self._ready(table)
        return self._send(lane, lane.encoder.value(row), lane.encoder.key(row) if lane.table.key else None)

    def delete(self, table: str, key: Mapping[str, Any]) -> Write:
        """Delete the row whose key columns have the values of *key*."""
        lane = self._ready(table)
        if not lane.table.key:
            raise UsageError(f"table {table!r} has no key, so its rows cannot be deleted")
        return self._send(lane, None, lane.encoder.key(key, exact=True))

    def flush(self, timeout_s: float | None = None) -> Position:
        """Wait until each write before this call is acknowledged; the token that covers them all.

        Cumulative: it covers everything this producer ever wrote. DeliveryFailed if a write failed
        since the last report, or is still on its way after *timeout_s* (it may yet arrive; a later
        flush tells). By default the wait outlasts the delivery timeout, so that each write is settled.
        """
        self._check_open()
        deadline = Deadline(self._options.delivery_timeout_s + 5 if timeout_s is None else timeout_s)
        rounds = self._next_round()
        while not all(r.settled for r in rounds):
            self._serve(min(0.005, deadline.left_s))
            if deadline.passed and not all(r.settled for r in rounds):
                self._failures.raise_any()
                late = sum(r.sent - r.done for r in rounds)
                why = f"no acknowledgement after {deadline.timeout_s:g} s, still being sent"
                raise DeliveryFailed(self._some_table(), why, late)
        self._failures.raise_any()
        return self._token()

    def refresh(self) -> None:
        """Forget the tables' schemas; the next write to each looks its newest version up."""
        with self._counting:
            for lane in self._lanes.values():
                lane.stale = True

    def close(self, timeout_s: float | None = None) -> Position | None:
        """Flush, then end. None if it was closed before. The producer is closed even if this raises."""
        if self._closed:
            return None
        try:
            return self.flush(timeout_s)
        finally:
            self._closed = True

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryFailed as failed:
            if error is None:
                raise
            error.add_note(f"besides: {failed}")  # the first error stays the one that is raised

    # -- inside ------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        options = self._options
        return {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": options.linger_ms,
            "compression.type": options.compression,
            "queue.buffering.max.messages": options.buffer_rows,
            "queue.buffering.max.kbytes": max(1, options.buffer_bytes // 1024),
            "message.timeout.ms": int(options.delivery_timeout_s * 1000),
            "error_cb": self._on_error,
        }

    def _ready(self, table: str) -> _Lane:
        """The lane of *table*, once everything that forbids a write is ruled out."""
        self._check_open()
        now = time.monotonic()
        if now >= self._next_serve:
            self._next_serve = now + _SERVE_EVERY_S
            self._serve(0)
        if self._failures.any:
            self._failures.raise_any()
        lane = self._lanes.get(table)
        return lane if lane is not None and not lane.stale else self._open_lane(table)

    def _check_open(self) -> None:
        self._process.check()
        if self._closed:
            raise UsageError("this producer is closed")

    def _open_lane(self, name: str) -> _Lane:
        table = self._catalog.table(name)
        encoder = RowEncoder(table)
        with self._counting:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(name, table, encoder, self._failures)
            elif lane.stale:
                lane.table, lane.encoder, lane.stale = table, encoder, False
        return lane

    def _send(self, lane: _Lane, value: bytes | None, key: bytes | None) -> Write:
        with self._counting:
            round_ = self._round
            round_.sent += 1  # before it is sent: its report may come at once
        write = Write(lane, round_)
        try:
            self._client.produce(lane.name, value, key, -1, write._report)
        except BufferError:
            self._wait_for_room(lane, value, key, write)
        except BaseException as error:
            self._unsend(round_)
            raise self._refused(lane, error) from error
        return write

    def _unsend(self, round_: _Round) -> None:
        with self._counting:
            round_.sent -= 1

    def _wait_for_room(self, lane: _Lane, value: bytes | None, key: bytes | None, write: Write) -> None:
        """Back-pressure: serve reports until the row fits, for as long as a write may take at all."""
        deadline = Deadline(self._options.delivery_timeout_s + 5)
        try:
            while not deadline.passed:
                self._serve(0.02)
                self._failures.raise_any()
                try:
                    return self._client.produce(lane.name, value, key, -1, write._report)
                except BufferError:
                    continue
            why = f"the send buffer stayed full for {deadline.timeout_s:g} s; this row was not sent"
            raise LogUnavailable(self._servers, why)
        except BaseException as error:
            self._unsend(write._round)
            raise self._refused(lane, error) from error

    def _refused(self, lane: _Lane, error: BaseException) -> BaseException:
        if code(error) == KafkaError.MSG_SIZE_TOO_LARGE:
            return InvalidRow(lane.name, "*", "...", "the row is larger than a Kafka message may be")
        if isinstance(error, KafkaException):
            return DeliveryFailed(lane.name, f"{reason(error)}: make a new producer")
        return error

    def _serve(self, timeout_s: float) -> None:
        """Run the delivery reports that are in, unless another thread is about it."""
        if self._serving.acquire(blocking=False):
            try:
                if timeout_s:
                    self._client.flush(timeout_s)  # as poll, but nothing lingers meanwhile
                else:
                    self._client.poll(0)
            finally:
                self._serving.release()
        elif timeout_s:
            time.sleep(timeout_s)

    def _next_round(self) -> list[_Round]:
        """The rounds with everything written so far; later writes count for a new one."""
        with self._counting:
            self._rounds = [r for r in self._rounds if not r.settled]
            pending = list(self._rounds)
            self._round = _Round()
            self._rounds.append(self._round)
        return pending

    def _token(self) -> Position:
        with self._counting:
            lanes = list(self._lanes.items())
        ends = {
            TopicPartition(name, partition): end for name, lane in lanes for partition, end in dict(lane.ends).items()
        }
        unplaced = [TopicPartition(name, partition) for name, lane in lanes for partition in set(lane.unplaced)]
        # An acknowledged write without an offset lies below the end of its partition as it is now.
        return Position(ends) | (self._catalog.cluster.ends(unplaced) if unplaced else {})

    def _some_table(self) -> str:
        return next(iter(self._lanes), "")

    def _on_error(self, error: KafkaError) -> None:
        log_error(error)
        if error.fatal():
            self._failures.end(error.str())


@dataclass(slots=True, eq=False)
class _Round:
    """Writes between two flushes. *sent* changes under the counting lock, *done* under the serving one."""

    sent: int = 0
    done: int = 0

    @property
    def settled(self) -> bool:
        return self.done >= self.sent


@dataclass(slots=True)
class _Failures:
    """What was not acknowledged and not yet told."""

    count: int = 0
    table: str = ""
    why: str = ""
    fatal: str = ""
    any: bool = False  # a plain attribute: every put looks at it
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, table: str, error: KafkaError) -> None:
        with self.lock:
            if not self.count:
                self.table, self.why = table, error.str()
            self.count += 1
            self.any = True

    def end(self, why: str) -> None:
        """The client is dead: nothing can be written any more."""
        self.fatal, self.any = why, True

    def raise_any(self) -> None:
        """Raise what was not told yet, once; a dead client every time."""
        with self.lock:
            count, self.count, self.any = self.count, 0, bool(self.fatal)
            table, why = self.table, self.why
        if count:
            raise DeliveryFailed(table, why, count)
        if self.fatal:
            raise DeliveryFailed(self.table, f"{self.fatal}: make a new producer", 0)


@dataclass(slots=True)
class _Lane:
    """What the producer keeps of one table."""

    name: str
    table: Table
    encoder: RowEncoder
    failures: _Failures
    ends: dict[int, int] = field(default_factory=dict)
    unplaced: set[int] = field(default_factory=set)
    stale: bool = False
