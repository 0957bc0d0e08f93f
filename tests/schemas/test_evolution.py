from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from schema_tables import record, table, version

from merganser.schemas.avro import key_schema
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadSchema, IncompatibleSchema
from merganser.schemas.evolution import check_admissible, check_compatible
from merganser.schemas.layout import layout
from merganser.schemas.table import Table
from support.avro_strategies import comparable, named, patient, schemas_and_rows


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "e", "symbols": list(symbols), **more}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def inner(*fields: Any, **more: Any) -> dict[str, Any]:
    return {**record(*fields), "name": "inner", **more}


def of(type_: Any, **more: Any) -> dict[str, Any]:
    return record(("a", type_, more))


COMPATIBLE: list[tuple[Any, Any]] = [
    (of("int"), of("int")),
    (of("int"), of("long")),
    (of("int"), of("float")),
    (of("long"), of("double")),
    (of("float"), of("double")),
    (of("int"), of(["null", "int"])),
    (of(["null", "int"]), of(["long", "null"])),
    (of("int"), record(("a", "int"), ("b", "int", {"default": 0}))),
    (record(("a", "int"), ("b", "int")), of("int")),
    (record(("a", "int"), ("b", "int")), record(("b", "int"), ("a", "int"))),
    (of("int"), record(("b", "long", {"aliases": ["a"]}))),
    (of(enum("A")), of(enum("B", "A"))),
    (of(enum("A", "B")), of(enum("A", default="A"))),
    (of(decimal(5, 2)), of(decimal(9, 2))),
    (of({"type": "array", "items": "int"}), of({"type": "array", "items": "long"})),
    (of({"type": "map", "values": "int"}), of({"type": "map", "values": ["null", "int"]})),
    (of(inner(("x", "int"))), of(inner(("x", "long"), ("y", "int", {"default": 1})))),
    (of(inner(("x", "int"))), of(inner(("x", "int"), name="other", aliases=["inner"]) | {"name": "other"})),
    (of({**inner(("x", "int")), "namespace": "a"}), of({**inner(("x", "int")), "namespace": "b"})),
]

BROKEN: list[tuple[Any, Any, str]] = [
    (of("long"), of("int"), "a: long cannot become int"),
    (of("double"), of("float"), "a: double cannot become float"),
    (of("int"), of("string"), "a: int cannot become string"),
    (of("string"), of("bytes"), "a: string cannot become bytes"),
    (of(["null", "int"]), of("int"), "a: earlier records may have null"),
    (of("int"), record(("a", "int"), ("b", "int")), "b: a new field needs a default"),
    (of("int"), record(("b", "int")), "b: a new field needs a default"),
    (of(enum("A", "B")), of(enum("A")), "a: earlier records may have B"),
    (of(enum("A")), of({**enum("A"), "name": "f"}), "a: the enum 'e' cannot become 'f' without an alias"),
    (of("long"), of({"type": "long", "logicalType": "timestamp-micros"}), "a: long cannot become timestamp-micros"),
    (
        of({"type": "long", "logicalType": "timestamp-millis"}),
        of({"type": "long", "logicalType": "timestamp-micros"}),
        "a: timestamp-millis cannot become timestamp-micros",
    ),
    (of(decimal(5, 2)), of(decimal(5, 3)), "a: the scale cannot change"),
    (of(decimal(5, 2)), of(decimal(4, 2)), "a: earlier records may have 5 digits"),
    (
        of({"type": "fixed", "name": "f", "size": 4}),
        of({"type": "fixed", "name": "f", "size": 5}),
        "a: fixed of 4 bytes cannot become fixed of 5 bytes",
    ),
    (of({"type": "array", "items": "long"}), of({"type": "array", "items": "int"}), "a[]: long cannot become int"),
    (of(inner(("x", "int"))), of(inner(("x", "int"), ("y", "int"))), "a.y: a new field needs a default"),
]


@pytest.mark.parametrize(("old", "new"), COMPATIBLE)
def test_readers_of_the_new_version_follow_the_old(old: Any, new: Any) -> None:
    check_compatible("t-value", old, json.dumps(new))


@pytest.mark.parametrize(("old", "new", "why"), BROKEN)
def test_a_break_is_refused_with_the_field_and_the_reason(old: Any, new: Any, why: str) -> None:
    with pytest.raises(IncompatibleSchema) as e:
        check_compatible("t-value", old, new)
    assert e.value.why.startswith(why)


CHANGES = ["promote", "nullable", "drop", "add", "rename", "shuffle", "demote", "required", "bare-add"]
WIDER = {"int": "long", "long": "double", "float": "double"}


@st.composite
def changed(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """*schema* with a few changes, allowed ones and others."""
    fields = [dict(f) for f in schema["fields"]]
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        f = draw(st.sampled_from(fields))
        match change:
            case "promote":
                f["type"] = WIDER.get(f["type"], f["type"]) if isinstance(f["type"], str) else f["type"]
            case "demote":
                f["type"] = "int" if f["type"] == "long" else f["type"]
            case "nullable" if not isinstance(f["type"], list):
                f["type"] = ["null", f["type"]]
            case "required" if isinstance(f["type"], list):
                f["type"] = next(t for t in f["type"] if t != "null")
                f.pop("default", None)
            case "drop" if len(fields) > 1:
                fields.remove(f)
            case "add" | "bare-add":
                made = {"name": f"n{len(fields)}x", "type": ["null", "int"]}
                fields.append(made if change == "bare-add" else {**made, "default": None})
            case "rename":
                f.update(name=f"{f['name']}z", aliases=[f["name"]])
            case "shuffle":
                fields = draw(st.permutations(fields))
    return {**schema, "fields": fields}


@settings(patient, max_examples=200)
@given(schemas_and_rows(max_rows=2), st.data())
def test_what_is_called_compatible_another_reader_can_follow(case: Any, data: st.DataObject) -> None:
    """fastavro resolves records of the old version to the new one whenever we say it can."""
    old, rows = case
    new = data.draw(changed(old))
    names = [f["name"] for f in new["fields"]]
    assume(len(set(names)) == len(names))
    try:
        check_compatible("t-value", old, new)
    except IncompatibleSchema:
        return
    encoder = RowEncoder(table(old))
    for row in rows:
        body = io.BytesIO(encoder.value(row)[5:])
        seen = fastavro.schemaless_reader(body, fastavro.parse_schema(old), fastavro.parse_schema(new))
        assert set(seen) == set(names)


@settings(patient, max_examples=50)
@given(schemas_and_rows(max_rows=1))
def test_a_schema_is_compatible_with_itself(case: Any) -> None:
    check_compatible("t-value", case[0], case[0])


# -- keys ------------------------------------------------------------------------------------


def test_key_columns_never_change() -> None:
    value = record(("a", "long"), ("b", "string"), ("c", "int"))
    key = key_schema("t", value, ["a", "b"])
    check_compatible("t-key", key, json.dumps({**key, "doc": "said better"}))
    plain = {"type": "long", "merganser.encoding": "kafka", "merganser.column": "a"}
    check_compatible("t-key", plain, json.dumps(plain))
    for old, new in [
        (key, key_schema("t", value, ["b", "a"])),
        (key, key_schema("t", value, ["a"])),
        (key_schema("t", record(("a", "int")), ["a"]), key_schema("t", record(("a", "long")), ["a"])),
        (plain, {**plain, "type": "int"}),
        (plain, {**plain, "merganser.column": "b"}),
        ('"string"', '"long"'),
        (plain, key),
    ]:
        with pytest.raises(IncompatibleSchema):
            check_compatible("t-key", old, new)


# -- the table's columns ---------------------------------------------------------------------


def test_what_replicas_would_refuse_is_not_admitted() -> None:
    first, second = record(("a", "int"), ("b", "int", {"default": 0})), record(("a", "int"))
    known = Table("t", "i", 1, (version(first), version(second, 2, 8)))
    third = record(("a", "int"), ("b", "string", {"default": ""}))
    check_compatible("t-value", second, third)
    with pytest.raises(IncompatibleSchema) as e:
        check_admissible(known, third)
    assert "'b'" in str(e.value)
    assert 3 in layout("t", [*known.values, version(third, 3, 9)], 3).refused
    check_admissible(known, record(("a", "long"), ("b", "long", {"default": 0})))


@pytest.mark.parametrize(
    "new",
    [
        record(("b", "int")),
        record(("id2", "long", {"aliases": ["id"]}), ("b", "int")),
        record(("id", ["null", "long"]), ("b", "int")),
    ],
)
def test_a_key_column_stays(new: Any) -> None:
    keyed = table(record(("id", "long"), ("b", "int")), ["id"])
    with pytest.raises(IncompatibleSchema) as e:
        check_admissible(keyed, new)
    assert "id" in str(e.value)


def test_a_schema_that_no_replica_can_keep_is_refused_first() -> None:
    with pytest.raises(BadSchema):
        check_compatible("t-value", of("int"), of(["int", "string"]))
    with pytest.raises(IncompatibleSchema, match="cannot be judged"):
        check_compatible("t-value", of(["int", "string"]), of("int"))
    with pytest.raises(BadSchema):
        check_admissible(table(of("int")), of(["int", "string"]))


def test_equal_rows_compare_equal_whatever_floats_they_hold() -> None:
    """The tests' own ruler."""
    assert comparable({"a": [float("nan"), 0.0]}) == comparable({"a": [float("nan"), 0.0]})
    assert comparable(0.0) != comparable(-0.0)
    assert named(of({"type": "fixed", "name": "?", "size": 1}))["fields"][0]["type"]["name"] == "n0"
