"""Which topics an archiver copies, and from where: the log's facts and the archive's, brought together.

The decisions are those of a replica (``consumers/checks.py``): the chain takes the place of the store.

Beside the tables the ledger of imports is copied, whenever there is one: a new log that is made of an archive has to
know which files are in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from ...consumers.checks import Stored, next_start
from ...consumers.log import Log
from ...schemas.errors import PartitionsChanged, RetentionLost, TombstonesLost, UnknownTable
from ...schemas.kafka import TopicFacts
from ...schemas.position import Position
from ...schemas.table import Table
from ..loading.ledger import LEDGER
from .archive import Archive
from .chain import Chain
from .publisher import Course, Publisher, lost
from .rolling import OpenSegment

_log = logging.getLogger("merganser.archive")


class Source(Log, Protocol):
    """A log that can be archived."""

    def tables(self) -> list[Table]: ...


class Sources:
    """The topics of one archiver: *names*, or all that the log has, now and later."""

    def __init__(
        self, log: Source, archive: Archive, publisher: Publisher, names: Sequence[str] | None, accept_gap: bool
    ) -> None:
        self._log, self._archive, self._publisher = log, archive, publisher
        self._names = names
        self._accept_gap = accept_gap
        self.tables: dict[str, Table] = {}

    @property
    def follows_all(self) -> bool:
        return self._names is None

    def wanted(self) -> list[str]:
        """The topics to copy, those that are new since the last call included."""
        names = list(self._names) if self._names is not None else [table.name for table in self._log.tables()]
        return names + [LEDGER] * (LEDGER in self._log.identify([LEDGER]))

    def load(self, name: str) -> list[Course]:
        """Where to go on in each partition of *name*; its facts and schemas are in the archive then.

        UnknownTable, UnsupportedFormat; a TableStopped if the archive cannot go on with it.
        """
        facts = self._log.describe([name]).get(name)
        table = self._log.table(name) if facts is None or name != LEDGER else ledger_table(facts)
        if facts is None or facts.topic_id != table.topic_id:
            raise UnknownTable(name)
        self._publisher.describe(name)
        declared = self._archive.declare(facts)
        if declared.facts.partitions != facts.partitions:
            now, then = facts.partitions, declared.facts.partitions
            raise PartitionsChanged(name, f"it has {now} partitions, it was archived with {then}")
        chains = [self._archive.chain(place, mend=True) for place in declared.places]
        partitions = [chain.place.tp for chain in chains]
        starts, ends = self._log.starts(partitions), self._log.ends(partitions)
        courses = [self._course(table, chain, starts, ends) for chain in chains]
        self.tables[name] = table
        return courses

    def _course(self, table: Table, chain: Chain, starts: Position, ends: Position) -> Course:
        tp, now_ms = chain.place.tp, time.time_ns() // 1_000_000
        known_ms = self._archive.caught_up_ms(chain.place)
        framed = table.keyed and table.key_encoding == "avro"
        course = Course(table, chain, known_ms if known_ms >= 0 else now_ms, OpenSegment(chain.end, framed))
        if chain.tip is None:
            course.start = starts.get(tp, 0)
            if course.start > 0:
                why = "older rows are no longer in the log to be archived"
                _log.warning("%s begins at offset %d: %s", tp, course.start, why)
            course.restart()
            return course
        try:
            self._continued(course, starts, ends, now_ms)
        except (RetentionLost, TombstonesLost) as why:
            if not self._accept_gap:
                why.hint = _GAP_HINT
                raise
            _log.warning("%s; going on, since --accept-gap says so", why)
            self._archive.publish(chain, lost(course, max(chain.end, starts.get(tp, 0))))
            course.restart()
            course.caught_up_ms = now_ms
        return course

    def _continued(self, course: Course, starts: Position, ends: Position, now_ms: int) -> None:
        table, end = course.table, course.chain.end
        stored = Stored(
            course.chain.place.topic_id, table.partitions, end, course.caught_up_ms, range(0), end, course.chain.last
        )
        read_from = next_start(table, course.tp, stored, starts, ends, now_ms)
        course.unproven = read_from < end

    def changed(self, tables: Collection[str]) -> list[str]:
        """Which of *tables* are no longer the topics that they were. LogUnavailable."""
        found = self._log.identify(tables)
        return [
            name
            for name in tables
            if (now := found.get(name)) is None
            or (now.topic_id, now.partitions) != (self.tables[name].topic_id, self.tables[name].partitions)
        ]


def ledger_table(facts: TopicFacts) -> Table:
    """The ledger as a table, as far as copying goes. Nothing is ever deleted in it, so no delete can be missed."""
    return Table(facts.name, facts.topic_id, facts.partitions, (), compacted=True, delete_retention_ms=2**62)


_GAP_HINT = (
    "--accept-gap writes down which part is missing and goes on; restores across it are refused. "
    "Raise retention.ms of the topic, or run the archive without long pauses"
)
