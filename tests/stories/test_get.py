"""`Replica.get` takes a key as `Producer.put` takes it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

import merganser as mg
from merganser.schemas.avro import key_schema
from merganser.schemas.encode import RowEncoder
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog

_AT = dt.datetime(2026, 1, 31, 12, 0, 0, 1)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("timestamp-nanos", [1_700_000_000_123_456_789, -1, _AT.replace(tzinfo=dt.UTC)]),
        ("local-timestamp-nanos", [1_700_000_000_123_456_789, -1, _AT]),
    ],
)
def test_nanoseconds_as_a_number(tmp_path: Path, kind: str, keys: list[Any]) -> None:
    fields = [{"name": "at", "type": {"type": "long", "logicalType": kind}}, {"name": "n", "type": "long"}]
    schema = {"type": "record", "name": "row", "fields": fields}
    key = SchemaVersion(key_subject("t"), 1, 2, key_schema("t", schema, ["at"]))
    table = Table("t", "id-t", 1, (SchemaVersion(value_subject("t"), 1, 1, schema),), ("at",), "avro", key)
    log, encoder = FakeLog(), RowEncoder(table)
    log.add(table)
    for n, at in enumerate(keys):
        log.put("t", 0, encoder.key({"at": at}), encoder.value({"at": at, "n": n}))
    with mg.Replica(tmp_path / "r.duckdb", log, "g", ["t"], limits=STORE_LIMITS) as replica:
        for n, at in enumerate(keys):
            row = replica.get("t", {"at": at}, level="strong")
            assert row is not None and row["n"] == n
        assert replica.get("t", {"at": 7}) is None
