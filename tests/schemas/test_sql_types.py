"""Each Avro type on its whole way: Python, Avro, Arrow, DuckDB and back."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from schema_tables import record, table, version

from merganser.schemas.avro import key_fields, key_schema, parse_schema, row_type
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadKeyColumns, BadSchema
from merganser.schemas.layout import layout
from merganser.schemas.table import SchemaVersion, Table
from merganser.schemas.types import quote
from support.avro_strategies import mapped, named, patient, rows_of, schemas_and_rows

LOCKED_DOWN = {
    "storage_compatibility_version": "v1.5.0",
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file as locked down as a replica's store."""
    path: Path = tmp_path_factory.mktemp("store") / "t.duckdb"
    with duckdb.connect(str(path), config=LOCKED_DOWN) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def stored(con: duckdb.DuckDBPyConnection, schema: Any, rows: pa.Table) -> pa.Table:
    """*rows* after a way through a DuckDB table of the schema's columns."""
    columns = layout("t", [version(schema)], 1).columns
    con.execute(f"CREATE OR REPLACE TABLE t ({', '.join(f'{quote(c.name)} {c.sql}' for c in columns)})")
    con.register("arrived", rows)
    con.execute("INSERT INTO t SELECT * FROM arrived")
    con.unregister("arrived")
    return con.sql("SELECT * FROM t").to_arrow_table()


def through(con: duckdb.DuckDBPyConnection, type_: Any, value: Any) -> Any:
    schema = named(record(("a", type_)))
    encoded = RowEncoder(table(schema)).value({"a": value})
    seen = stored(con, schema, Decoder(version(schema), "t").decode([encoded]).rows)
    return seen.column(0)[0].as_py(), con.sql("SELECT typeof(a) FROM t").fetchall()[0][0]


UUID = uuid.UUID("12345678-1234-5678-9234-567812345678")
AWARE = dt.datetime(2024, 2, 29, 12, 30, 15, 123456, dt.UTC)
NAIVE = AWARE.replace(tzinfo=None)


def logical(base: str, called: str, /, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": called, **more}


FIXED: dict[str, Any] = {"name": "?", "size": 16}

#: Avro type, value, SQL type, and what a query gives if not the value itself.
TYPES: list[tuple[Any, ...]] = [
    ("boolean", True, "BOOLEAN"),
    ("int", -(2**31), "INTEGER"),
    ("long", 2**63 - 1, "BIGINT"),
    ("float", 0.5, "FLOAT"),
    ("double", 0.1, "DOUBLE"),
    ("string", "a\0é\U0010ffff", "VARCHAR"),
    ("bytes", b"\0\xff", "BLOB"),
    ({"type": "fixed", "name": "?", "size": 3}, b"abc", "BLOB"),
    ({"type": "enum", "name": "?", "symbols": ["A", "B"]}, "B", "VARCHAR"),
    (logical("bytes", "decimal", precision=38, scale=38), Decimal(-1).scaleb(-38), "DECIMAL(38,38)"),
    (logical("bytes", "decimal", precision=38, scale=0), Decimal(10**38 - 1), "DECIMAL(38,0)"),
    (logical("bytes", "decimal", precision=4, scale=2), Decimal("-12.30"), "DECIMAL(4,2)"),
    (logical("fixed", "decimal", precision=10, scale=2, **FIXED), Decimal("-0.01"), "DECIMAL(10,2)"),
    (logical("string", "uuid"), UUID, "UUID", str(UUID)),
    (logical("fixed", "uuid", **FIXED), UUID, "UUID", str(UUID)),
    (logical("int", "date"), dt.date(1, 1, 1), "DATE"),
    (logical("int", "date"), dt.date(9999, 12, 31), "DATE"),
    (logical("int", "time-millis"), dt.time(23, 59, 59, 999000), "TIME"),
    (logical("long", "time-micros"), dt.time(23, 59, 59, 999999), "TIME"),
    (logical("long", "timestamp-millis"), AWARE.replace(microsecond=123000), "TIMESTAMP WITH TIME ZONE"),
    (logical("long", "timestamp-micros"), AWARE, "TIMESTAMP WITH TIME ZONE"),
    (logical("long", "timestamp-micros"), dt.datetime.max.replace(tzinfo=dt.UTC), "TIMESTAMP WITH TIME ZONE"),
    (logical("long", "timestamp-micros"), dt.datetime.min.replace(tzinfo=dt.UTC), "TIMESTAMP WITH TIME ZONE"),
    (logical("long", "timestamp-nanos"), AWARE, "TIMESTAMP_NS", NAIVE),
    (logical("long", "local-timestamp-millis"), NAIVE.replace(microsecond=123000), "TIMESTAMP"),
    (logical("long", "local-timestamp-micros"), NAIVE, "TIMESTAMP"),
    (logical("long", "local-timestamp-nanos"), NAIVE, "TIMESTAMP_NS"),
    ({"type": "array", "items": ["null", "int"]}, [1, None], "INTEGER[]"),
    ({"type": "map", "values": logical("string", "uuid")}, {"k": UUID}, "MAP(VARCHAR, UUID)", [("k", str(UUID))]),
    ({"type": "array", "items": logical("fixed", "uuid", **FIXED)}, [UUID], "UUID[]", [str(UUID)]),
    (record(("x", "int"), ("y", ["null", "string"])), {"x": 1, "y": None}, "STRUCT(x INTEGER, y VARCHAR)"),
    (["null", "long"], None, "BIGINT"),
    (["long", "null"], 5, "BIGINT"),
    (logical("int", "no-such-thing"), 5, "INTEGER"),
    (logical("int", "timestamp-millis"), 5, "INTEGER"),
]


@pytest.mark.parametrize("case", TYPES, ids=lambda case: f"{case[2]}-{case[1]!r:.30}")
def test_each_avro_type_comes_back_from_sql(store: duckdb.DuckDBPyConnection, case: tuple[Any, ...]) -> None:
    type_, value, sql, *other = case
    schema = {**type_, "name": "?"} if isinstance(type_, dict) and type_["type"] == "record" else type_
    assert through(store, schema, value) == (other[0] if other else value, sql)


@settings(patient, max_examples=60)
@given(case=schemas_and_rows())
def test_every_row_goes_into_sql_and_comes_back(case: Any) -> None:
    schema, rows = case
    encoder = RowEncoder(table(schema))
    decoded = Decoder(version(schema), "t").decode([encoder.value(row) for row in rows]).rows
    with duckdb.connect(config=LOCKED_DOWN) as con:
        con.execute("SET TimeZone = 'UTC'")
        seen = stored(con, schema, decoded)
    assert rows_of(_uuids_as_text(seen)) == rows_of(_uuids_as_text(decoded))


def _uuids_as_text(rows: pa.Table) -> pa.Table:
    """The sixteen bytes of a uuid come back from DuckDB as text; compare both as text."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        values = column.cast(mapped(field.type, _NANOS_AS_NUMBER)).to_pylist()
        target = mapped(field.type, {**_NANOS_AS_NUMBER, pa.binary(16): pa.string()})
        columns.append(pa.array([_walk(v, field.type) for v in values], target))
    return pa.table(columns, names=rows.column_names)


_NANOS_AS_NUMBER = {pa.timestamp("ns"): pa.int64()}


def _walk(value: Any, type_: pa.DataType) -> Any:
    if value is None:
        return None
    if type_ == pa.binary(16):
        return str(uuid.UUID(bytes=value))
    if pa.types.is_struct(type_):
        return {f.name: _walk(value[f.name], f.type) for f in type_}
    if pa.types.is_map(type_):
        return [(k, _walk(v, type_.item_type)) for k, v in value]
    return [_walk(v, type_.value_type) for v in value] if pa.types.is_list(type_) else value


def self_reference() -> dict[str, Any]:
    return {"type": "record", "name": "node", "fields": [{"name": "next", "type": ["null", "node"]}]}


def doubling() -> dict[str, Any]:
    """Twenty short records, each twice in the next: a million columns."""
    inner: Any = "int"
    for i in range(20):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"r{i - 1}" if i else "int"}]
        inner = {"type": "record", "name": f"r{i}", "fields": fields}
    return record(("a", inner))


DECIMAL = logical("bytes", "decimal", precision=4, scale=2)

REFUSED: list[tuple[Any, str, str]] = [
    ("int", "", "not JSON"),
    ('"int"', "", "record"),
    ("{", "", "not JSON"),
    ({"type": "array", "items": "int"}, "", "record"),
    ({"type": "record", "name": "t"}, "", "without fields"),
    ({"type": "record", "name": "t", "fields": []}, "", "without fields"),
    (record(("a", "nonsense")), "", "not a valid Avro schema"),
    (record(("a", "null")), "a", "null alone"),
    (record(("a", ["int", "string"])), "a", "[null, T]"),
    (record(("a", ["null", "int", "string"])), "a", "[null, T]"),
    (record(("a", ["int"])), "a", "[null, T]"),
    (record(("a", {"type": "array", "items": ["int", "string"]})), "a[]", "[null, T]"),
    (record(("a", {"type": "map", "values": "null"})), "a[]", "null alone"),
    (record(("_offset", "long")), "_offset", "uses this name"),
    (record(("_Partition", "long")), "_Partition", "uses this name"),
    (record(("qty", "int"), ("Qty", "int")), "Qty", "differs by case only"),
    (record(("a", {"type": "record", "name": "x", "fields": []})), "a", "without fields"),
    (record(("a", self_reference())), "a.next", "contains itself"),
    (record(("a", {"type": "fixed", "name": "f", "size": 0})), "a", "no bytes"),
    (record(("a", logical("bytes", "decimal", precision=39, scale=0))), "a", "precision of 1 to 38"),
    (record(("a", logical("bytes", "decimal", precision=3, scale=4))), "", "scale"),
    (record(("a", logical("fixed", "duration", name="f", size=12))), "a", "duration"),
    (record(("a", "int", {"default": "x"})), "", "efault"),
    (record(("a", "int", {"default": 2**31})), "a", "does not fit"),
    (record(("a", {"type": "enum", "name": "e", "symbols": ["A"]}, {"default": "B"})), "a", "does not fit"),
    (record(("a", logical("int", "date"), {"default": 10**9})), "a", "does not fit"),
    (record(("a", logical("string", "uuid"), {"default": "x"})), "a", "does not fit"),
    (record(("a", "float", {"default": 1e39})), "a", "does not fit"),
    (record(("a", "double", {"default": True})), "a", "does not fit"),
    (record(("a", DECIMAL, {"default": ""})), "a", "does not fit"),
    (record(("a", {"type": "array", "items": DECIMAL}, {"default": [""]})), "a", "does not fit"),
    (doubling(), "", "more than 10000 types"),
]


@pytest.mark.parametrize(("schema", "where", "why"), REFUSED)
def test_what_has_no_sql_type_is_refused_by_place(schema: Any, where: str, why: str) -> None:
    with pytest.raises(BadSchema) as e:
        parse_schema("t", schema)
    assert why in str(e.value)
    assert e.value.where.startswith(where)


def test_decimals_wider_than_their_fixed_are_refused() -> None:
    with pytest.raises(BadSchema):
        parse_schema("t", record(("a", logical("fixed", "decimal", precision=5, name="f", size=2))))


def test_the_users_schema_stays_as_it_is() -> None:
    schema = {**record(("a", "int", {"doc": "x", "aliases": ["b"], "unit": "m"})), "doc": "d", "merganser": {"k": [1]}}
    assert parse_schema("t", schema) == schema
    assert parse_schema("t", json.dumps(schema)) == schema


def test_aliases_and_defaults_are_known_by_field() -> None:
    (f,) = row_type("t", record(("a", "int", {"aliases": ["b", "c"], "default": 3}))).fields
    assert (f.aliases, f.has_default, f.default) == (("b", "c"), True, 3)


@pytest.mark.parametrize("type_", ["double", "float", ["null", "int"], {"type": "array", "items": "int"}])
def test_key_columns_are_required_and_neither_float_nor_nested(type_: Any) -> None:
    with pytest.raises(BadKeyColumns):
        key_schema("t", record(("a", type_)), ["a"])
    with pytest.raises(BadKeyColumns):
        key_schema("t", record(("a", "int")), ["b"])


def test_key_columns_bring_the_types_that_the_value_defines_elsewhere() -> None:
    region = {"type": "enum", "name": "geo.region", "symbols": ["EU", "US"]}
    schema = record(("home", region), ("a", "geo.region"), ("b", "geo.region"))
    keyed = table(schema, ["b", "a"])
    assert RowEncoder(keyed).key({"a": "EU", "b": "US"})[5:] == b"\2\0"
    made = key_schema("t", {**schema, "namespace": "shop"}, ["a"])
    assert [f.type.symbols for f in row_type("t", made).fields] == [("EU", "US")]


def test_key_fields_of_each_encoding() -> None:
    keyed = table(record(("a", "long"), ("b", "string")), ["b"])
    assert [(f.name, f.type.sql) for f in key_fields(keyed)] == [("b", "VARCHAR")]
    plain = Table("t", "i", 1, (SchemaVersion("t-value", 1, 1, record(("a", "long"))),), ("a",), "long")
    assert [(f.name, f.type.sql) for f in key_fields(plain)] == [("a", "BIGINT")]
    assert key_fields(table(record(("a", "long")))) == ()
