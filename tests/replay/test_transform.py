"""A transform gets rows and gives rows; where it fails, table, partition and offset are named."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from merganser.pipeline.replay.transform import Function, Transform, load
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
    ],
)
def test_what_fails_is_named_with_its_place(function: Any, why: str) -> None:
    with pytest.raises(TransformFailed) as failed:
        through(function, {}, {}, {})
    assert "orders/2 at offset 11" in str(failed.value) and why in str(failed.value)


@pytest.mark.parametrize(
    "name", ["", "replay.transforms", "replay.transforms:", ":same", "replay.nothing:same", "replay.transforms:nothing",
             "replay.transforms:NO_FUNCTION"]
)  # fmt: skip
def test_a_name_that_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(BadTransform):
        load(name)


def test_a_function_is_found_by_its_name() -> None:
    assert load("replay.transforms:doubled")({"id": 1, "n": 2}) == {"id": 1, "twice": 4}
