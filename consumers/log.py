"""What a replica needs of a log: facts about topics, and records in order.

Kafka, the archive and the scripted fake of the tests implement these protocols, and one conformance
suite runs on all. The contract of a Reader:

- within a partition, records come in offset order, each once, committed ones only;
- offsets may have gaps (control records, aborted transactions, compaction);
- an :class:`End` says that everything below its offset was delivered or will never be;
- what cannot be delivered is a :class:`Problem`, never a jump;
- what a poll brings is of the assignment at its end: nothing of a partition given up meanwhile, even if
  it was gained again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

from ..schemas.errors import UsageError
from ..schemas.hanging import OpenTransaction
from ..schemas.kafka import TopicFacts, TopicId
from ..schemas.position import Position, TopicPartition
from ..schemas.table import SchemaVersion, Table
from .chunk import Chunk, Record


def check_group(group: object) -> None:
    """UsageError unless *group* can name a consumer group: confluent-kafka ends the process over an empty one."""
    if not isinstance(group, str) or not group.strip():
        raise UsageError(f"a group is a name, and not empty; got {group!r}")


class End(NamedTuple):
    """The reader stands at the stable end of *partition*; *offset* is the next one there."""

    partition: TopicPartition
    offset: int


class Problem(NamedTuple):
    """The log refuses to go on with *partition*; *why* is its own word for it. *truncated*: it knows that what was read
    is no longer there, whatever is in its place."""

    partition: TopicPartition
    why: str
    truncated: bool = False


@dataclass
class Poll:
    """What one poll brought, records by their topic. Ends and problems hold after the records."""

    chunks: defaultdict[str, Chunk] = field(default_factory=lambda: defaultdict(Chunk))
    ends: list[End] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, kind: type[Chunk]) -> Poll:
        """An empty poll whose chunks are of *kind*."""
        return cls(defaultdict(kind))

    def add(self, records: Sequence[Record], only: str | None = None) -> None:
        """Take *records* in. If they can only be of one topic, they are not asked."""
        if only is not None:
            self.chunks[only].extend(records)
            return
        for topic, run in groupby(records, lambda record: record.topic()):
            self.chunks[topic].extend(list(run))

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what it brought of *partitions*."""
        for topic in {tp.topic for tp in partitions} & self.chunks.keys():
            gone, chunk = {tp.partition for tp in partitions if tp.topic == topic}, self.chunks[topic]
            self.chunks[topic] = chunk.take([i for i, p in enumerate(chunk.partitions) if p not in gone])
        self.ends = [end for end in self.ends if end.partition not in partitions]
        self.problems = [problem for problem in self.problems if problem.partition not in partitions]


class Ownership(Protocol):
    """Who follows a split group's rebalances; called from within ``Reader.poll``."""

    def gained(self, partitions: Collection[TopicPartition]) -> Position:
        """Where to read each of *partitions* from."""
        ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Give *partitions* up; when this returns, another member reads them."""
        ...

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """*partitions* are another member's already: write nothing more of them."""
        ...


class Reader(Protocol):
    """A cursor over partitions. One thread owns it."""

    def assign(self, position: Position) -> None:
        """Read exactly the partitions of *position*, each from its offset."""
        ...

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        """Read the partitions that the group gives to this member."""
        ...

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading *partitions*, go on with the others."""
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Read on without *partitions*, and with all others, those paused before included."""
        ...

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        """At most *max_records*. Waits *timeout_s* for a first one, then *gather_s* for others."""
        ...

    def known_ends(self) -> Position:
        """The log's ends as the last fetches told them, without asking: what may be waiting."""
        ...

    def report(self, position: Position) -> None:
        """Tell the group how far the store is, for lag tools only. Never waits, never fails."""
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """The facts and the readers of one log. Safe to share between threads."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def bootstrap_servers(self) -> str: ...

    def table(self, name: str) -> Table:
        """The table as declared now; UnknownTable, UnsupportedFormat."""
        ...

    def versions(self, subject: str) -> list[SchemaVersion]:
        """As :meth:`Registry.versions`: read to an end sampled after the call began."""
        ...

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        """The first offset that the log still holds, of each partition."""
        ...

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        """High watermarks, sampled after the call began: every acknowledged write lies below.

        *timeout_s* bounds the call if it is shorter than the log's own bound.
        """
        ...

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        """Of each of *partitions* that cannot be read to its end, the transaction that it waits for."""
        ...

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        """Id and partition count of each topic, asked after the call began; an absent topic is absent."""
        ...

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        """What the cluster says of each topic; one that does not exist is absent."""
        ...

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        """Offsets that every record lies below which was in the log when the call began, also those that this
        log does not show (yet): what is not found below them will never come."""
        ...

    def reader(self, group: str, kind: type[Chunk] | None = None) -> Reader:
        """A new reader, which brings chunks of *kind* (None: plain ones)."""
        ...
