"""Writing records that are in quarantine again, through the log.

Invariants
- What a replica has in quarantine is a fact of the log, and stays there: a retry is another record, which names the
  first one as its origin. So every replica comes to the same.
- Each is written once, whoever runs this, however often, and whenever one is killed: a run fences the other ones of the
  table, then reads the log to its end, and writes what no record names as its origin yet.
- A write of the same key that comes between the look and the retry wins: the retry has a condition, where the table
  takes conditions, and replicas reject it then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from ...consumers.atomic import Place
from ...consumers.dbfile import stored_tables
from ...consumers.quarantined import how_many, quarantined, waiting
from ...consumers.rows import offsets_of
from ...producers.again import Again
from ...schemas.errors import TopicRecreated, UnknownTable
from ...schemas.headers import Marks, Origin, encode
from ...schemas.position import Position
from ...schemas.table import Table
from ..archive.bridged import Live
from ..backup.snapshot import Unwatched, Watch
from ..log import Log
from .candidates import Candidates
from .plan import Candidate, State, Verdict, judge, sums
from .scan import begin_of, look

#: Records that are written in one Kafka transaction.
CHUNK = 1_000

#: The steps of a retry; tests stop the process at each. ``begun``, ``sent`` and ``committed`` come with each chunk.
STEPS = ("fenced", "looked", "begun", "sent", "committed")


@dataclass(frozen=True)
class Tried:
    """What a retry came to, or would. *more* records are in quarantine that were not looked at."""

    verdicts: tuple[Verdict, ...]
    written: int
    token: Position
    more: int

    @property
    def sums(self) -> dict[State, int]:
        return sums(self.verdicts)


@dataclass
class Retry:
    """Of *table*, as the store that *cursor* reads has it. *log* is written; *read* is what is looked at, an archive
    below it perhaps."""

    cursor: duckdb.DuckDBPyConnection
    table: Table
    log: Log
    read: Live
    candidates: Candidates
    timeout_s: float = 30.0
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None

    def __post_init__(self) -> None:
        stored = stored_tables(self.cursor).get(self.table.name)
        if stored is None:
            raise UnknownTable(self.table.name, hint="the store does not follow it")
        if stored.topic_id != self.table.topic_id:
            raise TopicRecreated(self.table.name, f"the topic was created again (id {self.table.topic_id})")

    def preview(self, reason: str = "", limit: int = 10_000, only: Collection[Place] | None = None) -> Tried:
        """What would be done, as the log is now."""
        found, more = self._found(reason, limit, only)
        return Tried(tuple(self._judged(found)), 0, Position(), more)

    def execute(self, reason: str = "", limit: int = 10_000, only: Collection[Place] | None = None) -> Tried:
        """Do it. RolledBack, CommitInDoubt, ProducerFenced: the same again goes on from what the log says."""
        found, more = self._found(reason, limit, only)
        writer = self.log.again_writer(f"merganser-retry-{self.table.topic_id}")
        token, written = Position(), 0
        try:
            writer.open()
            self.step("fenced")
            verdicts = self._judged(found)
            self.step("looked")
            ready = [verdict for verdict in verdicts if verdict.state == "ready"]
            self.watch.begin("write", len(ready))
            for at in range(0, len(ready), CHUNK):
                part = ready[at : at + CHUNK]
                token = token | writer.write([self._again(v) for v in part], self._confirm, self.step)
                written += len(part)
                self.watch.advance(len(part))
        finally:
            writer.close()
        return Tried(tuple(verdicts), written, token, more)

    # -- inside ------------------------------------------------------------------------------

    def _found(self, reason: str, limit: int, only: Collection[Place] | None) -> tuple[list[Candidate], int]:
        """The candidates, each with the version of its row, and how many records there are beyond *limit*."""
        poison = list(quarantined(self.cursor, self.table.name, reason, limit))
        more = how_many(self.cursor, self.table.name, reason) - len(poison)
        if only is not None:
            wanted = set(only)
            poison = [each for each in poison if (each.partition, each.offset) in wanted]
        found, keys = self.candidates.of(poison)
        versions = offsets_of(self.cursor, self.table.name, keys) if keys is not None else {}
        return [replace(each, version=versions.get(i)) for i, each in enumerate(found)], more

    def _judged(self, found: Sequence[Candidate]) -> list[Verdict]:
        if not found:
            return []
        begin = begin_of(self.read, self.table, found)
        ends = self.read.ends(begin)
        self.watch.begin("look", sum(begin.behind(ends).values()))
        later = look(self.read, self.table, found, self.timeout_s, self.watch.advance, begin)
        held_back = waiting(self.cursor, self.table.name, self.table.key_encoding == "avro")
        return judge(found, later, held_back)

    def _again(self, verdict: Verdict) -> Again:
        mine = verdict.candidate
        origin = Origin(self.log.cluster_id, self.table.topic_id, *mine.place)
        condition = None if self.table.conditions == "none" else verdict.condition
        headers = [*encode(Marks(condition=condition)), origin.header]
        return Again(mine.partition, mine.key, mine.value, tuple(headers))

    def _confirm(self) -> str | None:
        """Why what was sent must not be committed: the producer goes by the topic's name."""
        found = self.log.identify([self.table.name]).get(self.table.name)
        if found is None or found.topic_id != self.table.topic_id:
            return f"table {self.table.name!r} was made anew meanwhile"
        return None
