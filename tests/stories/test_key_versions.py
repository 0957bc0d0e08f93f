"""A key schema that others have changed: what a key is follows from its versions in order, not from when one looked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from merganser.consumers.apply import BatchLimits
from merganser.consumers.catchup import apply_until
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.schemas.catalog import assemble
from merganser.schemas.errors import BadKeyColumns
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject
from restore.town import held
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog
from support.frames import framed

ROW: dict[str, Any] = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "int"}]}
CARRIED = {**ROW, "fields": [{"name": "id", "type": "long"}, *ROW["fields"]]}


def record(type_: object, name: str = "id") -> dict[str, Any]:
    return {"type": "record", "name": "k", "fields": [{"name": name, "type": type_}]}


class DeclaredLog(FakeLog):
    """One table ``t``, which is what the versions of its schemas say by now, as a registry keeps them."""

    def __init__(self, row: dict[str, Any], *keys: object) -> None:
        super().__init__(1)
        self.row = row
        self.add(Table("t", "id-t", 1, (SchemaVersion(value_subject("t"), 1, 1, row),)))
        self.registered[key_subject("t")] = []
        for key in keys:
            self.declare(key)

    def declare(self, key: Any) -> None:
        number = len(self.registered[key_subject("t")]) + 1
        self.register(SchemaVersion(key_subject("t"), number, 10 + number, key))

    def table(self, name: str) -> Table:
        found = self.registered
        return assemble(self.describe([name])[name], found[value_subject(name)], found[key_subject(name)])

    def write(self, version: int, key: int, n: int) -> None:
        """A row with *key* by that version of the key's schema."""
        schema: Any = self.registered[key_subject("t")][version - 1].schema
        [type_] = [f["type"] for f in schema["fields"]] if "fields" in schema else [schema]
        raw = framed(10 + version, record(type_), {"id": str(key) if type_ == "string" else key})
        row = {"n": n} | ({"id": key} if self.row is CARRIED else {})
        self.put("t", 0, raw, framed(1, self.row, row))


def fold(log: FakeLog, path: Path) -> None:
    until = log.ends(list(log.partitions))
    store = Store(path, log.cluster_id, "g", STORE_LIMITS)
    try:
        apply_until(BoundedLog(log, until), store, ["t"], until, batches=BatchLimits(records=3))
    finally:
        store.close()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with StoreFile(path) as store:
        return list(store.query(sql).rows())


CHANGED = {
    "int to long": (record("int"), record("long")),
    "long to int": (record("long"), record("int")),
    "another name": (record("int"), record("int", "other")),
    "another type": (record("int"), record("string")),
    "none that is read": (record("int"), record(["int", "string"])),
    "one value": (record("int"), "long"),
}


@pytest.mark.parametrize("row", [ROW, CARRIED], ids=["key only", "carried"])
@pytest.mark.parametrize("kind", CHANGED)
def test_replicas_that_looked_at_different_times_hold_the_same(kind: str, row: dict[str, Any], tmp_path: Path) -> None:
    first, second = CHANGED[kind]
    log, early, late = DeclaredLog(row, first), tmp_path / "early.duckdb", tmp_path / "late.duckdb"
    log.write(1, 1, 1)
    log.write(1, 2, 2)
    fold(log, early)
    log.declare(second)
    log.write(2, 1, 3)
    log.write(2, 3, 4)
    log.write(1, 2, 9)
    fold(log, early)
    fold(log, late)
    assert held(early) == held(late)
    assert sorted(rows(late, "SELECT id, n FROM t")) == [(1, 1), (2, 9)]
    reasons = rows(late, 'SELECT "offset", reason FROM _merganser.quarantine ORDER BY 1')
    assert [offset for offset, _ in reasons] == [2, 3]
    assert all("key schema version 2" in why for _, why in reasons)


@pytest.mark.parametrize("type_", ["double", "string", ["null", "float"]], ids=str)
def test_values_whose_key_column_is_of_another_type_are_no_rows(type_: object, tmp_path: Path) -> None:
    """As a DOUBLE, large keys would be taken for one another."""
    log, early, late = DeclaredLog(CARRIED, record("long")), tmp_path / "early.duckdb", tmp_path / "late.duckdb"
    log.write(1, 2**60, 1)
    fold(log, early)
    other = {**CARRIED, "fields": [{"name": "id", "type": type_}, *ROW["fields"]]}
    log.register(SchemaVersion(value_subject("t"), 2, 2, other))
    key, id_ = framed(11, record("long"), {"id": 2**60 + 1}), "7" if type_ == "string" else float(2**60)
    log.put("t", 0, key, framed(2, other, {"id": id_, "n": 2}))
    log.write(1, 2**60 + 1, 3)
    for path in (early, late):
        fold(log, path)
        assert rows(path, "SELECT id, n FROM t ORDER BY 1") == [(2**60, 1), (2**60 + 1, 3)]
        [(reason,)] = rows(path, "SELECT reason FROM _merganser.quarantine")
        assert "'id'" in reason and "key" in reason
    assert held(early) == held(late)


SAME: dict[str, Sequence[object]] = {
    "a null": (record("long"), record(["null", "long"])),
    "words": (record("long"), {**record("long"), "doc": "which order"}),
    "one value that is named": ("long", {"type": "long", "merganser.column": "id"}),
    "one value that may be null": ("long", {"type": "long", "merganser.column": "id"}, ["null", "long"]),
}


@pytest.mark.parametrize("row", [ROW, CARRIED], ids=["key only", "carried"])
@pytest.mark.parametrize("kind", SAME)
def test_versions_of_the_same_columns_are_one_key(kind: str, row: dict[str, Any], tmp_path: Path) -> None:
    log, path = DeclaredLog(row, *SAME[kind]), tmp_path / "t.duckdb"
    for number in range(len(SAME[kind])):
        log.write(number + 1, 7, number)
    log.write(1, 8, 80)
    fold(log, path)
    assert sorted(rows(path, "SELECT id, n FROM t")) == [(7, len(SAME[kind]) - 1), (8, 80)]
    assert rows(path, "FROM _merganser.quarantine") == []
    declared = log.table("t").key_schema
    assert declared is not None and declared.id == 11, "the id that keys carry, and so their partition, stays"


def test_a_key_of_one_value_has_a_name_or_is_none() -> None:
    with pytest.raises(BadKeyColumns, match="say which column that is"):
        DeclaredLog(ROW, "long").table("t")
