"""Which records may be applied now, and which are held back until their transactions are whole. Pure.

A replica reads partitions each at its own pace, and transactions of many producers interleave: a cut
through all partitions that splits none may never come. So positions advance, and what may not be seen
yet is held back.

Words: a *unit* is what is applied together or not at all, a transaction or one record by itself. Units
that write one key are ordered as the log has them in that key's partition; an operation id orders as a
key does. A unit *follows* those before it on any of its keys. A key is its columns' values, as the upsert
compares them: clients may spell one in several ways.

Invariants
- A transaction is released whole, once each partition that is held here has all records that its
  manifest names there. Until then it is held back, with every unit that follows it, and theirs.
- Per key, units are released in log order. Units that follow each other in a circle are released at
  once, as if one had run after the other, in the order of their first records.
- What is held back at a position is a function of the log up to it, whatever arrived first: being whole
  never ends, and what was not held back at a position is not held back at a later one. (The exception
  has a name: a transaction that can no longer become whole, see :meth:`Atomicity.close`. What becomes of
  such a one is decided in the log, by records that wait with it.)
- Without transactions, and nothing held back, none of this is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..schemas.headers import Manifest, Marks, Resolution
from ..schemas.position import Position, TopicPartition


class Place(NamedTuple):
    """Where a record is in the log; places order as (topic, partition, offset)."""

    partition: TopicPartition
    offset: int


#: What a key says: the values of its columns.
KeyValues = tuple[Any, ...]

#: A key, or an operation id.
Identity = tuple[TopicPartition, KeyValues | str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, whole, as it waits for its turn.

    *key_values* is what its key says; None if the table has no key, or this one cannot be read.
    """

    place: Place
    time_ms: int
    key: bytes | None
    value: bytes | None
    marks: Marks
    key_values: KeyValues | None = None

    @property
    def identities(self) -> list[Identity]:
        """What puts this record in order with others: its key, and its operation ids."""
        partition = self.place.partition
        keys: list[Identity] = [] if self.key_values is None else [(partition, self.key_values)]
        return [*keys, *((partition, op) for op in self.marks.ops)] if self.marks.ops else keys

    @property
    def nbytes(self) -> int:
        """About what it takes in memory, with its places in tables and queues."""
        return len(self.key or b"") + len(self.value or b"") + OVERHEAD


#: What a record that is held back takes beside its key and value.
OVERHEAD = 600


@dataclass(slots=True, eq=False)
class Unit:
    """What is applied together or not at all; once released, *entries* are by place.

    *resolution* is what was decided of one that lacks records.
    """

    tx: str | None
    entries: list[Entry] = field(default_factory=list)
    resolution: Resolution | None = None

    @property
    def rows(self) -> list[Entry]:
        """The records that are to become rows, or delete some."""
        return [entry for entry in self.entries if not entry.marks.no_row]

    @property
    def written(self) -> list[Entry]:
        """The records that its producer wrote: its rows, and what stands in for those that were erased."""
        return [entry for entry in self.entries if entry.marks.resolution is None]

    @property
    def first(self) -> Place:
        """Of what was written, if that is anything: decisions lie wherever they were taken."""
        return (self.written or self.entries)[0].place


@dataclass(slots=True)
class _Transaction:
    """What is known of a transaction that is not whole yet. *ends*: see :meth:`Atomicity.close`."""

    unit: Unit
    manifest: Manifest | None = None
    arrived: Counter[TopicPartition] = field(default_factory=Counter)
    ends: Position | None = None


class Torn(NamedTuple):
    """A committed transaction of which *missing* records will never come."""

    tx: str
    missing: dict[TopicPartition, int]
    tables: frozenset[str]


class Atomicity:
    """What is held back, and the decision what no longer has to be. Used by one thread; no I/O.

    *compacted* tells of a partition whether the cleaner may have taken records of it.
    """

    def __init__(self, compacted: Callable[[TopicPartition], bool] = lambda partition: False) -> None:
        self._compacted = compacted
        self.late: dict[TopicPartition, range] = {}
        """Of transactions with a record in these ranges, the rest may have been read before, or is lost
        below where the store began."""
        self.settled: set[str] = set()
        """Of these transactions other parts were applied, while what is held back here was not followed."""
        self._clear()

    def _clear(self) -> None:
        self._held: dict[Unit, None] = {}  # in the order of arrival
        self._open: dict[str, _Transaction] = {}
        self._lacking: dict[str, _Transaction] = {}  # those of them that are not whole
        self._grown: set[str] = set()
        self._order = Order()
        self._queues: dict[TopicPartition, deque[tuple[int, Unit]]] = defaultdict(deque)
        self._held_topics: Counter[str] = Counter()
        self.nbytes = 0

    # -- what is held back -------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """True if nothing is held back."""
        return not self._held

    def concerns(self, topic: str) -> bool:
        """True if records of *topic* may have to wait for what is held back."""
        return self._held_topics[topic] > 0

    @property
    def open(self) -> Collection[str]:
        """The transactions of which records are held back."""
        return self._open

    @property
    def keys(self) -> Collection[Identity]:
        """The keys, and operation ids, of the records that are held back."""
        return self._order.identities

    @property
    def topics(self) -> set[str]:
        """The topics of which records are held back."""
        return {topic for topic, count in self._held_topics.items() if count}

    @property
    def held(self) -> list[Entry]:
        """Every record that is held back."""
        return [entry for unit in self._held for entry in unit.entries]

    def oldest(self) -> dict[TopicPartition, int]:
        """The offset of the first record that is held back, in each partition that has one."""
        oldest: dict[TopicPartition, int] = {}
        for partition, queue in self._queues.items():
            while queue and queue[0][1] not in self._held:
                queue.popleft()
            if queue:
                oldest[partition] = queue[0][0]
        return oldest

    def hold(self, entries: Iterable[Entry]) -> None:
        """Hold *entries*, which are in the order of their places, back, as a store did."""
        for entry in entries:
            self._arrive(entry)

    def disown(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget what is held back of *partitions*: they are no longer held here."""
        gone = set(partitions)
        kept = [entry for entry in self.held if entry.place.partition not in gone]
        known = {tx: (open_.manifest, open_.ends) for tx, open_ in self._open.items()}
        self._clear()
        self.hold(sorted(kept, key=lambda entry: entry.place))
        for tx, open_ in self._open.items():
            open_.manifest, open_.ends = known[tx]

    # -- what is released --------------------------------------------------------------------

    def offer(self, entries: Iterable[Entry], position: Mapping[TopicPartition, int]) -> list[Unit]:
        """Take *entries* in; the units that are held back no longer, in the order to apply them.

        *position* is how far each held partition was read, *entries* included; within a partition,
        entries come in the order of their offsets, and later than any offered before.
        """
        self.hold(entries)
        for tx in self._grown | {tx for tx, open_ in self._lacking.items() if open_.ends is not None}:
            if self._whole(self._open[tx], position):
                self._lacking.pop(tx, None)
        self._grown = set()
        waiting = self._order.reach(open_.unit for open_ in self._lacking.values())
        released = [unit for unit in self._held if unit not in waiting]
        for unit in released:
            unit.entries.sort(key=lambda entry: entry.place)
        ordered = in_order(released, self._order.follows)
        for unit in released:
            self._let_go(unit)
        return ordered

    def _arrive(self, entry: Entry) -> None:
        tx = entry.marks.tx
        if tx is None:
            unit = Unit(None)
        else:
            open_ = self._open.get(tx)
            if open_ is None:
                open_ = self._open[tx] = self._lacking[tx] = _Transaction(Unit(tx))
            open_.manifest = open_.manifest or entry.marks.manifest
            open_.arrived[entry.place.partition] += entry.marks.resolution is None
            self._grown.add(tx)
            unit = open_.unit
        unit.entries.append(entry)
        self._held[unit] = None
        self._order.add(unit, entry)
        self._queues[entry.place.partition].append((entry.place.offset, unit))
        self._held_topics[entry.place.partition.topic] += 1
        self.nbytes += entry.nbytes

    def _let_go(self, unit: Unit) -> None:
        del self._held[unit]
        if unit.tx is not None:
            del self._open[unit.tx]
        self._order.remove(unit)
        for entry in unit.entries:
            self._held_topics[entry.place.partition.topic] -= 1
            self.nbytes -= entry.nbytes

    def _whole(self, open_: _Transaction, position: Mapping[TopicPartition, int]) -> bool:
        """True if no record is missing that could still come. A torn one is whole once that is decided."""
        missing = self._missing(open_, position)
        if not missing:
            return True
        if open_.ends is None or not all(_passed(tp, position, open_.ends) for tp in missing):
            return False
        lost = self._lost(open_, missing)
        open_.unit.resolution = _decision(open_.unit, min(lost)) if lost else None
        return not lost or open_.unit.resolution is not None

    def _lost(self, open_: _Transaction, missing: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Those of *missing* that nothing excuses."""
        if open_.manifest is None or open_.unit.tx in self.settled:
            return []
        if any(e.place.offset in self.late.get(e.place.partition, ()) for e in open_.unit.written):
            return []
        return [tp for tp in missing if not self._compacted(tp)]

    def _missing(self, open_: _Transaction, position: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """How many records each partition that is held here still lacks."""
        if open_.manifest is None:
            # Its first records are gone, and with them the manifest: any partition may have some.
            return {tp: 1 for tp in position if open_.ends is None or not _passed(tp, position, open_.ends)}
        held = {tp: count for tp, count in open_.manifest.items() if tp in position}
        return {tp: count - open_.arrived[tp] for tp, count in held.items() if open_.arrived[tp] < count}

    def lacking(self, position: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """The partitions that the transaction which has waited longest lacks records of."""
        oldest = next(iter(self._lacking.values()), None)
        return set(self._missing(oldest, position)) if oldest is not None else set()

    # -- transactions that cannot become whole -----------------------------------------------

    def lacking_records(self) -> list[Entry]:
        """The records that are held back, of transactions that lack some."""
        return [entry for open_ in self._lacking.values() for entry in open_.unit.entries]

    def unclosed(self) -> list[str]:
        """The transactions that lack records, and of which it is not known where the log ended then."""
        return [tx for tx, open_ in self._lacking.items() if open_.ends is None]

    def decided(self) -> list[str]:
        """The transactions that lack records, and on which there is a decision."""
        units = {tx: open_.unit for tx, open_ in self._lacking.items()}
        return [tx for tx, unit in units.items() if any(e.marks.resolution is not None for e in unit.entries)]

    def close(self, transactions: Iterable[str], ends: Position) -> None:
        """*ends* are the log's ends, uncommitted records included, sampled after the first record of
        each of *transactions* was delivered: a record of them that is not below will never come."""
        for tx in transactions:
            if tx in self._open:
                self._open[tx].ends = ends

    def reopen(self) -> None:
        """Other partitions are held now: the ends have to be sampled again."""
        for open_ in self._open.values():
            open_.ends = None

    def torn(self, position: Mapping[TopicPartition, int]) -> list[Torn]:
        """The transactions that lack records for good, and that no decision is there for."""
        found, decided = [], set(self.decided())
        for tx, open_ in self._lacking.items():
            if open_.ends is None:
                continue
            missing = self._missing(open_, position)
            passed = [tp for tp in missing if _passed(tp, position, open_.ends)]
            if tx in decided and len(passed) < len(missing):
                continue  # which decision counts is known once all of them are read
            lost = {tp: missing[tp] for tp in self._lost(open_, passed)}
            if lost:
                tables = {tp.topic for tp in open_.manifest or open_.arrived if tp in position}
                found.append(Torn(tx, lost, frozenset(tables)))
        return found


def _decision(unit: Unit, partition: TopicPartition) -> Resolution | None:
    """What was decided of *unit* in *partition*: the first decision there counts, whatever others say."""
    decisions = [e for e in unit.entries if e.marks.resolution is not None and e.place.partition == partition]
    return min(decisions, key=lambda entry: entry.place.offset).marks.resolution if decisions else None


def _passed(tp: TopicPartition, position: Mapping[TopicPartition, int], ends: Position) -> bool:
    return tp in ends and position.get(tp, 0) >= ends[tp]


# -- order -------------------------------------------------------------------------------------


class Order:
    """Which unit comes next after which, on each key. Per key, records are added in log order, and a
    unit is removed after those that it follows."""

    def __init__(self) -> None:
        self.follows: dict[Unit, set[Unit]] = {}
        self._last: dict[Identity, Unit] = {}

    @property
    def identities(self) -> Collection[Identity]:
        """Those of all units that were added, and not removed."""
        return self._last

    def add(self, unit: Unit, entry: Entry) -> None:
        for identity in entry.identities:
            before = self._last.get(identity)
            if before is not None and before is not unit:
                self.follows.setdefault(before, set()).add(unit)
            self._last[identity] = unit

    def remove(self, unit: Unit) -> None:
        self.follows.pop(unit, None)
        for entry in unit.entries:
            for identity in entry.identities:
                if self._last.get(identity) is unit:
                    del self._last[identity]

    def reach(self, start: Iterable[Unit]) -> set[Unit]:
        """*start*, all units that follow one of them, and so on."""
        reached = set(start)
        front = list(reached)
        while front:
            new = self.follows.get(front.pop(), set()) - reached
            reached |= new
            front += new
        return reached


def in_order(units: Sequence[Unit], follows: Mapping[Unit, set[Unit]]) -> list[Unit]:
    """*units*, each after those that it follows; a circle as one, in the order of first records."""
    ordered = sorted(units, key=lambda unit: unit.first)
    rank = {unit: i for i, unit in enumerate(ordered)}
    if all(rank[unit] < rank[after] for unit in ordered for after in follows.get(unit, ()) if after in rank):
        return ordered
    return [unit for circle in _circles(ordered, follows) for unit in sorted(circle, key=lambda unit: unit.first)]


def _circles(units: Sequence[Unit], follows: Mapping[Unit, set[Unit]]) -> list[list[Unit]]:
    """The strongly connected components of *units*, each after those it follows (Kosaraju's two walks)."""
    known = set(units)
    inside = {unit: follows.get(unit, set()) & known for unit in units}
    precedes: dict[Unit, set[Unit]] = defaultdict(set)
    for unit in units:
        for after in inside[unit]:
            precedes[after].add(unit)
    finished: list[Unit] = []
    seen: set[Unit] = set()
    for unit in units:
        _walk(unit, inside, seen, finished)
    circles: list[list[Unit]] = []
    seen = set()
    for unit in reversed(finished):
        circle: list[Unit] = []
        _walk(unit, precedes, seen, circle)
        if circle:
            circles.append(circle)
    return circles


def _walk(start: Unit, edges: Mapping[Unit, set[Unit]], seen: set[Unit], finished: list[Unit]) -> None:
    """Depth first from *start*; units are added to *finished* once all that they lead to are."""
    if start in seen:
        return
    seen.add(start)
    stack = [(start, iter(edges.get(start, ())))]
    while stack:
        for after in stack[-1][1]:
            if after not in seen:
                seen.add(after)
                stack.append((after, iter(edges.get(after, ()))))
                break
        else:
            finished.append(stack.pop()[0])
