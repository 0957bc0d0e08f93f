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
from typing import NamedTuple

import duckdb

from ...consumers.atomic import Place
from ...consumers.batch import Poison
from ...consumers.dbfile import stored_tables
from ...consumers.quarantined import held_back, how_many, quarantined
from ...consumers.reads import positions
from ...consumers.rows import offsets_of
from ...producers.bulk import BulkOptions, WholeRecord, whole_chunks
from ...schemas.errors import TopicRecreated, UnknownTable
from ...schemas.headers import Marks, Origin, encode
from ...schemas.position import Position
from ...schemas.table import Table
from ..archive.bridged import Live
from ..backup.snapshot import Unwatched, Watch
from ..log import Log
from .candidates import Candidates
from .plan import Candidate, State, Verdict, judge, sums
from .scan import look

#: Records that are written in one Kafka transaction: whichever comes first.
CHUNK = 1_000
CHUNK_BYTES = 8 * 2**20

#: Keys and values of the records that one run looks at.
LOOKED_AT_BYTES = 64 * 2**20

#: The steps of a retry; tests stop the process at each. ``begun``, ``sent`` and ``committed`` come with each chunk.
STEPS = ("fenced", "looked", "begun", "sent", "committed")


@dataclass(frozen=True)
class Tried:
    """What a retry came to, or would. *more* records are in quarantine that were not looked at, from *rest* on."""

    verdicts: tuple[Verdict, ...]
    written: int
    token: Position
    more: int = 0
    rest: Place | None = None

    @property
    def sums(self) -> dict[State, int]:
        return sums(self.verdicts)


@dataclass(frozen=True)
class Choice:
    """Which records: those whose reason has *reason* in it, *limit* at most, from *since* on; of these *only* some."""

    reason: str = ""
    limit: int = 10_000
    since: Place | None = None
    only: Collection[Place] | None = None


class _Found(NamedTuple):
    candidates: list[Candidate]
    more: int
    rest: Place | None


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

    def preview(self, choice: Choice) -> Tried:
        """What would be done, as the log is now."""
        found = self._found(choice)
        return Tried(tuple(self._judged(found.candidates)), 0, Position(), found.more, found.rest)

    def execute(self, choice: Choice) -> Tried:
        """Do it. RolledBack, CommitInDoubt, ProducerFenced: the same again goes on from what the log says."""
        found = self._found(choice)
        writer = self.log.bulk_writer(f"merganser-retry-{self.table.topic_id}", BulkOptions(CHUNK, CHUNK_BYTES))
        token, written = Position(), 0
        try:
            writer.open()
            self.step("fenced")
            verdicts = self._judged(found.candidates)
            self.step("looked")
            ready = [self._again(verdict) for verdict in verdicts if verdict.state == "ready"]
            self.watch.begin("write", len(ready))
            for part in whole_chunks(ready, CHUNK, CHUNK_BYTES):
                token = token | writer.write_whole(part, confirm=self._confirm, on_step=self.step)
                written += len(part)
                self.watch.advance(len(part))
        finally:
            writer.close()
        return Tried(tuple(verdicts), written, token, found.more, found.rest)

    # -- inside ------------------------------------------------------------------------------

    def _found(self, choice: Choice) -> _Found:
        """The candidates, each with the version of its row."""
        poison: list[Poison] = []
        size, rest, name = 0, None, self.table.name
        for each in quarantined(self.cursor, name, choice.reason, choice.limit + 1, choice.since):
            size += len(each.key or b"") + len(each.value or b"")
            if poison and (len(poison) == choice.limit or size > LOOKED_AT_BYTES):
                rest = each.place
                break
            poison.append(each)
        more = how_many(self.cursor, name, choice.reason, choice.since) - len(poison)
        if choice.only is not None:
            wanted = set(choice.only)
            poison = [each for each in poison if each.place in wanted]
        found, keys = self.candidates.of(poison)
        versions = offsets_of(self.cursor, name, keys) if keys is not None else {}
        found = [replace(each, version=versions.get(i)) for i, each in enumerate(found)]
        return _Found(found, more, rest)

    def _judged(self, found: Sequence[Candidate]) -> list[Verdict]:
        if not found:
            return []
        read_keys = self.candidates.read_keys
        later = look(self.read, self.table, found, read_keys, self.timeout_s, self.watch)
        waiting = held_back(self.cursor, self.table.name, read_keys)
        read, _ = positions(self.cursor)
        # A repaired key may lie in a partition that the store is behind in: its version there is not known yet.
        unread = {key for key, (offset, _) in later.last.items() if offset >= read.get(key[0], 0)}
        return judge(found, later, waiting | unread)

    def _again(self, verdict: Verdict) -> WholeRecord:
        mine = verdict.candidate
        origin = Origin.of(self.log.cluster_id, self.table.topic_id, *mine.place)
        condition = None if self.table.conditions == "none" else verdict.condition
        headers = [*encode(Marks(condition=condition)), origin.header]
        return WholeRecord(*mine.partition, mine.key, mine.value, headers)

    def _confirm(self) -> str | None:
        """Why what was sent must not be committed: the producer goes by the topic's name."""
        found = self.log.identify([self.table.name]).get(self.table.name)
        if found is None or found.topic_id != self.table.topic_id:
            return f"table {self.table.name!r} was made anew meanwhile"
        return None
