"""BoundedLog: any log, cut at a position. What lies beyond is as if it had not been written yet.

A restore is the ordinary apply loop over this. Invariants: no record, end or known end lies beyond the cut; a
partition that the cut does not name ends at 0; a reader tells the end once it stands there, also where the
cut lies in a gap.
"""

from __future__ import annotations

from collections.abc import Collection

from ...consumers.chunk import Chunk
from ...consumers.log import End, Log, Ownership, Poll, Reader
from ...schemas.errors import UsageError
from ...schemas.hanging import OpenTransaction
from ...schemas.kafka import TopicFacts, TopicId
from ...schemas.position import Position, TopicPartition, next_offset
from ...schemas.table import SchemaVersion, Table


class BoundedLog:
    """*log*, as if it ended at *until*."""

    def __init__(self, log: Log, until: Position) -> None:
        self._log = log
        self.until = until

    @property
    def cluster_id(self) -> str:
        return self._log.cluster_id

    @property
    def bootstrap_servers(self) -> str:
        return self._log.bootstrap_servers

    def table(self, name: str) -> Table:
        return self._log.table(name)

    def versions(self, subject: str) -> list[SchemaVersion]:
        return self._log.versions(subject)

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        return self._log.starts(partitions)

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        return self.cut(self._log.ends(partitions, timeout_s))

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        return self._log.open_transactions(partitions, timeout_s)

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        return self._log.identify(topics)

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        return self._log.describe(topics)

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        """That of the log itself: what a transaction lacks here may lie beyond the cut, and is not lost."""
        return self._log.horizon(partitions)

    def reader(self, group: str, kind: type[Chunk] | None = None) -> BoundedReader:
        return BoundedReader(self._log.reader(group, kind), self)

    def cut(self, position: Position) -> Position:
        """*position*, no further than this log goes."""
        return Position({tp: min(offset, self.until.get(tp, 0)) for tp, offset in position.items()})


class BoundedReader:
    """A Reader that stops at the cut."""

    def __init__(self, reader: Reader, log: BoundedLog) -> None:
        self._reader, self._log = reader, log
        self._reading: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._ends: list[End] = []

    def assign(self, position: Position) -> None:
        until = self._log.until
        within = Position({tp: offset for tp, offset in position.items() if offset < until.get(tp, 0)})
        self._reading, self._paused = set(within), set()
        self._ends = [End(tp, offset) for tp, offset in position.items() if tp not in within]
        self._reader.assign(within)

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        raise UsageError("a log that is cut at a position has no group to share its partitions")

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        self._ends = [end for end in self._ends if end.partition not in partitions]
        self._reader.drop(list(self._reading & set(partitions)))
        self._reading -= set(partitions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused = set(partitions)
        self._pause()

    def _pause(self) -> None:
        """Nothing is paused if all the rest has reached the cut: what it is waited for there lies beyond."""
        paused = self._reading & self._paused
        self._reader.pause(list(paused if paused < self._reading else ()))

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        waiting, self._ends = self._ends, []
        poll = self._reader.poll(max_records, 0.0 if waiting else timeout_s, gather_s)
        reached = self._cut(poll)
        if reached:
            self._reader.drop(sorted(reached))
            self._reading -= reached
            if self._paused:
                self._pause()
        poll.ends += waiting
        return poll

    def _cut(self, poll: Poll) -> set[TopicPartition]:
        """Take out of *poll* what lies beyond; the partitions that have reached the cut, with their ends told."""
        until = self._log.until
        reached: set[TopicPartition] = set()
        for topic, chunk in poll.chunks.items():
            limits = {partition: until.get(TopicPartition(topic, partition), 0) for partition in chunk.spans}
            at = {partition: next_offset(chunk.offsets[span.last]) for partition, span in chunk.spans.items()}
            reached |= {TopicPartition(topic, p) for p, limit in limits.items() if at[p] >= limit}
            if any(at[p] > limit for p, limit in limits.items()):
                places = zip(chunk.partitions, chunk.offsets, strict=True)
                poll.chunks[topic] = chunk.take([i for i, (p, offset) in enumerate(places) if offset < limits[p]])
        reached |= {end.partition for end in poll.ends if end.offset >= until.get(end.partition, 0)}
        poll.ends = [end for end in poll.ends if end.partition not in reached]
        poll.ends += [End(tp, until.get(tp, 0)) for tp in sorted(reached)]
        return reached

    def known_ends(self) -> Position:
        return self._log.cut(self._reader.known_ends())

    def report(self, position: Position) -> None:
        """Nobody else's business: the group that follows the whole log is further."""

    def close(self) -> None:
        self._reader.close()
