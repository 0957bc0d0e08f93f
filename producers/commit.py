"""How a transaction is committed: one at a time, through one ``transactional.id`` and its client of the moment.

Invariants:
- Nothing can commit a transaction before `commit_transaction` is called, and that is called only when each
  of its records is acknowledged. So whatever fails earlier is a rollback, and is told as one.
- Once it was called, only an abort that Kafka confirmed is a rollback; everything else is in doubt. That
  includes being fenced: an EndTxn whose answer was lost, and which is sent again, ends in the same error.
- A client that failed is destroyed, and the next transaction makes a new one: after a timeout or a doubt its
  state is unknown, and even after a clean abort librdkafka may fail the next transaction too (a record
  that was too large: "skipped sequence numbers"). The new one's
  `init_transactions` raises the epoch, so an EndTxn of the old one that arrives late is refused instead of
  ending another transaction (FAILURES 5).

`commit_transaction` and `abort_transaction` get a timeout, although librdkafka recommends none: without one
they wait for as long as no broker answers (2.16: tried, minutes). What librdkafka warns of, a client whose
state is behind the coordinator's, does not matter to a client that is destroyed.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaProducer

from ..schemas.catalog import Catalog
from ..schemas.encode import RowEncoder
from ..schemas.errors import (
    CommitInDoubt,
    LogUnavailable,
    MerganserError,
    ProducerFenced,
    RolledBack,
    UsageError,
)
from ..schemas.kafka import NOT_PERMITTED, Deadline, refused
from ..schemas.position import Position
from ..schemas.table import Table
from .options import ProducerOptions
from .transaction import Bounds, Record, Transaction, headers, placed, unplaced
from .write import Lane


class PlainSide(Protocol):
    """What transactions need of the producer they belong to."""

    def check_open(self) -> None: ...
    def flush(self) -> Position: ...
    def lane(self, table: str) -> Lane: ...


class Transactions:
    """The transactions of a producer, one at a time; their `Owner`."""

    def __init__(
        self,
        plain: PlainSide,
        catalog: Catalog,
        settings: Mapping[str, Any],
        options: ProducerOptions,
        id_: str | None,
    ) -> None:
        # Only a foresight: the broker, or the topic, may have a smaller limit.
        row_bytes = int(settings.get("message.max.bytes", 1_000_000))
        self.bounds = Bounds(options.transaction_rows, options.transaction_bytes, row_bytes)
        self.current: Transaction | None = None
        self.position = Position()  # past all that were committed
        self._plain = plain
        self._catalog = catalog
        self._thread = 0
        self._patience_s = options.delivery_timeout_s + 5
        self._turn = threading.Lock()
        self._client = TransactionalClient(
            settings,
            id_ or f"merganser-{uuid.uuid4().hex}",
            shared=id_ is not None,
            timeout_s=options.transaction_timeout_s,
            init_timeout_s=options.delivery_timeout_s,
        )
        if id_ is not None:
            self._client.open()

    @property
    def entered_here(self) -> bool:
        """True if this thread is inside of a transaction."""
        return self.current is not None and self._thread == threading.get_ident()

    def close(self) -> None:
        if self._turn.acquire(blocking=False):  # else it is being used, and goes with the producer
            try:
                self._client.close()
            finally:
                self._turn.release()

    # -- for Transaction ---------------------------------------------------------------------

    def enter(self, transaction: Transaction) -> None:
        self._plain.check_open()
        if self.entered_here:
            raise UsageError("transactions do not nest: end this one first")
        if not self._turn.acquire(timeout=self._patience_s):
            raise UsageError(f"another thread's transaction has been open for {self._patience_s:g} s")
        try:
            self._plain.flush()
        except BaseException:
            self._turn.release()
            raise
        self._thread, self.current = threading.get_ident(), transaction

    def leave(self) -> None:
        self.current = None
        self._turn.release()

    def resolve(self, table: str) -> tuple[Table, RowEncoder]:
        self._plain.check_open()
        lane = self._plain.lane(table)
        return lane.table, lane.encoder

    def commit(self, tx: str, records: Sequence[Record]) -> None:
        self._plain.check_open()
        self._client.commit(tx, records)

    def settle(self, records: Sequence[Record], *, committed: bool) -> Position | None:
        """The position past *records*; None if that cannot be known now. A committed one counts for `flush`."""
        position, lost = placed(records), unplaced(records)
        known: Position | None = position
        if lost:
            try:
                known = position | self._catalog.cluster.ends(lost)
            except LogUnavailable:
                known = None
        if committed:
            self.position |= known or position
            for topic, partition in lost if known is None else ():
                self._plain.lane(topic).unplaced.add(partition)  # flush asks again
        return known


# -- the client ------------------------------------------------------------------------------


class Step(Enum):
    """What to do after `commit_transaction` raised."""

    AGAIN = "call it again"
    ABORT = "abort: if Kafka confirms that, it is rolled back"
    DOUBT = "only a reader of the log can tell"


def after_commit_error(error: KafkaError, out_of_time: bool) -> Step:
    if error.fatal() or error.code() in _TIMEOUTS:
        return Step.DOUBT
    if error.txn_requires_abort():
        return Step.ABORT
    return Step.AGAIN if error.retriable() and not out_of_time else Step.DOUBT


def worth_aborting(error: KafkaError | None) -> bool:
    """True if a client that failed so can still tell Kafka. Otherwise the next one's start does it, or the
    coordinator, when the transaction's time is up."""
    return error is not None and not error.fatal() and error.code() not in _TIMEOUTS


def kafka_error(error: BaseException | None) -> KafkaError | None:
    """The KafkaError inside *error*. confluent-kafka raises a fatal one while it runs callbacks, which
    Python turns into a SystemError with the true one as its cause."""
    while error is not None:
        if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
            return error.args[0]
        error = error.__cause__
    return None


class SendFailed(Exception):
    """Why the records of a transaction are not all acknowledged, or must not be committed. *error* is None if time
    ran out, and if *ours*: then Kafka is well, and hears of the abort."""

    def __init__(self, why: str, error: KafkaError | None = None, *, ours: bool = False) -> None:
        super().__init__(why)
        self.why, self.error, self.ours = why, error, ours


class TransactionalClient:
    """Not safe across threads: its producer sees to that. *shared* says that others may have the same id."""

    def __init__(
        self, settings: Mapping[str, Any], id_: str, *, shared: bool, timeout_s: float, init_timeout_s: float
    ) -> None:
        self._settings = {
            **settings,
            "transactional.id": id_,
            "transaction.timeout.ms": int(timeout_s * 1000),
            # librdkafka allows neither to be longer than the transaction's.
            "message.timeout.ms": min(int(settings["message.timeout.ms"]), int(timeout_s * 1000)),
            "socket.timeout.ms": min(int(settings["socket.timeout.ms"]), int(timeout_s * 1000)),
        }
        self._id = id_
        self._shared = shared
        self._timeout_s = timeout_s
        self._init_timeout_s = init_timeout_s
        self._fenced = False
        self._client: KafkaProducer | None = None

    def open(self) -> KafkaProducer:
        """The client, made if there is none: that fences older producers of the id, and aborts what the
        last one left open. ProducerFenced for good once a newer one has fenced this."""
        if self._fenced:
            raise ProducerFenced(self._id)
        if self._client is None:
            client = KafkaProducer(self._settings)
            try:
                client.init_transactions(self._init_timeout_s)
            except (KafkaException, SystemError) as error:
                client.purge()
                raise self._refused(error) from error
            self._client = client
        return self._client

    def commit(self, tx: str, records: Sequence[Record]) -> None:
        """Send *records* and commit. RolledBack, CommitInDoubt or ProducerFenced."""
        self.run(tx, lambda client, deadline: _send(client, tx, records, deadline))

    def run(self, tx: str, send: Send) -> None:
        """One transaction of what *send* produces and has acknowledged. Its own errors roll back."""
        try:
            client = self._open_for(tx)
            deadline = Deadline(self._timeout_s)
            try:
                _begin(client, send, deadline)
            except SendFailed as failed:
                raise self._rolled_back(client, tx, failed) from failed
            self._end(client, tx)
        except MerganserError:
            raise
        except BaseException as error:  # Ctrl-C: nobody knows how far it came
            self.close()
            error.add_note(f"transaction {tx} may or may not be committed")
            raise

    def close(self) -> None:
        """Destroy the client, if there is one; what it has open is aborted by the coordinator in time."""
        client, self._client = self._client, None
        if client is not None:
            client.purge()  # not close(): that tries to abort, without a bound

    # -- inside ------------------------------------------------------------------------------

    def _open_for(self, tx: str) -> KafkaProducer:
        try:
            return self.open()
        except LogUnavailable as error:
            raise RolledBack(tx, f"nothing was sent: {error}") from error

    def _refused(self, error: BaseException) -> MerganserError:
        found = kafka_error(error)
        why = found.str() if found else str(error)
        if found is not None and found.code() in _REFUSED:
            return refused(f"Kafka refused the producer id {self._id!r}: {why}", found.code())
        return LogUnavailable(str(self._settings["bootstrap.servers"]), why)

    def _rolled_back(self, client: KafkaProducer, tx: str, failed: SendFailed) -> MerganserError:
        """The error to raise when sending failed. Whatever an abort comes to, nothing was committed."""
        error = failed.error
        if failed.ours or worth_aborting(error):
            error = self._abort(client)
        self.close()
        if failed.error is not None and failed.error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return RolledBack(tx, failed.why, _TOO_LARGE_HINT)
        if not _fenced(error):
            return RolledBack(tx, failed.why)
        if not self._shared:  # nobody else has the id, so the coordinator gave this transaction up
            return RolledBack(tx, f"it took longer than its {self._timeout_s:g} s")
        self._fenced = True
        return ProducerFenced(self._id)

    def _end(self, client: KafkaProducer, tx: str) -> None:
        deadline = Deadline(self._timeout_s)
        while True:
            try:
                return client.commit_transaction(max(1.0, deadline.left_s))
            except (KafkaException, SystemError) as raised:
                error = kafka_error(raised)
                if error is None:
                    raise
                step = after_commit_error(error, deadline.passed)
                if step is not Step.AGAIN:
                    raise self._not_committed(client, tx, error, step) from raised
            time.sleep(0.02)

    def _not_committed(self, client: KafkaProducer, tx: str, error: KafkaError, step: Step) -> MerganserError:
        aborted = step is Step.ABORT and self._abort(client) is None
        self.close()
        if aborted:
            return RolledBack(tx, error.str())
        self._fenced = self._shared and _fenced(error)
        return CommitInDoubt(tx, error.str())

    def _abort(self, client: KafkaProducer) -> KafkaError | None:
        """None once Kafka confirmed it; else why not."""
        try:
            client.abort_transaction(self._timeout_s)
        except (KafkaException, SystemError) as error:
            found = kafka_error(error)
            if found is None:
                raise
            return found
        return None


#: Produces the records of a transaction and has them acknowledged; SendFailed if that cannot be.
Send = Callable[[KafkaProducer, Deadline], None]


def _begin(client: KafkaProducer, send: Send, deadline: Deadline) -> None:
    try:
        client.begin_transaction()
        send(client, deadline)
    except (KafkaException, SystemError) as error:
        found = kafka_error(error)
        if found is None:
            raise
        raise SendFailed(found.str(), found) from error


def _send(client: KafkaProducer, tx: str, records: Sequence[Record], deadline: Deadline) -> None:
    """Have every record acknowledged."""
    for record, marks in zip(records, headers(tx, records), strict=True):
        _produce(client, record, marks, deadline)
    left = client.flush(deadline.left_s)
    failures = [(record.home, record.error) for record in records if record.error is not None]
    if failures:  # the first that is no consequence of another
        home, cause = next((f for f in failures if f[1].code() not in _PURGED), failures[0])
        raise SendFailed(f"{home}: {cause.str()}", cause)
    if left or not all(record.acknowledged for record in records):
        raise SendFailed(f"not acknowledged within {deadline.timeout_s:g} s")


def _produce(client: KafkaProducer, record: Record, marks: list[tuple[str, bytes]], deadline: Deadline) -> None:
    topic, partition = record.home
    while True:
        try:
            return client.produce(
                topic, record.value, record.key, partition, on_delivery=record.report, headers=list(marks)
            )
        except BufferError:
            if deadline.passed:
                raise SendFailed(f"the send buffer stayed full for {deadline.timeout_s:g} s") from None
            client.poll(0.02)


def _fenced(error: KafkaError | None) -> bool:
    return error is not None and error.code() in _FENCED


_TIMEOUTS = (KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE)

#: The coordinator answers alike to a producer with a newer one, and to one whose transaction it gave up.
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)

_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)

_TOO_LARGE_HINT = "as it is it fails again: make its largest row smaller, or raise max.message.bytes of the topic"

_REFUSED = (*NOT_PERMITTED, KafkaError.INVALID_TRANSACTION_TIMEOUT)
