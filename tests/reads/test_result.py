"""What a query's rows are in Python, whatever they are nested in; DuckDB's own fetchall is the oracle."""

from __future__ import annotations

import datetime as dt
from typing import Any

import duckdb
import pytest

from merganser.consumers.reads import Reading, parse, run
from merganser.consumers.result import converter
from merganser.schemas.position import Position

_UUID = "uuid '5b6f7a9e-0000-4000-8000-0123456789ab'"
_NANOS = "timestamp_ns '2026-01-31 12:34:56.789012345'"


def rows(sql: str) -> list[tuple[Any, ...]]:
    con = duckdb.connect()
    return run(Reading(con, Position(), Position()), parse(sql), None).rows()


@pytest.mark.parametrize(
    "value",
    [
        "MAP {'a': 1}",
        "[MAP {'a': 1, 'b': 2}, NULL, MAP {}]",
        "[MAP {'a': 1, 'b': 2}, MAP {'c': 3, 'd': 4}]",
        "[[MAP {'a': 1}]]",
        "MAP {'a': MAP {'b': 1}}",
        "{'m': MAP {'a': [MAP {'b': 1}]}}",
        f"[{_UUID}, NULL]",
        f"MAP {{'a': {_UUID}}}",
        f"MAP {{{_UUID}: 1}}",
        f"{{'u': {_UUID}, 'n': 1, 'none': NULL::UUID}}",
        f"{{'a b': 1, 'x,(\"y': MAP {{'k)': [{_UUID}]}}, 'e': 'q'::ENUM('q', 'UUID,('')')}}",
        "[170141183460469231731687303715884105727::HUGEINT]",
        "[340282366920938463463374607431768211455::UHUGEINT, 7]",
        "{'h': 1::HUGEINT, 'd': 1.5::DECIMAL(10, 2)}",
        "NULL::STRUCT(u UUID)",
        "NULL::MAP(VARCHAR, UUID)",
        _NANOS,
        f"[{_NANOS}, NULL]",
        f"{{'t': {_NANOS}, 'm': MAP {{'k': [{_NANOS}]}}}}",
        "[[1], NULL, []]",
        "[-0.0::DOUBLE, 'infinity'::DOUBLE]",
        "['\\x00\\xff'::BLOB]",
    ],
)
def test_nested_values_are_those_of_duckdb(value: str) -> None:
    expected = duckdb.connect().sql(f"SELECT {value} AS a, 1 AS b").fetchall()
    assert repr(rows(f"SELECT {value} AS a, 1 AS b")) == repr(expected)


def test_nested_nanoseconds_are_no_pandas_values() -> None:
    at = dt.datetime(2026, 1, 31, 12, 34, 56, 789012)
    [(found,)] = rows(f"SELECT [{_NANOS}]")
    assert found == [at] and type(found[0]) is dt.datetime


def test_a_struct_without_names_is_left_as_it_is() -> None:
    """Its type reads `STRUCT(INTEGER, MAP(VARCHAR, UUID))`: no field is called by the beginning of a type."""
    convert = converter("STRUCT(INTEGER, MAP(VARCHAR, MAP(VARCHAR, UUID)))[]")
    assert convert is not None and convert([{"": 1}, None]) == [{"": 1}, None]


def test_a_result_says_what_it_is() -> None:
    con = duckdb.connect()
    result = run(Reading(con, Position(), Position()), parse("SELECT 1 AS a, 2 AS b"), None)
    assert repr(result) == "<Result: 1 row of a, b>"
