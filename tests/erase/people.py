"""A log of people, of whom one wants to be forgotten: rows, updates, transactions with orders, conditions, operation
ids, records that are no rows, spellings of the key; and the delete at the end."""

from __future__ import annotations

import random
import uuid
from typing import Any

from merganser.consumers.checks import digest
from merganser.schemas.headers import Condition, Marks
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.fakelog import FakeLog, FakeRecord
from support.frames import framed

TABLE, NAMES = "people", ("bob", "ada", "eve", "kim")

_KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": {"type": "string", "logicalType": "uuid"}}]}
_PLAIN_KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "string"}]}
_FIELDS = [{"name": "id", "type": "string"}, {"name": "note", "type": "string"}, {"name": "age", "type": "int"}]
_ROW = {"type": "record", "name": "person", "fields": [{"name": "id", "type": _KEY["fields"][0]["type"]}, *_FIELDS[1:]]}
_PLAIN_ROW = {"type": "record", "name": "person", "fields": _FIELDS}
_ORDER_KEY = {"type": "record", "name": "ok", "fields": [{"name": "n", "type": "long"}]}
_ORDER = {"type": "record", "name": "order", "fields": [{"name": "n", "type": "long"}, {"name": "sum", "type": "long"}]}

IDS = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in NAMES}

#: Who wants to be forgotten.
ADA = IDS["ada"]


class People:
    """*log* has the tables ``people`` and ``orders``, in two partitions each."""

    def __init__(self, seed: int, events: int = 60, forgotten: bool = True) -> None:
        self.log, self.random = FakeLog(seed), random.Random(seed)
        self._n = 0
        self.log.add(
            Table(TABLE, "id-p", 2, (SchemaVersion("people-value", 1, 1, _ROW),), ("id",), "avro",
                  SchemaVersion("people-key", 1, 2, _KEY))
        )  # fmt: skip
        self.log.add(
            Table("orders", "id-o", 2, (SchemaVersion("orders-value", 1, 3, _ORDER),), ("n",), "avro",
                  SchemaVersion("orders-key", 1, 4, _ORDER_KEY))
        )  # fmt: skip
        for n in range(events):
            self._event("ada" if n in (1, 5, 9, 14) else self.random.choice(NAMES), n)
        if events:
            self.bad("ada")
            if forgotten:
                self.delete("ada")
                self.write("bob", 99)

    def lived(self, events: int) -> People:
        """So many events without conditions, in which the key of each transaction is one person's; ada is deleted."""
        for n in range(events):
            name = self.random.choice(NAMES)
            kind = self.random.randrange(6)
            marks = [None, None, Marks(ops=(f"op-{n % 7}",)), Marks(f"tx-{n}", {self.place(name): 1})]
            if kind < len(marks):
                self.write(name, n, marks[kind])
            elif kind == 4:
                self.delete(name)
            else:
                self.log.gap(*self.place(name))
        self.delete("ada")
        return self

    def place(self, name: str) -> TopicPartition:
        return TopicPartition(TABLE, self.partition(name))

    def partition(self, name: str) -> int:
        return NAMES.index(name) % 2

    def _event(self, name: str, n: int) -> None:
        match self.random.randrange(7):
            case 0 | 1:
                self.write(name, n)
            case 2:
                self.write(name, n, Marks(condition=self.random.choice([Condition("absent"), Condition("present")])))
            case 3:
                self.write(name, n, Marks(ops=(f"op-{self.random.randrange(5)}",)))
            case 4:
                self.delete(name)
            case 5:
                self.order(name, n)
            case 6:
                self.bad(name)
        if self.random.random() < 0.1:
            self.log.gap(TABLE, self.partition(name))

    def key(self, name: str) -> bytes:
        spelled = IDS[name].upper() if self.random.random() < 0.3 else IDS[name]
        return framed(2, _PLAIN_KEY, {"id": spelled})

    def value(self, name: str, n: int) -> bytes:
        return framed(1, _PLAIN_ROW, {"id": IDS[name], "note": f"note {n} about {name}", "age": n})

    def write(self, name: str, n: int, marks: Marks | None = None) -> None:
        self.log.put(TABLE, self.partition(name), self.key(name), self.value(name, n), marks)

    def delete(self, name: str) -> None:
        self.log.put(TABLE, self.partition(name), self.key(name), None)

    def bad(self, name: str) -> None:
        self.log.put(TABLE, self.partition(name), self.key(name), self.value(name, 7) + b"about " + name.encode())

    def order(self, name: str, n: int) -> None:
        """A transaction of a person, an order, and another person."""
        self._n += 1
        tx, other = f"tx-{self._n}", self.random.choice([each for each in NAMES if each != name])
        places = [(TABLE, self.partition(name)), ("orders", n % 2), (TABLE, self.partition(other))]
        manifest: dict[TopicPartition, int] = {}
        for place in places:
            manifest[TopicPartition(*place)] = manifest.get(TopicPartition(*place), 0) + 1
        condition = Condition("present") if self.random.random() < 0.4 else None
        seen: set[Any] = set()
        records = [
            (places[0], self.key(name), self.value(name, n), condition),
            (places[1], framed(4, _ORDER_KEY, {"n": n}), framed(3, _ORDER, {"n": n, "sum": n}), None),
            (places[2], self.key(other), self.value(other, n), None),
        ]
        for place, key, value, if_ in records:
            marks = Marks(tx, None if place in seen else manifest, if_, guarded=place not in seen and bool(condition))
            seen.add(place)
            self.log.put(*place, key, value, marks)


def tells_of_ada(data: bytes) -> bool:
    """Whether *data* has a part of a key or a value of hers."""
    return any(part in data for part in (ADA.encode(), ADA.upper().encode(), b"about ada"))


def records_of_ada(log: FakeLog) -> list[FakeRecord]:
    records = [record for each in log.partitions.values() for record in each if record is not None]
    return [record for record in records if record.key_bytes and ADA.encode() in record.key_bytes.lower()]


def hashes_of_ada(log: FakeLog) -> set[str]:
    """Those that manifests and stores keep of a last record, of each of hers."""
    return {digest(record.key_bytes, record.value_bytes).hex() for record in records_of_ada(log)}
