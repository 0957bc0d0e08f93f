"""Sorting and deduplication, against the same in Python."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_tables import bad, encoded, record, table, values

from merganser.pipeline.loading.arrange import arranged
from merganser.pipeline.loading.encoding import Encoded
from merganser.pipeline.loading.load import ImportOptions
from merganser.schemas.decode import Decoder
from merganser.schemas.errors import UsageError

Row = tuple[int, int | None]


ROWS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(-3, 3)), max_size=9)


@given(st.lists(st.lists(ROWS, max_size=3), min_size=3, max_size=3))
@settings(deadline=None, max_examples=6)  # each begins DuckDB three times
def test_the_last_row_of_each_key_in_a_total_order(files: list[list[list[Row]]]) -> None:
    for pieces, (dedupe, sort) in zip(files, ((True, False), (False, True), (True, True)), strict=True):
        rows = [row for piece in pieces for row in piece]
        made, taken = [], 0
        for piece in pieces:
            at = range(taken, taken + len(piece))
            taken += len(piece)
            keys = [str(key).encode() for key, _ in piece]
            by = pa.array([by for _, by in piece], pa.int64())
            made.append(Encoded(taken, at, keys, [str(i).encode() for i in at], sort=by))
        expected = list(enumerate(rows))
        if dedupe:
            expected = [(i, row) for i, row in expected if all(key != row[0] for key, _ in rows[i + 1 :])]
        if sort:
            expected.sort(key=lambda each: (each[1][1] is not None, each[1][1] or 0, each[0]))
        found = list(arranged(iter(made), dedupe=dedupe, sort=sort))
        assert values(found) == [str(i).encode() for i, _ in expected]
        assert [key for part in found for key in part.keys or ()] == [str(row[0]).encode() for _, row in expected]
        assert [n for part in found for n in part.at] == list(range(len(expected)))


def test_rows_of_a_file_are_sorted_by_value_not_by_text() -> None:
    declared = table(record(("id", "long"), ("name", "string")), ["id"])
    data = b"id,name\n10,a\n9,b\nx,bad\n-1,c\n9,d\n"
    parts = encoded(data, declared, sort="id")
    assert [line for line, _ in bad(parts)] == [4]
    found = values(list(arranged(iter(parts), dedupe=True, sort=True)))
    rows = Decoder(declared.latest, "t").decode(found).rows
    assert rows.to_pydict() == {"id": [-1, 9, 10], "name": ["c", "d", "a"]}


SORTABLE: list[Any] = [
    "boolean", "int", "double", "float", "string", "bytes",
    {"type": "long", "logicalType": "timestamp-nanos"}, {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
]  # fmt: skip
TEXTS = {
    "boolean": "true", "string": "x", "bytes": "AAE=", "int": "1", "double": "1.5", "float": "1.5", "uuid":
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "timestamp-nanos": "2026-01-01T00:00:00Z", "decimal": "1.25",
}  # fmt: skip


@pytest.mark.parametrize("type_", SORTABLE, ids=str)
def test_both_ways_to_read_a_column_can_be_sorted_by_it(type_: Any) -> None:
    name = type_ if isinstance(type_, str) else type_["logicalType"]
    declared = table(record(("id", "long"), ("by", ["null", type_])), ["id"])
    data = f'id,by\n1,"{TEXTS[name]}"\n2,\n'.encode()
    for by_columns in (True, False):
        parts = encoded(data, declared, by_columns=by_columns, sort="by")
        assert len(values(list(arranged(iter(parts), dedupe=False, sort=True)))) == 2


def test_a_column_without_an_order_is_refused() -> None:
    declared = table(record(("id", "long"), ("tags", {"type": "array", "items": "string"})))
    with pytest.raises(UsageError, match="has no order"):
        encoded(b"id,tags\n", declared, sort="tags")
    with pytest.raises(UsageError, match="no column 'x'"):
        encoded(b"id,tags\n", declared, sort="x", options=ImportOptions())
