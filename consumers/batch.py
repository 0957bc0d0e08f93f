"""What one apply carries: the values that the collector hands to the store.

Invariants: a batch moves each of its partitions from exactly one stored next offset to a later one, or
leaves it there; every offset in between is in ``read`` or ``gaps`` of that move. What was read is put,
deleted, quarantined or held back; what was held back before may be put, deleted or quarantined now; and
of these, what the worker finds to be rejected or repeated is taken off again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from ..schemas.layout import Step
from ..schemas.position import Position, TopicPartition
from .atomic import Entry, Place, Unit
from .checks import Seen
from .conditions import Operation


@dataclass(frozen=True)
class SchemaChange:
    """From now on *table* has the columns of its value schema's *version*; *steps* lead there."""

    table: str
    version: int
    steps: Sequence[Step]


class Part(Protocol):
    """Decoded records of one table. The worker makes rows of them, so that the loop can poll on.

    Records are named by their numbers, which count up in the order of application.
    """

    @property
    def table(self) -> str: ...

    @property
    def key(self) -> Sequence[str]:
        """The key columns; none for an append table."""
        ...

    def rows(self, without: Collection[int] = ()) -> TableRows:
        """The rows, as if the records *without* had never been."""
        ...

    def keys(self, records: Collection[int]) -> TableKeys:
        """The keys of *records*."""
        ...


@dataclass(frozen=True)
class TableRows:
    """The rows of one table: *rows*, if any, are to be inserted.

    Of a keyed table, *key* names the columns that tell rows apart; a row of the same key is replaced, the
    keys in *gone* are deleted, and no key is in both or twice. *superseded* counts the puts of this batch
    that a later record of it replaced.
    """

    table: str
    rows: pa.Table | None
    key: Sequence[str] = ()
    gone: pa.Table | None = None
    superseded: int = 0


class TableKeys(NamedTuple):
    """Keys, a row for each of some records: the columns *key*, and the record's number in *number*."""

    rows: pa.Table
    key: Sequence[str]
    number: str


@dataclass
class Stage:
    """A part of a batch that is written before the next is looked at.

    *units* are to be decided on by the rows that are there then; a plain stage has none. *numbers* says
    which record of its table each place is, *bad* of which no row could be made, and why.
    """

    tables: Sequence[Part] = ()
    units: Sequence[Unit] = ()
    numbers: Mapping[Place, int] = field(default_factory=dict)
    bad: Mapping[Place, str] = field(default_factory=dict)


@dataclass
class Move:
    """How far one partition advances, and what became of its records.

    *applied* is the offset that everything applied lies below: that of the first record held back, or
    *next_offset*.
    """

    start: int
    next_offset: int
    read: int = 0
    puts: int = 0
    deletes: int = 0
    last: Seen | None = None
    at_end: bool = False
    applied: int = 0
    rejected: int = 0
    repeated: int = 0

    def take_off(self, delete: bool, repeats: bool) -> None:
        """A record that counted as a put, or a *delete*, is rejected, or *repeats* an operation."""
        if delete:
            self.deletes -= 1
        else:
            self.puts -= 1
        if repeats:
            self.repeated += 1
        else:
            self.rejected += 1

    @property
    def gaps(self) -> int:
        """Offsets that carry no record for us: control records, aborted ones, compacted ones."""
        return self.next_offset - self.start - self.read


class Poison(NamedTuple):
    """A record that no row can be made of, kept whole with the reason."""

    partition: TopicPartition
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    reason: str

    @property
    def place(self) -> Place:
        return Place(self.partition, self.offset)


@dataclass
class Batch:
    """All that one apply changes, in one DuckDB transaction (schema changes each in one before it).

    *held* are records that are held back from now on, *released* those that no longer are; *operations*
    what is settled already.
    """

    changes: list[SchemaChange] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    moves: dict[TopicPartition, Move] = field(default_factory=dict)
    poison: list[Poison] = field(default_factory=list)
    held: list[Entry] = field(default_factory=list)
    released: list[Place] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    nbytes: int = 0

    @property
    def position(self) -> Position:
        """Where its partitions stand once the batch is applied."""
        return Position({tp: move.next_offset for tp, move in self.moves.items()})

    @property
    def applied(self) -> Position:
        """Up to where its partitions are applied then: before the first record that is held back."""
        return Position({tp: move.applied for tp, move in self.moves.items()})
