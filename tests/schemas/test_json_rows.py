"""Rows from JSON are the values that were meant, to the last digit, or a refusal by column."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import InvalidRow
from merganser.schemas.jsonrows import JsonRows, to_json
from merganser.schemas.table import KeyEncoding, SchemaVersion, Table

TYPES: dict[str, Any] = {
    "boolean": "boolean",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "bytes": "bytes",
    "fixed": {"type": "fixed", "name": "f", "size": 2},
    "enum": {"type": "enum", "name": "e", "symbols": ["A", "B"]},
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10},
    "uuid": {"type": "string", "logicalType": "uuid"},
    "date": {"type": "int", "logicalType": "date"},
    "time": {"type": "long", "logicalType": "time-micros"},
    "instant": {"type": "long", "logicalType": "timestamp-micros"},
    "millis": {"type": "long", "logicalType": "timestamp-millis"},
    "nanos": {"type": "long", "logicalType": "timestamp-nanos"},
    "local": {"type": "long", "logicalType": "local-timestamp-micros"},
    "local_nanos": {"type": "long", "logicalType": "local-timestamp-nanos"},
    "array": {"type": "array", "items": {"type": "int", "logicalType": "date"}},
    "map": {"type": "map", "values": ["null", "bytes"]},
    "record": {"type": "record", "name": "r", "fields": [{"name": "x", "type": ["null", "double"]}]},
}


def table(*, key: tuple[str, ...] = (), key_encoding: KeyEncoding = "avro", **columns: Any) -> Table:
    fields = [{"name": name, "type": type_} for name, type_ in columns.items()]
    schema = {"type": "record", "name": "row", "fields": fields}
    key_schema = {"type": "record", "name": "key", "fields": [f for f in fields if f["name"] in key]}
    return Table(
        name="t",
        topic_id="id",
        partitions=1,
        values=(SchemaVersion("t-value", 1, 1, schema),),
        key=key,
        key_encoding=key_encoding,
        key_schema=SchemaVersion("t-key", 1, 2, key_schema) if key and key_encoding == "avro" else None,
    )


def read(kind: str, text: str) -> Any:
    """The column's value, once the encoder has taken it too."""
    one = table(x=["null", TYPES[kind]])
    row = JsonRows(one).row(f'{{"x": {text}}}')
    RowEncoder(one).value(row)
    return row["x"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("double", "0.1", 0.1),
        ("double", "3", 3),
        ("double", '"Infinity"', math.inf),
        ("float", "1e-3", 0.001),
        ("decimal", "12345678901234567890.0123456789", Decimal("12345678901234567890.0123456789")),
        ("decimal", '"0.10"', Decimal("0.10")),
        ("decimal", "7", 7),
        ("bytes", '"AP8="', b"\x00\xff"),
        ("fixed", '"AP8="', b"\x00\xff"),
        ("enum", '"B"', "B"),
        ("uuid", '"12345678-1234-5678-1234-567812345678"', "12345678-1234-5678-1234-567812345678"),
        ("date", '"2026-01-31"', dt.date(2026, 1, 31)),
        ("time", '"23:59:59.999999"', dt.time(23, 59, 59, 999999)),
        ("instant", '"2026-01-31T12:00:00Z"', dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)),
        ("instant", '"2026-01-31T14:00:00.5+02:00"', dt.datetime(2026, 1, 31, 12, 0, 0, 500000, tzinfo=dt.UTC)),
        ("instant", '"2026-01-31 12:00:00.123456000Z"', dt.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=dt.UTC)),
        ("nanos", '"1970-01-01T00:00:01.000000001Z"', 1_000_000_001),
        ("nanos", '"1969-12-31T23:59:59.999999999Z"', -1),
        ("local", '"2026-01-31T12:00:00"', dt.datetime(2026, 1, 31, 12)),
        ("local_nanos", '"1970-01-01T00:00:00.000000007"', 7),
        ("array", '["2026-01-31"]', [dt.date(2026, 1, 31)]),
        ("map", '{"a": "AA==", "b": null}', {"a": b"\x00", "b": None}),
        ("record", '{"x": 0.1}', {"x": 0.1}),
        ("long", "9223372036854775807", 2**63 - 1),
        ("instant", "null", None),
    ],
)
def test_json_stands_for_each_type(kind: str, text: str, value: object) -> None:
    assert read(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("boolean", "1"),
        ("int", "1.0"),
        ("int", '"1"'),
        ("int", "true"),
        ("long", "9223372036854775808"),
        ("double", "1e999"),
        ("double", '"inf"'),
        ("string", "1"),
        ("bytes", '"*"'),
        ("bytes", '"AP8"'),
        ("bytes", "[0]"),
        ("fixed", '"AA=="'),
        ("enum", '"C"'),
        ("decimal", "0.00000000001"),
        ("decimal", '"a"'),
        ("decimal", '"NaN"'),
        ("decimal", '"1_0"'),
        ("decimal", '"\u0663"'),
        ("decimal", "true"),
        ("uuid", '"1234"'),
        ("date", '"31.1.2026"'),
        ("date", "20260131"),
        ("time", '"25:00"'),
        ("instant", '"2026-01-31T12:00:00"'),
        ("instant", '"2026-01-31"'),
        ("instant", "1767225600000"),
        ("instant", '"2026-01-31T12:00:00.1234567Z"'),
        ("millis", '"2026-01-31T12:00:00.1234Z"'),
        ("nanos", '"2026-01-31T12:00:00.0123456789Z"'),
        ("nanos", '"2026-01-31T12:00:00"'),
        ("nanos", "1"),
        ("local", '"2026-01-31T12:00:00Z"'),
        ("local_nanos", '"2026-01-31T12:00:00Z"'),
        ("array", '"2026-01-31"'),
        ("map", "[]"),
        ("record", '{"y": 1}'),
        ("record", "[]"),
    ],
)
def test_what_does_not_fit_is_refused_by_column(kind: str, text: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        read(kind, text)
    assert caught.value.column.startswith("x")


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        *((kind, "2026-01-31T12:00:00", "end it with Z or +hh:mm") for kind in ("instant", "millis", "nanos")),
        *((kind, "2026-01-31T12:00:00Z", "has no zone") for kind in ("local", "local_nanos")),
    ],
)
def test_a_wrong_zone_is_told_in_the_words_of_the_text(kind: str, text: str, why: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        read(kind, json.dumps(text))
    assert repr(text) in str(caught.value) and why in str(caught.value)
    assert "datetime" not in str(caught.value)  # text was given, not Python


def test_the_place_inside_a_value_is_named() -> None:
    with pytest.raises(InvalidRow) as caught:
        read("array", '["2026-01-31", "x"]')
    assert caught.value.column == "x[1]"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27))
def test_no_digit_of_a_decimal_is_lost(value: Decimal) -> None:
    assert read("decimal", f"{value:f}") == value
    assert read("decimal", json.dumps(to_json(value))) == value


@given(st.floats())
def test_a_double_comes_back_bit_by_bit(value: float) -> None:
    found = read("double", json.dumps(to_json(value)))
    assert (
        math.isnan(found)
        if math.isnan(value)
        else (found, math.copysign(1, found))
        == (
            value,
            math.copysign(1, value),
        )
    )


@given(
    st.fixed_dictionaries(
        {
            "instant": st.datetimes(timezones=st.just(dt.UTC), min_value=dt.datetime(1, 1, 2)),
            "date": st.dates(),
            "time": st.times(),
            "bytes": st.binary(),
            "uuid": st.uuids(),
            "string": st.text(),
            "map": st.dictionaries(st.text(), st.none() | st.binary()),
        }
    )
)
def test_what_a_query_writes_put_reads_as_the_same(row: dict[str, Any]) -> None:
    columns = {name: TYPES[name] for name in row}
    found = JsonRows(table(**columns)).row(json.dumps({name: to_json(value) for name, value in row.items()}))
    assert {**found, "uuid": uuid.UUID(found["uuid"])} == row


def test_bytes_are_base64() -> None:
    assert to_json(b"\xff\x00") == base64.b64encode(b"\xff\x00").decode()


# -- keys --------------------------------------------------------------------------------------


def test_a_key_of_two_columns_is_spelled_whole() -> None:
    rows = JsonRows(table(a="long", b="string", c="string", key=("a", "b")))
    assert rows.key(["a=1", "b=x=y"]) == [{"a": 1, "b": "x=y"}]
    assert rows.key(['{"a": 1, "b": "x"}', '{"b": "y", "a": 2}']) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    with pytest.raises(InvalidRow, match="a=… b=…"):
        rows.key(["1", "x"])


def test_no_key_of_several_is_lost() -> None:
    rows = JsonRows(table(id="long", key=("id",)))
    assert rows.key(["id=1", "id=2"]) == rows.key(["id=1", "2"]) == [{"id": 1}, {"id": 2}]
    assert JsonRows(table(sku="string", key=("sku",))).key(["sku=a", "b"]) == [{"sku": "a"}, {"sku": "b"}]
    with pytest.raises(InvalidRow, match="'a' comes twice"):
        JsonRows(table(a="long", b="long", key=("a", "b"))).key(["a=1", "b=1", "a=2", "b=2"])


def test_text_needs_no_quotes_on_the_command_line() -> None:
    rows = JsonRows(table(day={"type": "int", "logicalType": "date"}, key=("day",)))
    assert rows.key(["2026-01-31"]) == rows.key(["day=2026-01-31"]) == [{"day": dt.date(2026, 1, 31)}]
    assert JsonRows(table(sku="string", key=("sku",))).key(["7", "a=b"]) == [{"sku": "7"}, {"sku": "a=b"}]


@pytest.mark.parametrize(("encoding", "word", "value"), [("string", "7", "7"), ("int", "7", 7), ("long", "7", 7)])
def test_a_plain_key_has_the_type_of_its_serializer(encoding: KeyEncoding, word: str, value: object) -> None:
    assert JsonRows(table(other="string", key=("id",), key_encoding=encoding)).key([word]) == [{"id": value}]


@pytest.mark.parametrize("number", ["1e9999999999999999999", "1e-9999999999999999999", "9" * 5000])
def test_a_number_that_nothing_holds_is_no_row(number: str) -> None:
    with pytest.raises(ValueError):
        JsonRows(table(x="double")).row(f'{{"x": {number}}}')
