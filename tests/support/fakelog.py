"""A log that follows a script: partitions in memory, read in an order and in portions that a seed decides.

For thousands of recovery stories; never instead of the real broker. It keeps the Reader contract of
``consumers/log.py``, which ``tests/stories/test_reader_contract.py`` checks on it and on Kafka alike.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from merganser.consumers.chunk import Chunk
from merganser.consumers.log import End, Ownership, Poll, Problem
from merganser.schemas.errors import LogUnavailable, RegistryUnavailable, UnknownTable
from merganser.schemas.hanging import OpenTransaction
from merganser.schemas.headers import Headers, Marks, encode
from merganser.schemas.kafka import TopicFacts, TopicId
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject


@dataclass(frozen=True)
class FakeRecord:
    """A record in the shape of ``confluent_kafka.Message``."""

    at: tuple[str, int, int]
    key_bytes: bytes | None
    value_bytes: bytes | None
    time_ms: int = 0
    marks: tuple[tuple[str, bytes], ...] = ()

    def topic(self) -> str:
        return self.at[0]

    def partition(self) -> int:
        return self.at[1]

    def offset(self) -> int:
        return self.at[2]

    def key(self) -> bytes | None:
        return self.key_bytes

    def value(self) -> bytes | None:
        return self.value_bytes

    def timestamp(self) -> tuple[int, int]:
        return (2, self.time_ms)

    def leader_epoch(self) -> int | None:
        return 0

    def headers(self) -> Headers | None:
        return self.marks or None


class FakeLog:
    """Tables, each partition a list of records with None for what is no record (a gap)."""

    cluster_id = "fake-cluster"
    bootstrap_servers = "fake"

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.partitions: dict[TopicPartition, list[FakeRecord | None]] = {}
        self.start: dict[TopicPartition, int] = {}
        self.tables: dict[str, Table] = {}
        self.registered: dict[str, list[SchemaVersion]] = {}
        self.stable: dict[TopicPartition, int] = {}
        """Where readers are held back by an open transaction."""
        self.leaderless: set[TopicPartition] = set()
        """Of these nobody can say where they end."""
        self.registry_fails = 0
        self.reported = Position()
        self.settings = {"cleanup.policy": "delete", "delete.retention.ms": "86400000"}

    # -- writing the script ------------------------------------------------------------------

    def add(self, table: Table) -> None:
        self.tables[table.name] = table
        self.registered[value_subject(table.name)] = list(table.values)
        if table.key_schema is not None:
            self.registered[key_subject(table.name)] = [table.key_schema]
        for p in range(table.partitions):
            self.partitions[TopicPartition(table.name, p)] = []
            self.start[TopicPartition(table.name, p)] = 0

    def register(self, version: SchemaVersion) -> None:
        self.registered[version.subject].append(version)

    def put(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, marks: Marks | None = None
    ) -> FakeRecord:
        records = self.partitions[TopicPartition(topic, partition)]
        place, headers = (topic, partition, len(records)), tuple(encode(marks)) if marks else ()
        record = FakeRecord(place, key, value, 1_700_000_000_000 + len(records), headers)
        records.append(record)
        return record

    def gap(self, topic: str, partition: int, offsets: int = 1) -> None:
        """Offsets without a record: control records, an aborted transaction, what compaction took."""
        self.partitions[TopicPartition(topic, partition)] += [None] * offsets

    def trim(self, topic: str, partition: int, start: int) -> None:
        self.start[TopicPartition(topic, partition)] = start

    def recreate(self, topic: str) -> None:
        """Another topic of the same name, empty."""
        self.add(replace(self.tables[topic], topic_id=self.tables[topic].topic_id + "-again"))

    # -- Log ---------------------------------------------------------------------------------

    def table(self, name: str) -> Table:
        if name not in self.tables:
            raise UnknownTable(name)
        return replace(self.tables[name], values=tuple(self.registered[value_subject(name)]))

    def versions(self, subject: str) -> list[SchemaVersion]:
        if self.registry_fails:
            self.registry_fails -= 1
            raise RegistryUnavailable("fake", "the script says so")
        return list(self.registered.get(subject, ()))

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        return Position({tp: self.start[tp] for tp in partitions})

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        if away := self.leaderless & set(partitions):
            raise LogUnavailable("fake", f"{min(away)} has no leader")
        return Position({tp: len(self.partitions[tp]) for tp in partitions})

    def stable_ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        return Position({tp: min(n, self.stable.get(tp, n)) for tp, n in self.ends(partitions).items()})

    def at_time(self, partitions: Collection[TopicPartition], time_ms: int) -> Position:
        found = {
            tp: [n for n, r in enumerate(self.partitions[tp]) if r is not None and r.time_ms >= time_ms]
            for tp in partitions
        }
        return Position({tp: late[0] if late else len(self.partitions[tp]) for tp, late in found.items()})

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        return []

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        found = {name: self.tables[name] for name in topics if name in self.tables}
        return {name: TopicId(t.topic_id, t.partitions) for name, t in found.items()}

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        found = {name: self.tables[name] for name in topics if name in self.tables}
        return {name: TopicFacts(name, t.topic_id, t.partitions, dict(self.settings)) for name, t in found.items()}

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        return self.ends(partitions)

    def reader(self, group: str, kind: type[Chunk] | None = None) -> FakeReader:
        return FakeReader(self, kind or Chunk)


class FakeReader:
    """Gives random runs of random partitions, each partition in order."""

    def __init__(self, log: FakeLog, kind: type[Chunk] = Chunk) -> None:
        self._log = log
        self._kind = kind
        self._next: dict[TopicPartition, int] = {}
        self._ended: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def assign(self, position: Position) -> None:
        self.paused = set()
        self._next = dict(position)
        self._ended = {}

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        raise NotImplementedError("rebalances are tested on the real broker")

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._next.pop(tp, None)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused = set(partitions)

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        poll, room = Poll.of(self._kind), max_records
        order = sorted(self._next.keys() - self.paused)
        self._log.random.shuffle(order)
        for tp in order:
            if self._next[tp] < self._log.start[tp]:
                poll.problems.append(Problem(tp, "offset out of range"))
                continue
            run = self._log.random.randint(0, room)
            if tp in self._log.leaderless:
                continue
            end = max(self._next[tp], self._log.stable_ends([tp])[tp])
            offsets = self._log.partitions[tp][self._next[tp] : min(self._next[tp] + run, end)]
            records = [record for record in offsets if record is not None]
            poll.add(records)
            room -= len(records)
            self._next[tp] += len(offsets)
            if self._next[tp] >= end and self._ended.get(tp) != end:
                self._ended[tp] = end
                poll.ends.append(End(tp, end))
        return poll

    def known_ends(self) -> Position:
        return Position({tp: len(self._log.partitions[tp]) for tp in self._next})

    def report(self, position: Position) -> None:
        self._log.reported = self._log.reported | position

    def close(self) -> None:
        self._next = {}
