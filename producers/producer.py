"""The write side: rows into the log.

Invariants:
- Nothing that Kafka did not acknowledge is forgotten: it is raised, once, by the next `put`, `delete`,
  `flush` or `close`, whichever comes first.
- The token of `flush` lies past every write that was put before the call.
- Memory is bounded by the send buffer: when it is full, `put` waits, and then says so. A transaction
  has bounds of its own.

Two librdkafka clients write, since one that is transactional refuses writes outside of a transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaProducer

from ..schemas.catalog import Catalog
from ..schemas.encode import RowEncoder
from ..schemas.errors import DeliveryFailed, InvalidRow, LogUnavailable, UsageError
from ..schemas.headers import Marks, check_id, encode
from ..schemas.kafka import Deadline, OneProcess, code, log_error, reason
from ..schemas.position import Position, TopicPartition
from .commit import Transactions, kafka_error
from .options import ProducerOptions
from .terms import home_of, marks_of
from .transaction import Transaction
from .write import Failures, Lane, MarkedWrite, PlainWrite, Round, Write

__all__ = ["Producer", "ProducerOptions", "Write"]

#: How often, at most, `put` serves delivery reports: each time costs more than a put does.
_SERVE_EVERY_S = 0.005


class Producer:
    """Writes rows to tables; idempotent, so a retry inside never writes twice.

    Safe across threads: they share one buffer, one token and one set of failures. Not across a fork:
    make one in each process. `put` and `delete` do not wait unless the buffer is full; `flush`,
    `transaction` and `close` wait: in asyncio call them through ``asyncio.to_thread``.

    A table's schema is looked up at its first write; after `Log.alter_table`, `refresh` takes the
    new version up.

    *id_* names the producer across restarts: the newest one of an id fences the older ones, so that a zombie
    commits no transaction. For that its making waits for Kafka (LogUnavailable). Plain writes are not fenced.
    """

    def __init__(
        self,
        catalog: Catalog,
        client_config: Mapping[str, Any],
        options: ProducerOptions | None = None,
        id_: str | None = None,
    ) -> None:
        if id_ is not None and (why := check_id(id_)):
            raise UsageError(f"producer id {id_!r}: {why}")
        self._catalog = catalog
        self._options = options or ProducerOptions()
        self._servers = str(client_config["bootstrap.servers"])
        self._process = OneProcess("this producer")
        self._failures = Failures()
        self._lanes: dict[str, Lane] = {}
        self._round = Round()
        self._rounds: list[Round] = [self._round]
        self._counting = threading.Lock()  # guards the rounds and what was sent in them
        self._serving = threading.Lock()  # held by the one thread that runs delivery reports
        self._next_serve = 0.0
        self._closed = False
        settings = {**client_config, **self._settings()}
        self._client = KafkaProducer(settings)
        self._transactions = Transactions(self, catalog, settings, self._options, id_)

    # -- writing -----------------------------------------------------------------------------

    def put(
        self,
        table: str,
        row: Mapping[str, Any],
        *,
        op: str | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
    ) -> Write:
        """Write one row: insert, or replace the row of the same key. InvalidRow sends nothing.

        With one of *if_version* (the row's ``_offset``), *if_absent* and *if_present* the write is taken
        only if that holds of the key's row when a replica applies it: `Replica.outcome` tells. With *op* a
        replica applies the write once, however often it is sent; an id holds within one partition, so
        send the same row again with it. UsageError if the table cannot have such a condition.
        """
        lane = self._ready(table)
        value, key = lane.encoder.value(row), lane.encoder.key(row) if lane.table.key else None
        if op is None and if_version is None and not if_absent and not if_present:
            return self._send(lane, value, key)
        return self._send_marked(lane, value, key, marks_of(lane.table, op, if_version, if_absent, if_present))

    def delete(
        self,
        table: str,
        key: Mapping[str, Any],
        *,
        op: str | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
    ) -> Write:
        """Delete the row whose key columns have the values of *key*; conditions and *op* as for `put`."""
        lane = self._ready(table)
        if not lane.table.key:
            raise UsageError(f"table {table!r} has no key, so its rows cannot be deleted")
        encoded = lane.encoder.key(key, exact=True)
        if op is None and if_version is None and not if_absent and not if_present:
            return self._send(lane, None, encoded)
        return self._send_marked(lane, None, encoded, marks_of(lane.table, op, if_version, if_absent, if_present))

    def transaction(self, op: str | None = None) -> Transaction:
        """Writes that become visible together or not at all: ``with producer.transaction() as tx: tx.put(...)``.

        Entering it waits for all plain writes before it (DeliveryFailed), and for a transaction that another
        thread has open: a producer has one at a time. Inside of it, the thread writes through it only.

        With *op* the transaction is applied once, however often it is run. The id lives in the partition
        of the transaction's first row: begin each attempt with the same row.
        """
        return Transaction(self._transactions, self._transactions.bounds, op)

    def flush(self, timeout_s: float | None = None) -> Position:
        """Wait until each plain write before this call is acknowledged; the token that covers them all, and
        all committed transactions.

        Cumulative: it covers everything this producer ever wrote. DeliveryFailed if a write failed
        since the last report, or is still on its way after *timeout_s* (it may yet arrive; a later
        flush tells). By default the wait outlasts the delivery timeout, so that each write is settled.
        """
        self.check_open()
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
            self._transactions.close()

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

    def _ready(self, table: str) -> Lane:
        """The lane of *table*, once everything that forbids a plain write is ruled out."""
        self.check_open()
        if self._transactions.current is not None and self._transactions.entered_here:
            raise UsageError("inside of a transaction, write through it: tx.put, tx.delete")
        now = time.monotonic()
        if now >= self._next_serve:
            self._next_serve = now + _SERVE_EVERY_S
            self._serve(0)
        if self._failures.any:
            self._failures.raise_any()
        lane = self._lanes.get(table)
        return lane if lane is not None and not lane.stale else self._open_lane(table)

    def lane(self, table: str) -> Lane:
        """What is kept of *table*: its encoder, by the schema of its first use or `refresh`."""
        lane = self._lanes.get(table)
        return lane if lane is not None and not lane.stale else self._open_lane(table)

    def check_open(self) -> None:
        """UsageError if it is closed, or came here by a fork."""
        self._process.check()
        if self._closed:
            raise UsageError("this producer is closed")

    def _open_lane(self, name: str) -> Lane:
        table = self._catalog.table(name)
        encoder = RowEncoder(table)
        with self._counting:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = Lane(name, table, encoder, self._failures)
            elif lane.stale:
                lane.table, lane.encoder, lane.stale = table, encoder, False
        return lane

    def _send(self, lane: Lane, value: bytes | None, key: bytes | None) -> Write:
        with self._counting:
            round_ = self._round
            round_.sent += 1  # before it is sent: its report may come at once
        write = PlainWrite(lane, round_)
        try:
            self._client.produce(lane.name, value, key, -1, write._report)
        except BufferError:
            self._wait_for_room(write, partial(self._client.produce, lane.name, value, key, -1, write._report))
        except BaseException as error:
            raise self._not_sent(write, error) from error
        return write

    def _send_marked(self, lane: Lane, value: bytes | None, key: bytes | None, marks: Marks) -> Write:
        """As `_send`, which is kept apart for the sake of its pace: with headers, and an op's partition."""
        with self._counting:
            round_ = self._round
            round_.sent += 1
        write = MarkedWrite(lane, round_, marks.ops)
        home = None if lane.table.key else home_of(lane.table, None, marks.ops)
        produce = partial(
            self._client.produce,
            lane.name,
            value,
            key,
            -1 if home is None else home,
            write._report,
            headers=list(encode(marks)),
        )
        try:
            produce()
        except BufferError:
            self._wait_for_room(write, produce)
        except BaseException as error:
            raise self._not_sent(write, error) from error
        return write

    def _wait_for_room(self, write: PlainWrite, produce: Callable[[], None]) -> None:
        """Back-pressure: serve reports until the row fits, for as long as a write may take at all."""
        deadline = Deadline(self._options.delivery_timeout_s + 5)
        try:
            while not deadline.passed:
                self._serve(0.02)
                self._failures.raise_any()
                try:
                    return produce()
                except BufferError:
                    continue
            why = f"the send buffer stayed full for {deadline.timeout_s:g} s; this row was not sent"
            raise LogUnavailable(self._servers, why)
        except BaseException as error:
            raise self._not_sent(write, error) from error

    def _not_sent(self, write: PlainWrite, error: BaseException) -> BaseException:
        """What to raise for a row that *error* kept from being sent; it counts for no flush."""
        with self._counting:
            write.round.sent -= 1
        if code(error) == KafkaError.MSG_SIZE_TOO_LARGE:
            return InvalidRow(write.table, "*", "...", "the row is larger than a Kafka message may be")
        if isinstance(error, KafkaException):
            return DeliveryFailed(write.table, f"{reason(error)}: make a new producer")
        return error

    def _serve(self, timeout_s: float) -> None:
        """Run the delivery reports that are in, unless another thread is about it."""
        if self._serving.acquire(blocking=False):
            try:
                if timeout_s:
                    self._client.flush(timeout_s)  # as poll, but nothing lingers meanwhile
                else:
                    self._client.poll(0)
            except (KafkaException, SystemError) as error:  # a fatal error does not come by `error_cb`
                found = kafka_error(error)
                if found is None or not found.fatal():
                    raise
                self._failures.end(found.str())
            finally:
                self._serving.release()
        elif timeout_s:
            time.sleep(timeout_s)

    def _next_round(self) -> list[Round]:
        """The rounds with everything written so far; later writes count for a new one."""
        with self._counting:
            self._rounds = [r for r in self._rounds if not r.settled]
            pending = list(self._rounds)
            self._round = Round()
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
        token = Position(ends) | self._transactions.position
        return token | (self._catalog.cluster.ends(unplaced) if unplaced else {})

    def _some_table(self) -> str:
        return next(iter(self._lanes), "")

    def _on_error(self, error: KafkaError) -> None:
        log_error(error)
        if error.fatal():
            self._failures.end(error.str())
