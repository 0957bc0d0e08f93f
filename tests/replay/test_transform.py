"""A transform gets rows and gives rows; where it fails, table, partition and offset are named."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from merganser.pipeline.replay.transform import Function, Transform, counted, load
from merganser.schemas.errors import BadTransform, TransformFailed

TYPES = {"id": "BIGINT", "n": "INTEGER", "when": "TIMESTAMP_NS", "tags": "MAP(VARCHAR, INTEGER)", "u": "UUID"}
AT = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


def rows(*of: dict[str, Any]) -> pa.Table:
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("n", pa.int32()),
            ("when", pa.timestamp("ns")),
            ("tags", pa.map_(pa.string(), pa.int32())),
            ("u", pa.string()),
            ("_partition", pa.int32()),
            ("_offset", pa.int64()),
            ("_timestamp", pa.timestamp("ms", tz="UTC")),
        ]
    )
    filled = [
        {
            "id": i,
            "n": i,
            "when": None,
            "tags": None,
            "u": None,
            "_partition": 2,
            "_offset": 10 + i,
            "_timestamp": AT,
            **r,
        }
        for i, r in enumerate(of)
    ]
    return pa.Table.from_pylist(filled, schema=schema)


def through(function: Function, *of: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    transform = Transform("m:f", function, "orders", TYPES)
    made = transform.apply(rows(*of))
    return [] if made is None else made.to_pylist(), transform.types


def test_a_row_goes_through_as_it_is() -> None:
    given = rows({"when": 1_700_000_000_123_456_789, "tags": [("a", 1)], "u": str(uuid.UUID(int=5))}, {})
    made = Transform("m:f", lambda row: row, "orders", TYPES).apply(given)
    assert made is not None and made.select(given.column_names) == given


def test_dict_list_or_none() -> None:
    def function(row: dict[str, Any]) -> Any:
        return [None, {"id": 9}, [{"id": 1}, {"id": 2}], []][row["id"]]

    made, types = through(function, {}, {}, {}, {})
    assert [(r["id"], r["_partition"], r["_offset"]) for r in made] == [(9, 2, 11), (1, 2, 12), (2, 2, 12)]
    assert types == {"id": "BIGINT"}


def test_where_a_row_comes_from_cannot_be_changed() -> None:
    made, _ = through(lambda row: {"id": 1, "_offset": 99, "_partition": 7}, {})
    assert (made[0]["_offset"], made[0]["_partition"]) == (10, 2)


def test_new_columns_get_the_type_of_their_first_value() -> None:
    values = [True, 1, 1.5, "x", b"x", Decimal("1.5"), dt.date(2026, 1, 1), dt.time(1), AT, AT.replace(tzinfo=None)]
    made, types = through(lambda row: {f"c{i}": v for i, v in enumerate([*values, uuid.UUID(int=1)])}, {})
    expected = ["BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR", "BLOB", "DECIMAL(38, 9)", "DATE", "TIME"]
    expected += ["TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "UUID"]
    assert list(types.values()) == expected
    assert [made[0][f"c{i}"] for i in range(len(values))] == values
    con = duckdb.connect()
    for type_ in types.values():
        con.execute(f"SELECT CAST(NULL AS {type_})")


def test_a_column_without_a_value_yet_waits_for_one() -> None:
    transform = Transform("m:f", lambda row: {"id": row["id"], "x": "late" if row["id"] else None}, "orders", TYPES)
    first = transform.apply(rows({}))
    assert first is not None and "x" not in first.column_names
    second = transform.apply(rows({}, {}))
    assert second is not None and second["x"].to_pylist() == [None, "late"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda row: {"id": 1 // (row["id"] - 1)}, "ZeroDivisionError"),
        (lambda row: [{"id": row["id"]}] if row["id"] != 1 else (7,), "it returned tuple"),
        (lambda row: {"id": "seven" if row["id"] == 1 else 7}, "column 'id' is BIGINT"),
        (lambda row: {"n": 2**40 if row["id"] == 1 else 7}, "column 'n' is INTEGER"),
        (lambda row: {"x": 7 if row["id"] != 1 else "seven"}, "column 'x' is BIGINT"),
        (lambda row: {"x": object() if row["id"] == 1 else None}, "no type that one can have"),
        (lambda row: {"id": 1, **({"ID": 2} if row["id"] == 1 else {})}, "differ in case only"),
        (lambda row: {"N": 1 if row["id"] == 1 else None} if row["id"] else {}, "differ in case only"),
        (lambda row: {7: 7} if row["id"] == 1 else {}, "a column name is text"),
        (lambda row: {"u": "none" if row["id"] == 1 else str(uuid.UUID(int=5))}, "column 'u' is UUID: 'none' is none"),
        (lambda row: {"when": 2**63 - 1 if row["id"] == 1 else 0}, "no time that a column can hold"),
    ],
)
def test_what_fails_is_named_with_its_place(function: Any, why: str) -> None:
    with pytest.raises(TransformFailed) as failed:
        through(function, {}, {}, {})
    assert "orders/2 at offset 11" in str(failed.value) and why in str(failed.value)


ZONE = dt.timezone(dt.timedelta(hours=2))
KEPT: dict[str, pa.DataType] = {
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "MAP OF NANOSECONDS": pa.map_(pa.string(), pa.timestamp("ns")),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    "STRUCT": pa.struct([("a", pa.int32())]),
    "LIST": pa.list_(pa.date32()),
    "MAP": pa.map_(pa.string(), pa.int64()),
}


def put_into(sql: str, value: Any) -> Any:
    """What a column of the table, of that type, has of *value*."""
    given = rows({}).append_column("c", pa.array([None], KEPT[sql]))
    made = Transform("m:f", lambda row: {"c": value}, "orders", {**TYPES, "c": sql}).apply(given)
    assert made is not None
    return made["c"][0].as_py()


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("BIGINT", Decimal("1.5")),
        ("FLOAT", 1e300),
        ("DATE", dt.datetime(2026, 1, 31, 12)),
        ("TIME", dt.time(12, tzinfo=dt.UTC)),
        ("TIMESTAMP_MS", dt.datetime(2026, 1, 31, 12, 0, 0, 1)),
        ("TIMESTAMP", dt.datetime(2026, 1, 31, 12, tzinfo=ZONE)),
        ("TIMESTAMP WITH TIME ZONE", dt.datetime(2026, 1, 31, 12)),
        ("STRUCT", {"a": Decimal("1.5")}),
        ("STRUCT", {"a": 1, "b": 2}),
        ("LIST", [dt.datetime(2026, 1, 31, 12)]),
        ("MAP", {"a": Decimal("1.5")}),
        ("BLOB", "text"),
        ("VARCHAR", b"bytes"),
        ("DOUBLE", True),
        ("FLOAT", True),
    ],
)
def test_no_value_is_cut_to_what_its_column_can_hold(sql: str, value: Any) -> None:
    with pytest.raises(TransformFailed, match="would become"):
        put_into(sql, value)


@pytest.mark.parametrize(
    ("sql", "value", "why"),
    [
        ("MAP", [("a", 1), ("a", 2)], "a key twice"),
        ("MAP", [("a",)], "not enough"),
        ("MAP OF NANOSECONDS", [("a", 2**63 - 1)], "no time that a column can hold"),
    ],
)
def test_a_map_may_come_as_pairs_and_is_looked_at_like_a_dict(sql: str, value: Any, why: str) -> None:
    with pytest.raises(TransformFailed, match=why):
        put_into(sql, value)
    assert put_into(sql, [("a", 1)]) == put_into(sql, {"a": 1})


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("BIGINT", Decimal("2.0")),
        ("BIGINT", None),
        ("FLOAT", 0.5),
        ("FLOAT", float("-inf")),
        ("TIMESTAMP_MS", dt.datetime(1969, 12, 31, 12, 0, 0, 1000)),
        ("TIMESTAMP WITH TIME ZONE", dt.datetime(2026, 1, 31, 12, tzinfo=ZONE)),
        ("STRUCT", {"a": 1}),
        ("LIST", [dt.date(2026, 1, 31), None]),
    ],
)
def test_what_a_column_can_hold_is_taken(sql: str, value: Any) -> None:
    assert put_into(sql, value) == value
    assert math.isclose(put_into("FLOAT", 0.1), 0.1, rel_tol=1e-7) and math.isnan(put_into("FLOAT", math.nan))


_NS = pa.timestamp("ns")
_MAPS = pa.list_(pa.map_(pa.string(), pa.int32()))


@pytest.mark.parametrize(
    ("type_", "stored", "row", "other"),
    [
        (pa.list_(_NS), [1_700_000_000_123_456_789, None], [1_700_000_000_123_456_789, None], [5]),
        (pa.struct([("a", _NS)]), {"a": 1_700_000_000_123_456_789}, {"a": 1_700_000_000_123_456_789}, {"a": 5}),
        (pa.map_(pa.string(), _NS), [("a", 123_456_789)], {"a": 123_456_789}, {"b": 5, "c": None}),
        (_MAPS, [[("a", 1)], None, []], [{"a": 1}, None, {}], [{"ab": 2}]),
        (pa.map_(pa.string(), _MAPS), [("x", [[("a", 1)]])], {"x": [{"a": 1}]}, {"y": [{"b": 2}, {}]}),
    ],
)
def test_what_lies_inside_of_a_value_is_as_it_is_outside(type_: pa.DataType, stored: Any, row: Any, other: Any) -> None:
    """Nanoseconds are numbers, maps are dicts; Python has no such times, so that these tables could not be replayed."""
    given = rows({}).append_column("c", pa.array([stored], counted(type_)).cast(type_))
    seen: list[Any] = []
    for answer in (row, other):

        def function(asked: dict[str, Any], answer: Any = answer) -> dict[str, Any]:
            seen.append(asked["c"])
            return {"c": answer}

        made = Transform("m:f", function, "t", TYPES | {"c": "?"}).apply(given)
        assert made is not None and made["c"].type == type_
        assert made["c"].cast(counted(type_)).to_pylist(maps_as_pydicts="strict") == [answer]
    assert seen == [row, row]


@pytest.mark.parametrize(
    "name", ["", "replay.transforms", "replay.transforms:", ":same", "replay.nothing:same", "replay.transforms:nothing",
             "replay.transforms:NO_FUNCTION"]
)  # fmt: skip
def test_a_name_that_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(BadTransform):
        load(name)


def test_a_function_is_found_by_its_name() -> None:
    assert load("replay.transforms:doubled")({"id": 1, "n": 2}) == {"id": 1, "twice": 4}
