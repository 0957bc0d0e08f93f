from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_tables import record, table, version

from merganser.schemas.avro import key_fields
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.layout import Layout, Step, conform, join, layout, migrate
from merganser.schemas.table import SchemaVersion, Table
from merganser.schemas.types import Field, Type, quote
from support.avro_strategies import named, patient, rows_of


def versions(*schemas: Any) -> list[SchemaVersion]:
    return [version(schema, number=i, id=100 + i) for i, schema in enumerate(schemas, 1)]


def columns(laid: Layout) -> list[tuple[str, str]]:
    return [(c.name, c.sql) for c in laid.columns]


def field(name: str, type_: Any, *aliases: str) -> tuple[str, Any, dict[str, Any]]:
    return name, type_, {"aliases": list(aliases)}


# -- the rules, one by one -------------------------------------------------------------------


def test_a_renamed_field_keeps_its_column() -> None:
    known = versions(record(("a", "int"), ("b", "int")), record(field("x", "long", "a"), ("b", "int")))
    laid = layout("t", known, 2)
    assert columns(laid) == [("x", "BIGINT"), ("b", "INTEGER")]
    assert laid.places == {1: {"a": 0, "b": 1}, 2: {"x": 0, "b": 1}}


def test_a_dropped_field_keeps_its_column_and_goes_on_in_it_when_it_returns() -> None:
    known = versions(record(("a", "int"), ("b", "int")), record(("b", "int")), record(("a", "long"), ("b", "int")))
    assert columns(layout("t", known, 2)) == [("a", "INTEGER"), ("b", "INTEGER")]
    assert layout("t", known, 3).places[3] == {"a": 0, "b": 1}


def test_a_dropped_field_returning_with_a_type_that_does_not_join_is_refused() -> None:
    known = versions(record(("a", "int"), ("b", "int")), record(("b", "int")), record(("a", "string"), ("b", "int")))
    laid = layout("t", known, 3)
    assert list(laid.refused) == [3] and "'a'" in laid.refused[3]
    assert laid.columns == layout("t", known, 2).columns


def test_a_refused_version_changes_nothing_for_those_after_it() -> None:
    known = versions(record(("a", "int")), record(("a", "string"), ("n", "int")), record(("a", "long"), ("m", "int")))
    assert columns(layout("t", known, 3)) == [("a", "BIGINT"), ("m", "INTEGER")]


def test_an_alias_of_a_column_that_goes_on_by_name_makes_a_new_column() -> None:
    known = versions(record(("a", "int")), record(("a", "int"), field("b", "int", "a")))
    assert columns(layout("t", known, 2)) == [("a", "INTEGER"), ("b", "INTEGER")]


def test_an_alias_finds_a_column_by_a_former_name() -> None:
    renamed = record(field("b", "int", "a"))
    known = versions(record(("a", "int")), renamed, renamed, record(field("c", "int", "a")))
    laid = layout("t", known, 4)
    assert columns(laid) == [("c", "INTEGER")]
    assert laid.columns[0].former == ("a", "b")


def test_a_freed_name_is_a_new_column() -> None:
    known = versions(record(("a", "int")), record(field("b", "int", "a")), record(("a", "string"), ("b", "int")))
    assert columns(layout("t", known, 3)) == [("b", "INTEGER"), ("a", "VARCHAR")]


def test_names_that_differ_by_case_only_are_refused_across_versions() -> None:
    laid = layout("t", versions(record(("qty", "int")), record(("Qty", "int"))), 2)
    assert "differ by case" in laid.refused[2]


def test_a_version_without_sql_types_is_refused_and_the_others_stand() -> None:
    known = versions(record(("a", "int")), record(("a", ["int", "string"])), record(("a", "int"), ("b", "int")))
    laid = layout("t", known, 3)
    assert list(laid.refused) == [2] and columns(laid) == [("a", "INTEGER"), ("b", "INTEGER")]


def test_later_versions_and_their_order_in_the_list_do_not_matter() -> None:
    known = versions(record(("a", "int")), record(("a", "long")), record(("a", "double")))
    assert layout("t", known[::-1], 2) == layout("t", known[:2], 2)


def test_key_columns_are_there_under_their_names_even_if_values_lack_them() -> None:
    keyed = table(record(("id", "long"), ("a", "int")), ["id"])
    bare = Table("t", "i", 1, tuple(versions(record(("a", "int")))), ("id",), "avro", keyed.key_schema)
    laid = layout("t", bare.values, 1, key_fields(bare))
    assert columns(laid) == [("a", "INTEGER"), ("id", "BIGINT")]
    rows = pa.table({"a": pa.array([1], pa.int32())})
    assert conform(rows, laid, 1).to_pylist() == [{"a": 1, "id": None}]
    with_key = rows.append_column("id", pa.array([7]))
    assert conform(with_key, laid, 1).to_pylist() == [{"a": 1, "id": 7}]
    renamed = versions(record(("id", "long")), record(field("number", "long", "id")))
    assert columns(layout("t", renamed, 2, key_fields(keyed))) == [("id", "BIGINT"), ("number", "BIGINT")]


# -- joins -----------------------------------------------------------------------------------


def point(axis: str, *more: Any) -> dict[str, Any]:
    return {**record((axis, "int"), *more), "name": "point"}


@pytest.mark.parametrize(
    ("a", "b", "sql"),
    [
        ("int", "long", "BIGINT"),
        ("int", "float", "DOUBLE"),
        ("long", "float", "DOUBLE"),
        ("float", "double", "DOUBLE"),
        ("int", ["null", "int"], "INTEGER"),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, "string", "VARCHAR"),
        ({"type": "fixed", "name": "f", "size": 3}, "bytes", "BLOB"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, "DOUBLE[]"),
        (point("x"), point("y", ("x", "long")), 'STRUCT("y" INTEGER, "x" BIGINT)'),
        ("string", "bytes", None),
        ("int", "string", None),
        ("boolean", "int", None),
        ("long", {"type": "long", "logicalType": "timestamp-micros"}, None),
        ({"type": "array", "items": "int"}, "int", None),
        (point("x"), point("X"), None),
    ],
)
def test_types_join_or_are_refused(a: Any, b: Any, sql: str | None) -> None:
    for first, second in ((a, b), (b, a)):
        laid = layout("t", versions(record(("c", first)), record(("c", second))), 2)
        if sql is None:
            assert list(laid.refused) == [2]
        else:
            assert sorted(laid.columns[0].sql.replace(",", "")) == sorted(sql.replace(",", ""))


def decimal(precision: int, scale: int) -> Type:
    return Type("decimal", precision=precision, scale=scale)


def test_decimals_keep_all_digits_or_are_refused() -> None:
    assert join(decimal(5, 2), decimal(6, 4)) == decimal(7, 4)
    with pytest.raises(ValueError, match="39 digits"):
        join(decimal(38, 0), decimal(2, 1))


SIMPLE = [Type(k) for k in ("int", "long", "float", "double", "string", "bytes", "boolean", "date", "enum", "fixed")]
SIMPLE += [decimal(5, 2), decimal(38, 0), decimal(38, 38), Type("timestamp-millis"), Type("timestamp-micros")]
TYPES = st.recursive(
    st.sampled_from(SIMPLE),
    lambda inner: (
        inner.map(lambda t: Type("array", item=t))
        | inner.map(lambda t: Type("map", item=t))
        | st.dictionaries(st.sampled_from("ab"), inner, min_size=1).map(
            lambda d: Type("record", fields=tuple(Field(n, t) for n, t in d.items()))
        )
    ),
    max_leaves=4,
)


def joined(types: Sequence[Type]) -> Any:
    found = types[0]
    try:
        for t in types[1:]:
            found = join(found, t)
    except ValueError:
        return None
    return _by_name(join(found, found))


def _by_name(type_: Type) -> Any:
    """A type without the order of its record fields, which is that of their arrival."""
    inner = _by_name(type_.item) if type_.item else None
    return type_.kind, type_.precision, type_.scale, inner, frozenset((f.name, _by_name(f.type)) for f in type_.fields)


@given(st.lists(TYPES, min_size=2, max_size=4) | st.lists(st.sampled_from(SIMPLE), min_size=2, max_size=4))
def test_joins_do_not_depend_on_the_order(types: list[Type]) -> None:
    assert len({joined(order) for order in itertools.permutations(types)}) == 1


# -- histories -------------------------------------------------------------------------------

FIELD_TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("int", st.integers(-9, 9)),
    ("long", st.sampled_from([2**53 + 1, -(2**62) - 1, 3])),
    ("float", st.sampled_from([0.1, -0.0, float("nan"), 16777217.0])),
    ("double", st.sampled_from([0.1, 1e300])),
    (["null", "int"], st.none() | st.integers(-9, 9)),
    ("string", st.text("ab", max_size=3)),
    ({"type": "enum", "name": "?", "symbols": ["A", "B"]}, st.sampled_from("AB")),
    ({"type": "array", "items": ["null", "int"]}, st.lists(st.none() | st.integers(0, 9), max_size=3)),
    ({"type": "array", "items": "float"}, st.lists(st.sampled_from([0.5, 0.1]), max_size=3)),
    ({"type": "map", "values": "long"}, st.dictionaries(st.sampled_from("ab"), st.sampled_from([2**53 + 1, 0]))),
    (["null", record(("x", "int"))], st.none() | st.fixed_dictionaries({"x": st.integers(0, 9)})),
    (record(("y", "string"), ("x", "double")), st.fixed_dictionaries({"y": st.just("y"), "x": st.just(0.25)})),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
        st.integers(-999, 999).map(lambda i: Decimal(i)),
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 4},
        st.integers(-999, 999).map(lambda i: Decimal(i)),
    ),
]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[SchemaVersion], list[tuple[int, Any]]]:
    """Versions that grow, shrink, rename and retype, and rows written by them, in log order."""
    fields: dict[str, Any] = {n: (draw(st.sampled_from(FIELD_TYPES)), []) for n in draw(st.sets(NAMES, min_size=1))}
    schemas, values = [], []
    for _ in range(draw(st.integers(2, 5))):
        made = record(*(field(n, _renamed(t), *aliases) for n, ((t, _), aliases) in fields.items()))
        schemas.append(named(made))
        values.append(st.fixed_dictionaries({n: strategy for n, ((_, strategy), _) in fields.items()}))
        for _ in range(draw(st.integers(1, 3))):
            fields = draw(_changed(fields))
    known = versions(*schemas)
    rows = draw(st.lists(st.integers(0, len(known) - 1), min_size=1, max_size=8))
    return known, [(i + 1, draw(values[i])) for i in rows]


NAMES = st.sampled_from("abcde")


@st.composite
def _changed(draw: st.DrawFn, fields: dict[str, Any]) -> dict[str, Any]:
    """One change: a field renamed with an alias, dropped, retyped, or one more."""
    old, name = draw(st.sampled_from(sorted(fields))), draw(NAMES)
    rest = {n: f for n, f in fields.items() if n != old}
    match draw(st.sampled_from(["rename", "drop", "retype", "add"])):
        case "rename" if name not in fields:
            return {**rest, name: (fields[old][0], [old, *fields[old][1]])}
        case "drop" if rest:
            return rest
        case "retype":
            return {**fields, old: (draw(st.sampled_from(FIELD_TYPES)), fields[old][1])}
    return {name: (draw(st.sampled_from(FIELD_TYPES)), []), **fields}


def _renamed(part: Any) -> Any:
    if isinstance(part, list):
        return [_renamed(p) for p in part]
    return {**part, "name": "?"} if isinstance(part, dict) and "name" in part else part


def _decoded(known: list[SchemaVersion], number: int, row: Any) -> pa.Table:
    wrote = known[number - 1]
    encoder = RowEncoder(Table("t", "i", 1, (wrote,)))
    return Decoder(wrote, "t").decode([encoder.value(row)]).rows


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def _create(con: duckdb.DuckDBPyConnection, name: str, laid: Layout) -> None:
    definitions = [f"{quote(c.name)} {c.sql}" for c in laid.columns] + ["_offset BIGINT"]
    con.execute(f"CREATE OR REPLACE TABLE {name} ({', '.join(definitions)})")


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, offset: int) -> None:
    names = ", ".join(quote(n) for n in [*rows.column_names, "_offset"])
    con.register("arrived", rows.append_column("_offset", pa.array([offset])))
    con.execute(f"INSERT INTO {name} ({names}) SELECT * FROM arrived")
    con.unregister("arrived")


def _alter(con: duckdb.DuckDBPyConnection, name: str, steps: Sequence[Step]) -> None:
    con.execute("BEGIN")
    for step in steps:
        con.execute(step.sql(name))
    con.execute("COMMIT")


def _state(con: duckdb.DuckDBPyConnection, name: str) -> tuple[Any, Any]:
    shape = con.sql(f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{name}'").fetchall()
    names = ", ".join(quote(n) for n in sorted(n for n, _ in shape))
    return sorted(shape), rows_of(con.sql(f"SELECT {names} FROM {name} ORDER BY _offset").to_arrow_table())


@settings(patient, max_examples=50)
@given(history=histories())
def test_a_store_that_migrates_row_by_row_equals_one_made_at_the_end(
    con: duckdb.DuckDBPyConnection, history: Any
) -> None:
    """What an old replica and a new one have is the same, whenever each met which version."""
    known, log = history
    seen = 0
    _create(con, "old", layout("t", known, 0))
    for offset, (number, row) in enumerate(log):
        if number > seen:
            _alter(con, "old", migrate(layout("t", known, seen), layout("t", known, number)))
            seen = number
        laid = layout("t", known, seen)
        if number not in laid.refused:
            _insert(con, "old", conform(_decoded(known, number, row), laid, number), offset)
    final = layout("t", known, seen)
    _create(con, "new", final)
    for offset, (number, row) in enumerate(log):
        if number not in final.refused:
            _insert(con, "new", conform(_decoded(known, number, row), final, number), offset)
    assert _state(con, "old") == _state(con, "new")


@settings(patient, max_examples=60)
@given(histories(), st.randoms(use_true_random=False))
def test_rows_conform_alike_whatever_order_they_came_in(history: Any, random: Any) -> None:
    known, log = history
    laid = layout("t", known, len(known))
    pieces = [conform(_decoded(known, n, row), laid, n) for n, row in log if n not in laid.refused]
    for piece in pieces:
        assert piece.schema == pieces[0].schema
    together = []
    for number in {n for n, _ in log} - set(laid.refused):
        mine = [i for i, (n, _) in enumerate(log) if n == number]
        random.shuffle(mine)
        rows = pa.concat_tables([_decoded(known, number, log[i][1]) for i in mine])
        together += zip(mine, rows_of(conform(rows, laid, number)), strict=True)
    assert [row for _, row in sorted(together, key=lambda pair: pair[0])] == [rows_of(p)[0] for p in pieces]


def test_a_plan_can_run_again_after_a_rollback(con: duckdb.DuckDBPyConnection) -> None:
    known = versions(record(("a", "int")), record(field("b", "long", "a")), record(("a", "string"), ("c", "int")))
    steps = migrate(layout("t", known, 1), layout("t", known, 3))
    _create(con, "t", layout("t", known, 1))
    for end in ("ROLLBACK", "COMMIT"):
        con.execute("BEGIN")
        for step in steps:
            con.execute(step.sql("t"))
        con.execute(end)
    assert [name for name, _ in _state(con, "t")[0]] == ["_offset", "a", "b", "c"]


def test_a_long_rounds_alike_before_and_after_its_column_became_a_double(con: duckdb.DuckDBPyConnection) -> None:
    known = versions(record(("a", "long")), record(field("b", "double", "a")))
    rows = _decoded(known, 1, {"a": 2**53 + 1})
    _create(con, "old", layout("t", known, 1))
    _insert(con, "old", conform(rows, layout("t", known, 1), 1), 0)
    _alter(con, "old", migrate(layout("t", known, 1), layout("t", known, 2)))
    _create(con, "new", layout("t", known, 2))
    _insert(con, "new", conform(rows, layout("t", known, 2), 1), 0)
    assert con.sql("SELECT b FROM new").fetchall() == con.sql("SELECT b FROM old").fetchall() == [(2.0**53,)]


def test_no_plan_leads_back() -> None:
    known = versions(record(("a", "int")), record(("a", "long")))
    with pytest.raises(ValueError, match="later"):
        migrate(layout("t", known, 2), layout("t", known, 1))
