"""Keys of every kind: the last write per key is the row, whatever the key is made of."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from merganser.consumers.apply import Applier
from merganser.consumers.audit import audit_store
from merganser.consumers.dbfile import Limits
from merganser.consumers.follow import Follow
from merganser.consumers.progress import Progress
from merganser.consumers.store import Store
from merganser.schemas.avro import key_schema
from merganser.schemas.encode import RowEncoder
from merganser.schemas.table import SchemaVersion, Table
from stories.test_recovery import limits
from support.fakelog import FakeLog

INSTANT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

KEYS: dict[str, tuple[list[Any], list[list[Any]]]] = {
    "long": (["long"], [[1], [2], [-(2**63)]]),
    "two columns": (["string", "int"], [["a", 1], ["a", 2], ["b", 1]]),
    "string": (["string"], [["a"], ["A"], [""], ["ä"], ["a\x00b"]]),
    "bytes": (["bytes"], [[b""], [b"\x00"], [b"\xff\x00"]]),
    "boolean": (["boolean"], [[True], [False]]),
    "enum": ([{"type": "enum", "name": "e", "symbols": ["X", "Y"]}], [["X"], ["Y"]]),
    "fixed": ([{"type": "fixed", "name": "f", "size": 3}], [[b"abc"], [b"abd"]]),
    "uuid": ([{"type": "string", "logicalType": "uuid"}], [[uuid.UUID(int=1)], [uuid.UUID(int=2)]]),
    "uuid fixed": (
        [{"type": "fixed", "name": "u", "size": 16, "logicalType": "uuid"}],
        [[uuid.UUID(int=1)], [uuid.UUID(int=2)]],
    ),
    "date": ([{"type": "int", "logicalType": "date"}], [[dt.date(2026, 1, 1)], [dt.date(1, 1, 1)]]),
    "time": ([{"type": "long", "logicalType": "time-micros"}], [[dt.time(1, 2, 3)], [dt.time(0)]]),
    "instant": (
        [{"type": "long", "logicalType": "timestamp-micros"}],
        [[INSTANT], [INSTANT + dt.timedelta(microseconds=1)]],
    ),
    "decimal": (
        [{"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}],
        [[Decimal("1.00")], [Decimal("-1.00")], [Decimal("99999999999999.99")]],
    ),
}


def make_table(types: list[Any]) -> Table:
    names = [f"k{i}" for i in range(len(types))]
    fields = [{"name": n, "type": t} for n, t in zip(names, types, strict=True)]
    # Words that SQL or the store could stumble over: a schema may use them.
    fields += [{"name": name, "type": "int"} for name in ("_seq", "select", "topic", "offset")]
    schema = {"type": "record", "name": "row", "fields": fields}
    value = SchemaVersion("odd.Name-1-value", 1, 1, schema)
    key = SchemaVersion("odd.Name-1-key", 1, 2, key_schema("odd.Name-1", schema, names))
    return Table("odd.Name-1", "id", 2, (value,), tuple(names), "avro", key)


@pytest.mark.parametrize("kind", KEYS)
def test_the_last_write_of_each_key_is_its_row(kind: str, tmp_path: Path) -> None:
    types, keys = KEYS[kind]
    table = make_table(types)
    log = FakeLog(seed=3)
    log.add(table)
    encoder = RowEncoder(table)
    expected: dict[tuple[Any, ...], int] = {}
    for n in range(60):
        key = keys[log.random.randrange(len(keys))]
        named = {f"k{i}": value for i, value in enumerate(key)}
        # A key has one partition, as a partitioner would see to it.
        partition = keys.index(key) % 2
        if log.random.random() < 0.3:
            log.put(table.name, partition, encoder.key(named), None)
            expected.pop(tuple(key), None)
        else:
            row = {**named, "_seq": n, "select": n, "topic": n, "offset": n}
            log.put(table.name, partition, encoder.key(row), encoder.value(row))
            expected[tuple(key)] = n
    with_store(log, table, tmp_path / "store.duckdb", expected)


def with_store(log: FakeLog, table: Table, path: Path, expected: dict[tuple[Any, ...], int]) -> None:
    store = Store(path, log.cluster_id, "g", Limits(head_room=0))
    progress = Progress()
    loop = Applier(log, store, Follow(log, store, [table.name], False), log.reader("g"), progress, limits(11))
    loop.begin()
    while not progress.applied.reaches(log.ends(list(log.partitions))):
        loop.turn()
        loop.flush()
    with store.reading(1) as cursor:
        found = cursor.execute('SELECT "_seq", "select", topic, "offset" FROM "odd.Name-1"').fetchall()
        assert sorted(found) == sorted((n, n, n, n) for n in expected.values())
        assert [why for account in audit_store(cursor) for why in account.wrong] == []
        assert cursor.execute("SELECT count(*) FROM _merganser.quarantine").fetchall() == [(0,)]
    loop.stop()
    store.close()
