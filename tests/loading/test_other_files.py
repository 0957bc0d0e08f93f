"""JSON lines and Parquet: whole columns and single rows are two ways to the same end."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_tables import bad, encoded, record, table, values

from merganser.schemas.errors import BadInput

LOGICAL = {"date": "int", "time-millis": "int"}
ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
KINDS: list[Any] = [
    *("boolean", "int", "long", "float", "double", "string"),
    *(
        {"type": LOGICAL.get(kind, "long"), "logicalType": kind}
        for kind in ("date", "time-millis", "time-micros", "timestamp-millis", "local-timestamp-micros")
    ),
    {"type": "string", "logicalType": "uuid"},
    ENUM,
]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.integers(-3, 3)
    | st.floats().map(lambda f: f if f == f and abs(f) != float("inf") else str(f))
    | st.sampled_from(["", "A", "2026-01-31", "12:00:00", "2026-01-31T12:00:00Z", "2026-01-31 12:00:00"])
    | st.sampled_from(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "NaN", "\ud800"])
)


def both_ways(data: bytes, type_: Any, format_: str) -> None:
    again = "e" if type_ == ENUM else type_
    declared = table(record(("a", type_), ("b", ["null", again], {"default": None})))
    ways = [encoded(data, declared, format_, by_columns=way) for way in (True, False)]
    assert values(ways[0]) == values(ways[1])
    assert bad(ways[0]) == bad(ways[1])


@given(st.sampled_from(KINDS), st.lists(st.tuples(SCALARS, SCALARS), min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=300)
def test_json_is_read_alike_in_both_ways(type_: Any, rows: list[tuple[Any, Any]], short: bool) -> None:
    lines = [json.dumps({"a": a} if short else {"a": a, "b": b}) for a, b in rows]
    both_ways("\n".join(lines).encode(), type_, "json")


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"a": 1, "a": 2, "b": 3}', b'{"a": 1, "b": 2, "c": 3}', b'{"a": 1e0, "b": 1.0}', b'{"a": 1.00, "b": 1}'),
        *(b'{"a": NaN, "b": 1}', b'{"a": 1, "b": \xff}', b"[1]", b'"a"', b"1 2", b'{"a": 1', b'\xef\xbb\xbf{"a": 1}'),
        *(b'{"a": 9007199254740993}', b'{"a": 16777217}', b'{"a": 1e400}', b'{"a": 1e39}', b'{"a": -0.0}'),
    ],
)
@pytest.mark.parametrize("type_", ["long", "float", "double", "string"])
def test_odd_lines_are_taken_or_refused_alike(line: bytes, type_: Any) -> None:
    both_ways(line + b"\n" + b'{"a": 5}\n', type_, "json")
    both_ways(b'{"a": 5}\n\n' + line, type_, "json")


ARROW: list[pa.Array] = [
    pa.array([1, -1, 2**40], pa.int64()),
    pa.array([1, None], pa.int8()),
    pa.array([2**63, 5], pa.uint64()),
    pa.array([1.5, float("nan"), 3.4028236e38]),
    pa.array([1.5, None], pa.float32()),
    pa.array(["A", "B", None]),
    pa.array(["A", "C"], pa.large_string()),
    pa.array(["A", "A"]).dictionary_encode(),
    pa.array([True, None]),
    pa.array([0, 1, 86_399], pa.time32("s")),
    pa.array([0, 1001], pa.time64("us")),
    pa.array([0, 1_000_001], pa.time64("ns")),
    pa.array([0, 1001], pa.timestamp("us", "UTC")),
    pa.array([0, 1001], pa.timestamp("us")),
    pa.array([0, 1001], pa.timestamp("ns", "Europe/Berlin")),
    pa.array([0, 2**45], pa.timestamp("s")),
    pa.array([0, 20_000, 3_000_000], pa.date32()),
    pa.array([0, 86_400_000], pa.date64()),
    pa.array([Decimal("1.25"), None], pa.decimal128(9, 2)),
    pa.array([b"x", b"\xff"]),
    pa.array([b"x" * 16, None], pa.binary(16)),
    pa.array([[1], None]),
]


@pytest.mark.parametrize("array", ARROW, ids=lambda a: str(a.type))
def test_parquet_is_read_alike_in_both_ways(array: pa.Array) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": array, "b": array}), out)
    nanos = {"type": "long", "logicalType": "timestamp-nanos"}
    for type_ in [*KINDS, nanos, "bytes", {"type": "array", "items": "long"}]:
        both_ways(out.getvalue(), type_, "parquet")


def test_parquet_rows_are_counted_for_what_is_bad() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array([1, 2, 2**40, 4])}), out, row_group_size=2)
    parts = encoded(out.getvalue(), table(record(("a", "int"))), "parquet")
    assert [line for line, _ in bad(parts)] == [3] and len(values(parts)) == 3


def test_a_broken_parquet_file_is_refused() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(range(100_000))}), out)
    data = bytearray(out.getvalue())
    data[1000:1100] = b"x" * 100
    with pytest.raises(BadInput, match="broken Parquet"):
        encoded(bytes(data), table(record(("a", "long"))), "parquet")


TIME = {"type": "long", "logicalType": "time-micros"}
CLOCK = {"type": "int", "logicalType": "time-millis"}
COUNTS = {"type": "map", "values": "long"}
TWICE = pa.array([[("a", 1), ("a", 2)], [("b", 1)], None], pa.map_(pa.string(), pa.int64()))


@pytest.mark.parametrize(
    ("array", "type_"),
    [
        (pa.array([1], pa.time64("ns")), TIME),
        (pa.array([86_400_000_000], pa.time64("us")), TIME),  # DuckDB's 24:00:00
        (pa.array([-1], pa.time64("us")), TIME),
        (pa.array([86_400], pa.time32("s")), CLOCK),
        (pa.array([[86_400_000]], pa.list_(pa.time32("ms"))), {"type": "array", "items": CLOCK}),
        (pa.array([[86_400_000]], pa.list_(pa.time32("ms"), 1)), {"type": "array", "items": CLOCK}),
        (pa.array([10_000_000], pa.date32()), {"type": "int", "logicalType": "date"}),
    ],
)
def test_a_time_that_no_row_can_have_is_no_other_time(array: pa.Array, type_: Any) -> None:
    found = parquet_both_ways(array, ["null", type_])
    assert [line for line, _ in bad(found)] == [1] and not values(found)


def test_a_map_with_a_key_twice_is_a_bad_row_and_the_others_are_taken() -> None:
    found = parquet_both_ways(TWICE, ["null", COUNTS])
    assert bad(found) == [(1, "column 'a', value 'a map that has a key twice': not a mapping of text to values")]
    assert len(values(found)) == 2
    inside = {"type": "record", "name": "r", "fields": [{"name": "m", "type": ["null", COUNTS]}]}
    found = parquet_both_ways(pa.StructArray.from_arrays([TWICE], ["m"]), ["null", inside])
    assert [line for line, _ in bad(found)] == [1] and len(values(found)) == 2


def parquet_both_ways(array: pa.Array, type_: Any) -> list[Any]:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": array}), out)
    declared = table(record(("a", type_, {"default": None})))
    ways = [encoded(out.getvalue(), declared, "parquet", by_columns=way) for way in (True, False)]
    assert values(ways[0]) == values(ways[1]) and bad(ways[0]) == bad(ways[1])
    return ways[0]
