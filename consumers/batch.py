"""What one apply carries: the values that the collector hands to the store.

Invariants: a batch moves each of its partitions from exactly one stored next offset to a later one;
every offset in between is in ``puts``, ``deletes``, ``gaps`` or a quarantine row of that move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from ..schemas.layout import Step
from ..schemas.position import Position, TopicPartition
from .checks import Seen


@dataclass(frozen=True)
class SchemaChange:
    """From now on *table* has the columns of its value schema's *version*; *steps* lead there."""

    table: str
    version: int
    steps: Sequence[Step]


class Part(Protocol):
    """Decoded records of one table. The worker makes rows of them, so that the loop can poll on."""

    def rows(self) -> TableRows: ...


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


@dataclass
class Move:
    """How far one partition advances, and what its offsets were."""

    start: int
    next_offset: int
    puts: int = 0
    deletes: int = 0
    quarantined: int = 0
    last: Seen | None = None
    at_end: bool = False

    @property
    def gaps(self) -> int:
        """Offsets that carry no record for us: control records, aborted ones, compacted ones."""
        return self.next_offset - self.start - self.puts - self.deletes - self.quarantined


class Poison(NamedTuple):
    """A record that no row can be made of, kept whole with the reason."""

    partition: TopicPartition
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    reason: str


@dataclass
class Batch:
    """All that one apply changes, in one DuckDB transaction (schema changes each in one before it)."""

    changes: list[SchemaChange] = field(default_factory=list)
    tables: list[Part] = field(default_factory=list)
    moves: dict[TopicPartition, Move] = field(default_factory=dict)
    poison: list[Poison] = field(default_factory=list)
    nbytes: int = 0

    @property
    def position(self) -> Position:
        """Where its partitions stand once the batch is applied."""
        return Position({tp: move.next_offset for tp, move in self.moves.items()})
