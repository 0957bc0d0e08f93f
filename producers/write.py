"""A plain write on its way, and what a producer keeps to account for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message

from ..schemas.encode import RowEncoder
from ..schemas.errors import DeliveryFailed
from ..schemas.position import Position
from ..schemas.table import Table


class Write:
    """A row on its way. *partition* and *offset* are None until it is acknowledged and reported.

    Reports come in while the producer is used; after `flush` all of them are in. A write of a transaction
    has them once the transaction is committed.
    """

    __slots__ = ("offset", "partition", "table")

    #: The id of its transaction, for `Replica.outcome`. Class attributes: plain writes pay nothing for them.
    tx: str | None = None
    #: The operation ids that its record carries.
    ops: tuple[str, ...] = ()

    def __init__(self, table: str) -> None:
        self.table = table
        self.partition: int | None = None
        self.offset: int | None = None

    @property
    def position(self) -> Position | None:
        """The position just past this write, once it is acknowledged (in a transaction: committed)."""
        if self.partition is None or self.offset is None:
            return None
        return Position.past(self.table, self.partition, self.offset)

    def __repr__(self) -> str:
        where = self.position or "not acknowledged"
        return f"<Write to {self.table}: {where}>"


class PlainWrite(Write):
    """A write outside of transactions. librdkafka reports to it."""

    __slots__ = ("_lane", "round")

    def __init__(self, lane: Lane, round_: Round) -> None:
        self.table = lane.name
        self.partition = None
        self.offset = None
        self._lane = lane
        self.round = round_

    def _report(self, error: KafkaError | None, message: Message[bytes, bytes]) -> None:
        """librdkafka's delivery report. A bound method is the cheapest callback per write."""
        self.round.done += 1
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


class MarkedWrite(PlainWrite):
    """A plain write with operation ids."""

    __slots__ = ("ops",)

    def __init__(self, lane: Lane, round_: Round, ops: tuple[str, ...]) -> None:
        super().__init__(lane, round_)
        self.ops = ops


@dataclass(slots=True, eq=False)
class Round:
    """Writes between two flushes. *sent* changes under the counting lock, *done* under the serving one."""

    sent: int = 0
    done: int = 0

    @property
    def settled(self) -> bool:
        return self.done >= self.sent


@dataclass(slots=True)
class Failures:
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
            table, why = self.table, f"{self.fatal}: make a new producer" if self.fatal else self.why
        if count or self.fatal:
            raise DeliveryFailed(table, why, count)


@dataclass(slots=True)
class Lane:
    """What the producer keeps of one table."""

    name: str
    table: Table
    encoder: RowEncoder
    failures: Failures
    ends: dict[int, int] = field(default_factory=dict)
    unplaced: set[int] = field(default_factory=set)
    stale: bool = False
