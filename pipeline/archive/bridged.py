"""BridgedLog: the archive below, Kafka above. What Kafka no longer has comes from the archive.

Invariants
- It is one log: the archive is asked only for the very topic (by its id) that Kafka has, and only where it goes
  on, without a gap, to what Kafka still holds.
- A partition is read from one of both at a time, and changes at the offset that it stands at: no record comes
  twice, none is left out. It goes up once Kafka has the next record, and down again if retention was faster.
- What neither of both has is a Problem, once an archiver has had the time to publish what it may still hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Protocol

from ...consumers.chunk import Chunk
from ...consumers.log import Log, Ownership, Poll, Problem
from ...schemas.errors import UsageError, WrongArchive
from ...schemas.hanging import OpenTransaction
from ...schemas.kafka import TopicFacts, TopicId
from ...schemas.position import Position, TopicPartition, next_offset
from ...schemas.table import SchemaVersion, Table
from .log import ArchiveLog

_log = logging.getLogger("merganser.apply")

#: How long the archive may end below Kafka's beginning. An archiver closes a segment after one minute.
STRANDED_S = 300.0


class Live(Log, Protocol):
    """What lies above: a log that knows its records by time too."""

    def at_time(self, partitions: Collection[TopicPartition], time_ms: int) -> Position: ...


class BridgedLog:
    """*live*, with *below* for what it has lost. WrongArchive if they are of two clusters. Safe across threads."""

    def __init__(self, below: ArchiveLog, live: Live) -> None:
        if below.cluster_id != live.cluster_id:
            why = f"it is the archive of cluster {below.cluster_id}, this is cluster {live.cluster_id}"
            raise WrongArchive(below.bootstrap_servers, why)
        self.below, self.live = below, live

    @property
    def cluster_id(self) -> str:
        return self.live.cluster_id

    @property
    def bootstrap_servers(self) -> str:
        return self.live.bootstrap_servers

    def table(self, name: str) -> Table:
        return self.live.table(name)

    def versions(self, subject: str) -> list[SchemaVersion]:
        return self.live.versions(subject)

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        """From where on each of *partitions* can be read; the archive is asked only if Kafka has lost some."""
        starts = dict(self.live.starts(partitions))
        lost = [tp for tp, start in starts.items() if start > 0]
        if lost:
            ids = self.live.identify({tp.topic for tp in lost})
            self.below.choose({topic: found.topic_id for topic, found in ids.items()})
        for tp in lost:
            chain = self.below.chain(tp, refreshed=True)
            if chain is not None and chain.tip is not None and chain.whole_from <= starts[tp] <= chain.end:
                starts[tp] = chain.whole_from
        return Position(starts)

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        return self.live.ends(partitions, timeout_s)

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        return self.live.open_transactions(partitions, timeout_s)

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        return self.live.identify(topics)

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        return self.live.describe(topics)

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        return self.live.horizon(partitions)

    def at_time(self, partitions: Collection[TopicPartition], time_ms: int) -> Position:
        """As the archive's: by what is archived, so far as that is; beyond it, by Kafka's own answer."""
        ids = self.live.identify({tp.topic for tp in partitions})
        self.below.choose({topic: found.topic_id for topic, found in ids.items()})
        archived, ends = self.below.at_time(partitions, time_ms), self.below.ends(partitions)
        beyond = [tp for tp in partitions if archived.get(tp, 0) >= ends.get(tp, 0)]
        return archived | self.live.at_time(beyond, time_ms) if beyond else archived

    def reader(self, group: str, kind: type[Chunk] | None = None) -> BridgedReader:
        return BridgedReader(self, group, kind)


class BridgedReader:
    """A Reader with one foot in the archive and one in Kafka."""

    def __init__(self, log: BridgedLog, group: str, kind: type[Chunk] | None) -> None:
        self._log, self._kind = log, kind or Chunk
        self._lower = log.below.reader(group, kind)
        self._upper = log.live.reader(group, kind)
        self._next: dict[TopicPartition, int] = {}  # of those that are read from Kafka
        self._starts: dict[TopicPartition, int] = {}  # Kafka's, as last seen, of those that are read below
        self._paused: set[TopicPartition] = set()
        self._refused: list[Problem] = []  # of Kafka's, and not looked at yet
        self._stranded: dict[TopicPartition, float] = {}  # what neither of both has more of, and since when

    def assign(self, position: Position) -> None:
        self._paused, self._refused, self._stranded = set(), [], {}
        first, starts = self._log.starts(position), self._log.live.starts(position)
        below = {tp: n for tp, n in position.items() if first.get(tp, 0) <= n < starts.get(tp, 0)}
        self._starts = {tp: starts[tp] for tp in below}
        self._next = {tp: n for tp, n in position.items() if tp not in below}
        self._lower.assign(Position(below))
        self._upper.assign(Position(self._next))

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        raise UsageError("a split group is not filled from an archive: leave --archive or --split out")

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        self._lower.drop(partitions)
        self._upper.drop([tp for tp in partitions if tp in self._next])
        self._paused -= set(partitions)
        for tp in partitions:
            self._next.pop(tp, None)
            self._starts.pop(tp, None)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused = set(partitions)
        self._lower.pause(self._paused & self._starts.keys())
        self._upper.pause(self._paused & self._next.keys())

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        """A poll that raises has delivered nothing: it can be made again."""
        self._go_up()
        gone = self._go_down()
        if not self._starts:
            poll = self._upper.poll(max_records, timeout_s, gather_s)
        elif not self._next:
            poll = self._below(max_records, timeout_s)
        else:
            poll = self._below(max_records // 2 + 1, 0.0)
            waits_s = 0.0 if poll.chunks else timeout_s
            above = self._upper.poll(max(1, max_records // 2), waits_s, gather_s)
            for topic, chunk in above.chunks.items():
                poll.chunks[topic].append(chunk)
            poll.ends, poll.problems = above.ends, poll.problems + above.problems
        self._advance(poll)
        self._refused = [problem for problem in poll.problems if problem.partition in self._next]
        poll.problems = gone + [problem for problem in poll.problems if problem.partition not in self._next]
        poll.problems += self._given_up()
        return poll

    def known_ends(self) -> Position:
        return self._lower.known_ends() | self._upper.known_ends()

    def report(self, position: Position) -> None:
        self._upper.report(position)

    def close(self) -> None:
        self._lower.close()
        self._upper.close()

    # -- inside ------------------------------------------------------------------------------

    def _below(self, max_records: int, timeout_s: float) -> Poll:
        """What the archive brings. Its ends are none of this log's."""
        poll = self._lower.poll(max_records, timeout_s)
        poll.ends = []
        return poll

    def _advance(self, poll: Poll) -> None:
        for topic, chunk in poll.chunks.items():
            for partition, span in chunk.spans.items():
                if (tp := TopicPartition(topic, partition)) in self._next:
                    self._next[tp] = next_offset(chunk.offsets[span.last])
        for end in poll.ends:
            self._next[end.partition] = end.offset

    def _go_up(self) -> None:
        """Read those from Kafka that stand where it begins. LogUnavailable, and then nothing has changed."""
        stand = self._lower.position
        ready = [tp for tp, start in self._starts.items() if stand[tp] >= start]
        if not ready:
            return
        starts = self._log.live.starts(ready)  # retention goes on meanwhile
        self._starts |= {tp: starts.get(tp, 0) for tp in ready}
        ready = [tp for tp in ready if stand[tp] >= self._starts[tp]]
        if ready:
            self._lower.drop(ready)
            for tp in ready:
                del self._starts[tp]
                self._next[tp] = stand[tp]
            self._assign_upper()
            _log.info("the archive is read up to %s; Kafka has the rest", Position({tp: stand[tp] for tp in ready}))

    def _go_down(self) -> list[Problem]:
        """Read on below what Kafka will not give and the archive has. The others are returned."""
        if not self._refused:
            return []
        asked = {problem.partition: problem for problem in self._refused if problem.partition in self._next}
        first, starts = self._log.starts(asked), self._log.live.starts(asked)
        below = {tp: self._next[tp] for tp in asked if first.get(tp, 0) <= self._next[tp] < starts.get(tp, 0)}
        self._refused = []
        if below:
            for tp, offset in below.items():
                _log.warning("%s is no longer in Kafka at offset %d: read from the archive", tp, offset)
                self._starts[tp] = starts[tp]
                del self._next[tp]
            self._lower.assign(self._lower.position | below)
            self._lower.pause(self._paused & self._starts.keys())
            self._assign_upper()
        return [problem for tp, problem in asked.items() if tp not in below]

    def _given_up(self) -> list[Problem]:
        """The partitions whose next record neither of both has had for long. Each is told once."""
        stand, ends, now_s = self._lower.position, self._lower.known_ends(), time.monotonic()
        nowhere = {tp for tp, start in self._starts.items() if ends.get(tp, 0) <= stand[tp] < start}
        self._stranded = {tp: self._stranded.get(tp, now_s) for tp in nowhere}
        lost = [tp for tp, since_s in self._stranded.items() if now_s - since_s >= STRANDED_S]
        self._stranded |= dict.fromkeys(lost, float("inf"))
        why = "the archive ends at {}, Kafka begins at {}: nobody has what lies between, or it is not published yet"
        return [Problem(tp, why.format(ends[tp], self._starts[tp])) for tp in lost]

    def _assign_upper(self) -> None:
        self._upper.assign(Position(self._next))
        self._upper.pause(self._paused & self._next.keys())
