"""Whole columns are written as rows are, or not at all."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_tables import version

from merganser.schemas.avro import row_type
from merganser.schemas.columnwriter import ColumnWriter, supported
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.table import Table
from support.avro_strategies import SCALARS, named, patient

WRITABLE = [
    (type_, values)
    for type_, values in SCALARS
    if supported(row_type("t", named({"type": "record", "name": "?", "fields": [{"name": "a", "type": type_}]})))
]


@st.composite
def flat(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A schema of columns that are written whole, and rows that fit."""
    fields, columns = [], {}
    for i in range(draw(st.integers(1, 4))):
        type_, values = draw(st.sampled_from(WRITABLE))
        null = draw(st.sampled_from([None, 0, 1]))
        if null is not None:
            type_, values = (["null", type_] if null == 0 else [type_, "null"]), st.none() | values
        fields.append({"name": f"c{i}", "type": type_})
        columns[f"c{i}"] = values
    schema = named({"type": "record", "name": "?", "fields": fields})
    return schema, draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=6))


def test_most_types_are_written_whole() -> None:
    assert len(WRITABLE) >= 15


@given(flat(), st.sampled_from([1, 77, 0x7F800001, 2**31 + 5]))
@patient
def test_columns_have_the_bytes_of_rows(drawn: tuple[Any, list[dict[str, Any]]], id_: int) -> None:
    schema, rows = drawn
    declared = Table("t", "topic-id", 1, (version(schema, id=id_),))
    encoder = RowEncoder(declared)
    expected = [encoder.value(row) for row in rows]
    columns = Decoder(declared.latest, declared.name).decode(expected).rows.combine_chunks().to_batches()[0]
    assert ColumnWriter(row_type("t", schema), id_).values(columns) == expected


def columns_of(type_: Any, array: pa.Array) -> list[bytes] | None:
    schema = named({"type": "record", "name": "?", "fields": [{"name": "a", "type": type_}]})
    return ColumnWriter(row_type("t", schema), 1).values(pa.RecordBatch.from_arrays([array], names=["a"]))


@pytest.mark.parametrize(
    ("type_", "array"),
    [
        ("long", pa.array([1, None])),
        ("int", pa.array([2**31])),
        ("int", pa.array([1])),  # of another Arrow type: whoever made it meant something else
        ({"type": "int", "logicalType": "time-millis"}, pa.array([1001], pa.time64("us"))),
        ({"type": "int", "logicalType": "date"}, pa.array([3_000_000], pa.date32())),
        ({"type": "long", "logicalType": "timestamp-micros"}, pa.array([2**62], pa.timestamp("us", "UTC"))),
        ({"type": "long", "logicalType": "timestamp-nanos"}, pa.array([2**63 - 1], pa.timestamp("ns"))),
        ({"type": "enum", "name": "?", "symbols": ["A"]}, pa.array(["B"])),
        ({"type": "string", "logicalType": "uuid"}, pa.array(["no uuid"])),
        ("string", pa.array([b"\xff"], pa.binary()).view(pa.string())),
    ],
)
def test_what_rows_would_refuse_is_left_to_them(type_: Any, array: pa.Array) -> None:
    assert columns_of(type_, array) is None


def test_no_rows_are_no_values() -> None:
    assert columns_of("long", pa.array([], pa.int64())) == []
