"""What the store says of each table in numbers: rows, and what became of the records of the log.

Invariant: however many ask, the store is read at most once a second, and never more than a twentieth of the time:
counting the rows of a large table is not free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....consumers.dbfile import stored_tables
from ....consumers.statements import run
from ....schemas.errors import MerganserError
from ....schemas.types import quote

if TYPE_CHECKING:
    from ....consumers.replica import Replica

OUTCOMES = ("puts", "deletes", "gaps", "rejected", "repeated")

#: A row a table: its name, the outcomes of its records, and how many are in quarantine and held back.
ACCOUNTS_SQL = f"""
SELECT p.topic, {", ".join(f"sum({name})::BIGINT" for name in OUTCOMES)},
       (SELECT count(*) FROM _merganser.quarantine AS q WHERE q.topic = p.topic),
       (SELECT count(*) FROM _merganser.pending AS w WHERE w.topic = p.topic)
FROM _merganser.positions AS p GROUP BY p.topic ORDER BY p.topic
"""

_NAMES = ("table", *OUTCOMES, "quarantined", "pending")

_EVERY_S = 1.0
_SHARE = 20
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Figures:
    """By table, as they were *at_s*."""

    at_s: float = 0.0
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Counting:
    """Reads the figures of *replica* when somebody asks. Safe across threads."""

    def __init__(self, replica: Replica, now: Callable[[], float] = time.monotonic) -> None:
        self._replica, self._now = replica, now
        self._lock = threading.Lock()
        self._figures = Figures()
        self._not_before_s = 0.0

    def figures(self) -> Figures:
        """The newest; those before while the store cannot be read, or is being read for somebody else."""
        if self._now() >= self._not_before_s and self._lock.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._lock.release()
        return self._figures

    def _count(self) -> None:
        began_s = self._now()
        try:
            with self._replica.reading(_PATIENCE_S) as cursor:
                tables = {row[0]: dict(zip(_NAMES[1:], row[1:], strict=True)) for row in run(cursor, ACCOUNTS_SQL)}
                for name, table in stored_tables(cursor).items():
                    [(rows,)] = run(cursor, f"SELECT count(*) FROM main.{quote(name)}")
                    tables.setdefault(name, {}).update(rows=rows, key=list(table.key))
            self._figures = Figures(self._now(), tables)
        except MerganserError:
            pass  # a schema changes, or the store failed: the state of the node tells of that
        took_s = self._now() - began_s
        self._not_before_s = began_s + max(_EVERY_S, took_s * _SHARE)
