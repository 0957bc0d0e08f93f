"""The log, and what it comes to at any position: a plain consumer, fastavro, dicts. No code of ``consumers/``.

At a position, a record counts if it lies below; a transaction whose manifest is not complete there is held
back, and with it what follows it on a key or an operation id, to a fixpoint. A fold only goes forward: what
is not held back at a position is not held back at a later one, since whatever it waits for lies below it.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

from history.journal import ENTRIES, EVENTS, PARTITIONS, ROW, Plan
from support.waiting import wait_for

Place = tuple[int, int]


@dataclass(slots=True, eq=False)
class Record:
    """One committed record. *part* is the partition's number in the plan; *key* None in an append table."""

    part: int
    offset: int
    key: Hashable
    value: Any
    tx: str | None = None
    counts: dict[int, int] | None = None
    condition: str | None = None
    ops: tuple[str, ...] = ()
    w: int = -1
    spoiled: bool = False

    @property
    def place(self) -> Place:
        return (self.part, self.offset)

    @property
    def names(self) -> list[Hashable]:
        found: list[Hashable] = [(self.part, "op", op) for op in self.ops]
        return found if self.key is None else [*found, (self.part, "key", self.key)]


@dataclass(slots=True, eq=False)
class Unit:
    """A transaction, or a record by itself."""

    tx: str | None
    records: list[Record]
    counts: dict[int, int] | None = None

    @property
    def first(self) -> Place:
        return self.records[0].place

    @property
    def whole(self) -> bool:
        here = Counter(record.part for record in self.records)
        return self.tx is None or (self.counts is not None and all(here[p] >= n for p, n in self.counts.items()))


@dataclass
class Fold:
    """The state at :attr:`at`, which :meth:`advance` moves on."""

    log: Sequence[Sequence[Record]]
    at: list[int] = field(default_factory=list)
    rows: dict[tuple[int, Hashable], Record] = field(default_factory=dict)
    held: list[Unit] = field(default_factory=list)
    #: What became of each transaction, and of each place that is in none.
    outcomes: dict[str | Place, str] = field(default_factory=dict)
    operations: dict[tuple[int, str], str] = field(default_factory=dict)
    #: How often the rows of one intent, ``w``, were applied.
    applied: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.at = [0] * len(self.log)
        self._next = [0] * len(self.log)
        self._open: dict[str, Unit] = {}

    def advance(self, position: Sequence[int]) -> None:
        """Go on to *position*, which must lie ahead."""
        if any(new < old for new, old in zip(position, self.at, strict=True)):
            raise ValueError(f"{position} does not lie after {self.at}")
        fresh = [record for part, end in enumerate(position) for record in self._take(part, end)]
        self.at = list(position)
        if not self.held and all(record.tx is None for record in fresh):
            for record in fresh:
                self._apply(Unit(None, [record]))
        elif fresh:
            self._release(fresh)

    def append(self, record: Record) -> None:
        """A row of an append table."""

    @property
    def applied_position(self) -> list[int]:
        """It stops before the first record that is held back, in each partition."""
        applied = list(self.at)
        for record in (record for unit in self.held for record in unit.records):
            applied[record.part] = min(applied[record.part], record.offset)
        return applied

    def _take(self, part: int, end: int) -> Sequence[Record]:
        records, begin = self.log[part], self._next[part]
        stop = begin
        while stop < len(records) and records[stop].offset < end:
            stop += 1
        self._next[part] = stop
        return records[begin:stop]

    def _release(self, fresh: Iterable[Record]) -> None:
        for record in fresh:
            unit = self._open.get(record.tx) if record.tx is not None else None
            if unit is None:
                unit = Unit(record.tx, [])
                self.held.append(unit)
                if record.tx is not None:
                    self._open[record.tx] = unit
            unit.records.append(record)
            unit.counts = unit.counts or record.counts
        for unit in self.held:
            unit.records.sort(key=lambda record: record.place)
        after = _edges(self.held)
        waiting = _reached([unit for unit in self.held if not unit.whole], after)
        ready = [unit for unit in self.held if unit not in waiting]
        self.held = [unit for unit in self.held if unit in waiting]
        for unit in _serial(ready, after):
            if unit.tx is not None:
                del self._open[unit.tx]
            self._apply(unit)

    def _apply(self, unit: Unit) -> None:
        ops = [(record.part, op) for record in unit.records for op in record.ops]
        before = next((self.operations[op] for op in ops if op in self.operations), None)
        changed: dict[tuple[int, Hashable], Record | None] = {}
        state = before or ("rejected" if any(record.spoiled for record in unit.records) else "applied")
        if before is None and state == "applied":
            for record in unit.records:
                if record.key is None:
                    continue
                at = (record.part, record.key)
                there = changed[at] if at in changed else self.rows.get(at)
                if record.condition is not None and not _holds(record.condition, there):
                    state = "rejected"
                    break
                changed[at] = None if record.value is None else record
        if before is None:
            self.operations.update(dict.fromkeys(ops, state))
        if before is None and state == "applied":
            self._change(unit, changed)
        name: str | Place = unit.tx if unit.tx is not None else unit.first
        self.outcomes[name] = state if before is None else f"repeats {state}"

    def _change(self, unit: Unit, changed: dict[tuple[int, Hashable], Record | None]) -> None:
        for at, record in changed.items():
            if record is None:
                self.rows.pop(at, None)
            else:
                self.rows[at] = record
        for record in unit.records:
            if record.key is None:
                self.append(record)
        self.applied.update({record.w for record in unit.records})


def _holds(condition: str, there: Record | None) -> bool:
    kind, _, version = condition.partition(":")
    if kind == "absent":
        return there is None
    return there is not None and (kind == "present" or there.offset == int(version))


# -- order -------------------------------------------------------------------------------------

_Edges = dict[Unit, set[Unit]]


def _edges(units: Iterable[Unit]) -> _Edges:
    """Who comes next after whom, on one name."""
    chains: dict[Hashable, list[tuple[int, Unit]]] = defaultdict(list)
    for unit in units:
        for record in unit.records:
            for name in record.names:
                chains[name].append((record.offset, unit))
    after: _Edges = defaultdict(set)
    for chain in chains.values():
        chain.sort(key=lambda link: link[0])
        for (_, one), (_, two) in pairwise(chain):
            if one is not two:
                after[one].add(two)
    return after


def _reached(start: Iterable[Unit], edges: _Edges, within: set[Unit] | None = None) -> set[Unit]:
    found = set(start)
    front = list(found)
    while front:
        more = edges.get(front.pop(), set()) - found
        more = more if within is None else more & within
        found |= more
        front += more
    return found


def _serial(units: Sequence[Unit], after: _Edges) -> list[Unit]:
    """Each after those before it; where they go round in a circle, the circle by first records."""
    left = set(units)
    before: Counter[Unit] = Counter(two for one in units for two in after.get(one, ()) if two in left)
    backwards: _Edges = defaultdict(set)
    for one in units:
        for two in after.get(one, ()):
            backwards[two].add(one)
    ready: list[tuple[Place, int, Unit]] = []
    for unit in units:
        if not before[unit]:
            heappush(ready, (unit.first, id(unit), unit))
    ordered: list[Unit] = []
    while left:
        circle = [heappop(ready)[2]] if ready else _first_circle(left, after, backwards)
        ordered += circle
        left -= set(circle)
        for unit in circle:
            for two in after.get(unit, ()):
                before[two] -= 1
                if not before[two] and two in left:
                    heappush(ready, (two.first, id(two), two))
    return ordered


def _first_circle(left: set[Unit], after: _Edges, backwards: _Edges) -> list[Unit]:
    """Units that reach each other, and that nothing else in *left* comes before."""
    head = min(left, key=lambda unit: unit.first)
    while True:
        # All that come before the head; those of them that it comes before itself are its circle.
        earlier = _reached([head], backwards, left)
        circle = _reached([head], after, earlier)
        if circle >= earlier:
            return sorted(circle, key=lambda unit: unit.first)
        head = min(earlier - circle, key=lambda unit: unit.first)


# -- the tables of a run -----------------------------------------------------------------------


@dataclass
class Tables(Fold):
    """The fold of a run's log, and what a scan of it shows."""

    count: int = 0
    offsets: int = 0
    amounts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def append(self, record: Record) -> None:
        id_, n = record.value
        self.count += 1
        self.offsets += record.offset
        if id_ < EVENTS:
            self.amounts[id_][0] += n
            self.amounts[id_][1] += 1

    def get(self, table: int, id_: int, part: int) -> list[int] | None:
        record = self.rows.get((part, id_))
        return None if record is None else [record.value[1], record.offset]

    def scan(self) -> dict[tuple[int, int], list[int]]:
        """(table, id) → [n, offset]; of entries: (2, 0) → [count, sum of offsets], (3, account) → [sum, count]."""
        shown = {(TABLE[part], id_): [record.value[1], record.offset] for (part, id_), record in self.rows.items()}
        shown |= {(ENTRIES, 0): [self.count, self.offsets]}
        shown |= {(3, id_): list(amount) for id_, amount in self.amounts.items()}
        return shown  # type: ignore[return-value]


#: The table of each partition.
TABLE = [table for table, count in enumerate(PARTITIONS) for _ in range(count)]

_KEY = fastavro.parse_schema({"type": "record", "name": "key", "fields": [{"name": "id", "type": "long"}]})
_VALUE = fastavro.parse_schema(ROW)


def read_log(plan: Plan) -> tuple[list[list[Record]], list[int]]:
    """All committed records, by partition, and the log's ends, once no transaction is open any more.

    A commit returns before it is visible, so the first look may find less than what was acknowledged.
    """
    settings = {"bootstrap.servers": plan.servers, "group.id": f"fold-{plan.tag}", "auto.offset.reset": "error"}
    plain = Consumer({**settings, "isolation.level": "read_uncommitted"})
    consumer = Consumer({**settings, "isolation.level": "read_committed", "enable.partition.eof": True})
    numbers = {(tp.topic, tp.partition): number for number, tp in enumerate(plan.partitions)}
    try:
        ends = _ends(plain, numbers)
        wait_for("open transactions to end", lambda: _ends(consumer, numbers) == ends)
        return _read(consumer, numbers), ends
    finally:
        plain.close()
        consumer.close()


def _ends(consumer: Consumer, numbers: Iterable[tuple[str, int]]) -> list[int]:
    """Of a reader of committed records: the last stable offsets."""
    return [consumer.get_watermark_offsets(TopicPartition(*tp), timeout=30)[1] for tp in numbers]


def _read(consumer: Consumer, numbers: dict[tuple[str, int], int]) -> list[list[Record]]:
    log: list[list[Record]] = [[] for _ in numbers]
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in numbers])
    ended = set[int]()
    while len(ended) < len(numbers):
        for message in consumer.consume(10_000, 1.0):
            part = numbers[message.topic(), message.partition()]  # type: ignore[index]
            if message.error() is not None:
                assert message.error().name() == "_PARTITION_EOF", message.error()
                ended.add(part)
            else:
                log[part].append(_record(part, message, numbers))
    return log


def _record(part: int, message: Any, numbers: dict[tuple[str, int], int]) -> Record:
    row = _avro(message.value(), _VALUE)
    key = _avro(message.key(), _KEY)
    record = Record(part, message.offset(), key and key["id"], row and (row["id"], row["n"]))
    record.w = row["w"] if row else -1
    for name, value in message.headers() or ():
        text = value.decode()
        if name == "merganser-tx":
            record.tx, _, counts = text.partition(" ")
            if counts:
                record.counts = {}
                for item in counts.removesuffix(" guarded").split(","):
                    where, _, count = item.rpartition(":")
                    topic, _, partition = where.rpartition("/")
                    record.counts[numbers[topic, int(partition)]] = int(count)
        elif name == "merganser-if":
            record.condition = text
        elif name == "merganser-op":
            record.ops = (*record.ops, text)
    return record


def _avro(data: bytes | None, schema: Any) -> dict[str, Any] | None:
    return None if data is None else fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)  # type: ignore[return-value]
