"""What a client wants, from whichever door it came, and how much of it is given.

Pure: no I/O here. Every door turns a request into an :class:`Ask` and hands it to the guard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ....consumers.asked import Level, Params
from ....schemas.errors import UsageError
from ....schemas.position import Position

_A_DAY_S = 86_400.0


@dataclass(frozen=True)
class Ask:
    """One query. *level*, *after* and *max_staleness* as in ``Replica.query``; *timeout* bounds all of it, in
    seconds: the wait for a place, for freshness, and the query itself."""

    sql: str
    params: Params = None
    level: Level = "eventual"
    after: Position | str | None = None
    max_staleness: float | None = None
    timeout: float = 30.0


def seconds(name: str, value: object) -> float | None:
    """*value*, as a client said it in a header, a query string or JSON, as *name* of an Ask; None if it said nothing.
    UsageError."""
    if value is None:
        return None
    try:
        found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not 0 < found <= _A_DAY_S:
        raise UsageError(f"{name} is a number of seconds above 0, up to a day, not {str(value)[:40]!r}")
    return found


@dataclass(frozen=True)
class Parameter:
    """A parameter of a statement: ``1`` or a name, and DuckDB's type of it (empty where the SQL leaves it open)."""

    name: str
    type: str = ""


#: DuckDB checkpoints by itself once the WAL has 16 MiB; to wait for that below would be in vain.
_SMALLEST_WAL = 32 * 2**20


@dataclass(frozen=True)
class ServingLimits:
    """What clients may take, all together and each. Sizes in bytes, times in seconds."""

    running: int = 4
    """Queries that run at once."""
    queued: int = 64
    """Queries that may wait for a place; one more is refused at once."""
    queue_s: float = 10.0
    query_s: float = 60.0
    """How long one query may run, however long its client would wait."""
    answers: int = 64
    """Answers that exist at once, those that are still being read by a slow client included."""
    answer_s: float = 300.0
    """How long one answer may be read; then what is left of it is dropped."""
    answer_memory: int = 16 * 2**20
    """Of an answer this much stays in memory, the rest in a file beside the store."""
    answer_bytes: int = 2 * 2**30
    answer_rows: int = 50_000_000
    spool: int = 4 * 2**30
    """Of all answers together, in files."""
    growth: int = 1 * 2**30
    """What all queries together may add to the process, beyond DuckDB's own memory limit: DuckDB does not
    count long values."""
    sql_chars: int = 100_000
    wal: int = 64 * 2**20
    """When the store's WAL is larger, no query begins until those that run have ended and it was checkpointed."""
    value_bytes: int = 1 * 2**20
    """The length of one value that SQL makes up (``repeat``, ``lpad``, a list of a range), where that can be told."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
                kind = "a whole number" if whole else "a number"
                raise UsageError(f"ServingLimits.{field.name} is {kind} above 0, not {value!r}")
        if self.wal < _SMALLEST_WAL:
            raise UsageError(f"ServingLimits.wal is {_SMALLEST_WAL / 2**20:.0f} MiB at least, not {self.wal}")
