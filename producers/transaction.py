"""Transaction: writes that become visible together, or not at all.

Invariants:
- Until the end of the ``with`` block nothing of it leaves this process: rows are checked, encoded and kept,
  within the producer's bounds. So an exception in the block, or a killed process, leaves nothing behind.
- The first record in each partition says how many records the transaction has in every partition. A
  reader knows by that when it has all of it, whatever it read first.
- Kafka's transaction begins when the block has ended, so it never waits for the caller's code; the
  ``transaction.timeout.ms`` of ten seconds has to last for sending only.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from confluent_kafka import KafkaError, Message

from ..schemas.encode import RowEncoder
from ..schemas.errors import CommitInDoubt, InvalidRow, TransactionTooLarge, UsageError
from ..schemas.headers import Condition, Marks, encode
from ..schemas.position import Position, TopicPartition, next_offset
from ..schemas.table import Table
from .terms import check_ops, home_of, marks_of, ops_of
from .write import Write


@dataclass(frozen=True)
class Bounds:
    """How large a transaction, and a row of it, may be."""

    rows: int
    bytes: int
    row_bytes: int


class TransactionWrite(Write):
    """A write of a transaction; acknowledged when that is committed."""

    __slots__ = ("ops", "tx")

    def __init__(self, table: str, tx: str, ops: tuple[str, ...]) -> None:
        super().__init__(table)
        self.tx = tx
        self.ops = ops


@dataclass(slots=True, eq=False)
class Record:
    """A row of a transaction, ready to be sent; then what became of it."""

    home: TopicPartition
    key: bytes | None
    value: bytes | None
    condition: Condition | None
    write: TransactionWrite
    acknowledged: bool = False
    offset: int = -1  # stays so for a retry that the broker knew already
    error: KafkaError | None = None

    def report(self, error: KafkaError | None, message: Message[bytes, bytes]) -> None:
        """librdkafka's delivery report."""
        if error is not None:
            self.error = error
            return
        self.acknowledged = True
        offset = message.offset()
        self.offset = -1 if offset is None else offset


class Owner(Protocol):
    """What a transaction needs of its producer."""

    def enter(self, transaction: Transaction) -> None: ...
    def leave(self) -> None: ...
    def resolve(self, table: str) -> tuple[Table, RowEncoder]: ...
    def commit(self, tx: str, records: Sequence[Record]) -> None: ...
    def settle(self, records: Sequence[Record], *, committed: bool) -> Position | None: ...


class Transaction:
    """Made by `Producer.transaction`, used in a ``with``: the end of the block commits, an exception rolls back.

    Belongs to the thread that entered it. `id` names it for good, also in the log: `Replica.outcome` knows it.
    `position` lies past its records, once it is committed (or in doubt: a replica that reached the
    position can tell); an empty transaction, which Kafka never hears of, has an empty one.

    Leaving the block raises RolledBack (nothing of it is in the log for any reader), CommitInDoubt (it is
    there whole or not at all) or ProducerFenced (rolled back, and a newer producer has this one's id).
    """

    def __init__(self, owner: Owner, bounds: Bounds, op: str | None) -> None:
        self.id = uuid.uuid4().hex
        self.position: Position | None = None
        self._owner = owner
        self._bounds = bounds
        self._ops = ops_of(op)
        self._records: list[Record] = []
        self._bytes = 0
        self._spread: dict[str, int] = {}
        self._narrow: str | None = None  # a table whose conditions are of one partition only
        self._state = "new"

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
        """Add one row: as `Producer.put`. InvalidRow and TransactionTooLarge add nothing."""
        found, encoder = self._resolve(table)
        value, key = encoder.value(row), encoder.key(row) if found.key else None
        return self._add(found, key, value, marks_of(found, op, if_version, if_absent, if_present))

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
        """Add the deletion of a row: as `Producer.delete`."""
        found, encoder = self._resolve(table)
        if not found.key:
            raise UsageError(f"table {table!r} has no key, so its rows cannot be deleted")
        marks = marks_of(found, op, if_version, if_absent, if_present)
        return self._add(found, encoder.key(key, exact=True), None, marks)

    def __enter__(self) -> Transaction:
        if self._state != "new":
            raise UsageError("a transaction is entered once: ask the producer for another")
        self._owner.enter(self)
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "ended"
        try:
            if error is None:
                self._commit()
        finally:
            self._records = []
            self._owner.leave()

    def __repr__(self) -> str:
        return f"<Transaction {self.id}: {self._state if self.position is None else self.position}>"

    # -- inside ------------------------------------------------------------------------------

    def _resolve(self, table: str) -> tuple[Table, RowEncoder]:
        if self._state != "open":
            raise UsageError("a transaction takes writes inside of its `with` block only")
        return self._owner.resolve(table)

    def _add(self, table: Table, key: bytes | None, value: bytes | None, marks: Marks) -> Write:
        self._check_size(table.name, len(key or b"") + len(value or b""))
        # The transaction's own id travels on its first record, after that record's own.
        ops = marks.ops if self._records else tuple(dict.fromkeys(marks.ops + self._ops))
        check_ops(table, ops)
        if marks.condition is not None and table.conditions == "partition":
            self._narrow = table.name
        home = home_of(table, key, ops)
        if home is None:
            home = self._spread.setdefault(table.name, random.randrange(table.partitions))
        write = TransactionWrite(table.name, self.id, ops)
        self._records.append(Record(TopicPartition(table.name, home), key, value, marks.condition, write))
        return write

    def _check_size(self, table: str, size: int) -> None:
        bounds = self._bounds
        if size > bounds.row_bytes:
            raise InvalidRow(table, "*", "...", "the row is larger than a Kafka message may be")
        if len(self._records) >= bounds.rows:
            raise TransactionTooLarge(f"more than {bounds.rows:,} rows")
        if self._bytes + size > bounds.bytes:
            raise TransactionTooLarge(f"more than {bounds.bytes:,} bytes")
        self._bytes += size

    def _commit(self) -> None:
        records = self._records
        if not records:
            self.position = Position()
            return
        homes = {record.home for record in records}
        if self._narrow is not None and len(homes) > 1:
            why = f"a transaction with a condition writes to one partition only, this one to {len(homes)}"
            raise UsageError(f"table {self._narrow!r} was created with conditions=partition: {why}")
        try:
            self._owner.commit(self.id, records)
        except CommitInDoubt:
            self.position = self._owner.settle(records, committed=False)
            raise
        self.position = self._owner.settle(records, committed=True)
        for record in records:
            if record.offset >= 0:
                record.write.partition, record.write.offset = record.home.partition, record.offset


# -- what is decided without I/O -------------------------------------------------------------


def headers(tx: str, records: Sequence[Record]) -> Iterator[list[tuple[str, bytes]]]:
    """The headers of each record of a transaction."""
    manifest = Counter(record.home for record in records)
    guarded = any(record.condition or record.write.ops for record in records)
    plain, met = encode(Marks(tx)), set[TopicPartition]()
    for record in records:
        first = record.home not in met
        met.add(record.home)
        if first or record.condition or record.write.ops:
            ops = record.write.ops
            yield encode(Marks(tx, manifest if first else None, record.condition, ops, guarded=guarded and first))
        else:
            yield plain


def placed(records: Sequence[Record]) -> Position:
    """The position just past the records whose offsets are known."""
    ends: dict[TopicPartition, int] = {}
    for record in records:
        if record.offset >= 0:
            ends[record.home] = max(ends.get(record.home, 0), next_offset(record.offset))
    return Position(ends)


def unplaced(records: Sequence[Record]) -> set[TopicPartition]:
    """Where a record was acknowledged without an offset."""
    return {record.home for record in records if record.offset < 0}
