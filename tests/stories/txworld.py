"""A random history of transactions on a FakeLog, and what it comes to, by an oracle that shares no code
with ``consumers/atomic.py`` and ``conditions.py``: small, slow, straight from their invariants.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from merganser.schemas.headers import Condition, Marks
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import SchemaVersion, Table, value_subject
from support.fakelog import FakeLog
from support.frames import framed

PARTITIONS = 2
KEYS = 3  # a partition


def _key(type_: Any) -> dict[str, Any]:
    return {"type": "record", "name": "k", "fields": [{"name": "id", "type": type_}]}


def _row(id_type: Any) -> dict[str, Any]:
    return {"type": "record", "name": "row", "fields": [{"name": "id", "type": id_type}, {"name": "n", "type": "long"}]}


_KEY, _ROW = _key("long"), _row("long")
_IDS = {"a": 100, "b": 200, "c": 300}

#: If keys are spelt in many ways: table a's key became nullable, and then a client turned the union round;
#: table b's is a decimal.
_LATER_KEYS = [_key(["null", "long"]), _key(["long", "null"])]
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 1}


@dataclass
class Event:
    """One record as it was written; *n* is None in a delete, *id* in an append table no key."""

    table: str
    partition: int
    id: int
    n: int | None
    tx: str | None = None
    condition: Condition | None = None
    ops: tuple[str, ...] = ()
    poison: bool = False
    offset: int = -1

    @property
    def place(self) -> tuple[str, int, int]:
        return (self.table, self.partition, self.offset)

    @property
    def names(self) -> set[object]:
        """What it shares with records that have to keep its order."""
        keys: set[object] = {("op", op) for op in self.ops}
        return keys | ({("key", self.id)} if self.table != "c" else set())


@dataclass
class State:
    """What the log comes to."""

    rows: dict[str, dict[Any, tuple[int, int, int]]] = field(default_factory=lambda: {"a": {}, "b": {}, "c": {}})
    rejected: set[tuple[str, int, int]] = field(default_factory=set)
    repeated: set[tuple[str, int, int]] = field(default_factory=set)
    pending: set[tuple[str, int, int]] = field(default_factory=set)
    transactions: dict[str, str] = field(default_factory=dict)


class TxWorld:
    """Two keyed tables and an append table, written by producers whose transactions interleave. *spellings*: by
    many clients, which do not spell a key in the same bytes."""

    def __init__(self, seed: int, transactions: int = 20, guarded: bool = True, spellings: bool = False) -> None:
        self.log = FakeLog(seed)
        self.random = random.Random(seed)
        self._speller = random.Random(seed) if spellings else None  # the history is the same in other bytes
        self.events: list[Event] = []
        self._types: dict[str, Any] = {"a": "long", "b": _DECIMAL if spellings else "long", "c": "long"}
        for name in ("a", "b"):
            key = SchemaVersion(f"{name}-key", 1, _IDS[name] + 50, _key(self._types[name]))
            self.log.add(Table(name, f"id-{name}", PARTITIONS, (self._version(name),), ("id",), "avro", key))
        self.log.add(Table("c", "id-c", PARTITIONS, (self._version("c"),)))
        for n, schema in enumerate(_LATER_KEYS if spellings else (), 1):
            self.log.register(SchemaVersion("a-key", 1 + n, _IDS["a"] + 50 + n, schema))
        self._guarded = guarded
        running: list[list[Event]] = []
        for number in range(transactions):
            running.append(self._transaction(f"t{number}"))
            while len(running) > self.random.randrange(4):
                self._append_one(running)
        while running:
            self._append_one(running)

    def _version(self, table: str) -> SchemaVersion:
        return SchemaVersion(value_subject(table), 1, _IDS[table], _row(self._types[table]))

    def _transaction(self, name: str) -> list[Event]:
        """Some records in the order in which they reach the log; now and then one by itself."""
        alone = self.random.random() < 0.4
        count = 1 if alone else self.random.randint(1, 5)
        return [self._event(None if alone else name) for _ in range(count)]

    def _event(self, tx: str | None) -> Event:
        rng = self.random
        table, partition = rng.choice("aabbc"), rng.randrange(PARTITIONS)
        event = Event(table, partition, rng.randrange(KEYS), rng.randrange(1000), tx)
        if table != "c" and rng.random() < 0.15:
            event.n = None
        if self._guarded and table != "c" and rng.random() < 0.35:
            offsets = [e.offset for e in self.events if (e.table, e.partition) == (table, partition)] or [0]
            event.condition = rng.choice(
                [Condition("absent"), Condition("present"), Condition("version", rng.choice(offsets[-4:]))]
            )
        if self._guarded and rng.random() < 0.2:
            event.ops = (f"op{rng.randrange(12)}",)
        event.poison = self._guarded and event.n is not None and rng.random() < 0.03
        return event

    def _append_one(self, running: list[list[Event]]) -> None:
        mine = self.random.choice(running)
        event = mine.pop(self.random.randrange(len(mine)))
        earlier = [e for e in self.events if e.tx is not None and e.tx == event.tx]
        manifest = None
        if event.tx and not any((e.table, e.partition) == (event.table, event.partition) for e in earlier):
            counts = Counter(TopicPartition(e.table, e.partition) for e in [*earlier, event, *mine])
            manifest = dict(counts)
        key = self._spelt(event) if event.table != "c" else None
        row = {"id": Decimal(event.id) if self._types[event.table] == _DECIMAL else event.id, "n": event.n}
        value = None if event.n is None else framed(_IDS[event.table], _row(self._types[event.table]), row)
        marks = Marks(event.tx, manifest, event.condition, event.ops)
        value = value[:-1] if event.poison and value else value
        event.offset = self.log.put(event.table, event.partition, key, value, marks).offset()
        self.events.append(event)
        if not mine:
            running.remove(mine)
        if self.random.random() < 0.1:
            self.log.gap(event.table, event.partition)

    def _spelt(self, event: Event) -> bytes:
        """The key of *event*, in one of the ways to write it."""
        ways = self._speller.randrange(3) if self._speller else 0
        schema_id = _IDS[event.table] + 50
        if self._types[event.table] == _DECIMAL:
            unscaled = (10 * event.id).to_bytes(1 + ways, signed=True)  # more bytes than it takes say the same
            return framed(schema_id, _key("bytes"), {"id": unscaled})
        return framed(schema_id + ways, [_KEY, *_LATER_KEYS][ways], {"id": event.id})

    # -- the oracle --------------------------------------------------------------------------

    def state(self, position: Mapping[TopicPartition, int]) -> State:
        """What a replica has to hold at *position*."""
        below = [e for e in self.events if e.offset < position.get(TopicPartition(e.table, e.partition), 0)]
        total = Counter(e.tx for e in self.events)
        here = Counter(e.tx for e in below)
        held = [e for e in below if e.tx is not None and here[e.tx] < total[e.tx]]
        while True:
            more = [e for e in below if e not in held and any(waits(e, h) for h in held)]
            if not more:
                break
            held += more
        state = State(pending={e.place for e in held})
        for unit in serial([e for e in below if e not in held]):
            apply(unit, state)
        return state


def waits(event: Event, held: Event) -> bool:
    """True if *event* may not be seen before *held* is."""
    return (event.tx is not None and event.tx == held.tx) or follows(event, held)


def follows(after: Event, before: Event) -> bool:
    same_partition = (after.table, after.partition) == (before.table, before.partition)
    return same_partition and after.offset > before.offset and bool(after.names & before.names)


def serial(events: Iterable[Event]) -> list[list[Event]]:
    """The units of *events*, one after another: by the transitive closure of what follows what."""
    units: dict[object, list[Event]] = {}
    for event in sorted(events, key=lambda e: e.place):
        units.setdefault(event.tx or event.place, []).append(event)
    names = list(units)
    reach = {u: {v for v in names if any(follows(y, x) for x in units[u] for y in units[v])} for u in names}
    for k in names:  # Warshall
        for i in names:
            if k in reach[i]:
                reach[i] |= reach[k]
    ordered: list[list[Event]] = []
    left = set(names)
    while left:
        # The first of those that follow none but such as they are in a circle with.
        ready = [u for u in left if all(u not in reach[v] or v in reach[u] for v in left)]
        first = min(ready, key=lambda u: units[u][0].place)
        circle = [u for u in left if u == first or (u in reach[first] and first in reach[u])]
        ordered += [units[u] for u in sorted(circle, key=lambda u: units[u][0].place)]
        left -= set(circle)
    return ordered


def apply(unit: list[Event], state: State) -> None:
    """Change *state* as *unit* says, if it may."""
    ops = {("op", e.table, e.partition, op): e for e in unit for op in e.ops}
    known = [state.transactions[str(op)] for op in ops if str(op) in state.transactions]
    outcome = known[0] if known else "rejected" if any(e.poison for e in unit) else "applied"
    rows = {table: dict(content) for table, content in state.rows.items()}
    if not known and outcome == "applied":
        for e in unit:
            at = (e.partition, e.id) if e.table != "c" else (e.partition, e.offset)
            found = rows[e.table].get(at)
            if e.condition and not holds(e.condition, found):
                outcome = "rejected"
                break
            if e.n is None:
                rows[e.table].pop(at, None)
            else:
                rows[e.table][at] = (e.id, e.n, e.offset)
    if known:
        state.repeated |= {e.place for e in unit if not e.poison}
    elif outcome == "applied":
        state.rows = rows
    else:
        state.rejected |= {e.place for e in unit if not e.poison}
    if not known:
        state.transactions |= {str(op): outcome for op in ops}
    if unit[0].tx:
        state.transactions[unit[0].tx] = outcome


def holds(condition: Condition, row: tuple[int, int, int] | None) -> bool:
    if condition.kind == "absent":
        return row is None
    if condition.kind == "present":
        return row is not None
    return row is not None and row[2] == condition.version
