"""Values over HTTP: nothing is rounded, whatever the type, and each format says the same."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.consumers.result import Result
from merganser.pipeline.serving.http.accept import MEDIA_TYPES
from merganser.pipeline.serving.http.bodies import body, gathered
from merganser.pipeline.serving.http.forms import SAFE, plain
from merganser.pipeline.serving.marks import APPLIED, POSITION, TYPES
from merganser.schemas.errors import BadQuery
from merganser.schemas.position import Position


class Given:
    """An answer that is there."""

    position = applied = Position.parse("orders/0:7")

    def __init__(self, table: pa.Table, types: Sequence[str], rows: int = 3) -> None:
        self.schema, self.types, self._table, self._rows = table.schema, types, table, rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield from self._table.to_batches(max_chunksize=self._rows)


def answer(sql: str, rows: int = 3) -> Given:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    found = con.sql(sql)
    return Given(found.to_arrow_table(), [str(t) for t in found.types], rows)


def sent(given_: Given, format_: str, encoding: str | None = None) -> bytes:
    return b"".join(body(given_, format_, encoding))  # type: ignore[arg-type]


def cell(sql: str) -> Any:
    [[value]] = json.loads(sent(answer(f"SELECT {sql} AS x"), "json"))["rows"]
    return value


FORMS: dict[str, Any] = {
    "NULL::INTEGER": None,
    "true": True,
    "127::TINYINT": 127,
    "9007199254740991": SAFE,
    "9007199254740992": "9007199254740992",
    "-9007199254740993": "-9007199254740993",
    "18446744073709551615::UBIGINT": "18446744073709551615",
    "170141183460469231731687303715884105727::HUGEINT": "170141183460469231731687303715884105727",
    "sum(1)": 1,
    "12345678901234567.89::DECIMAL(20, 2)": "12345678901234567.89",
    "0.0000000001::DECIMAL(20, 10)": "0.0000000001",
    "7::DECIMAL(9, 0)": 7,
    "0.1::DOUBLE": 0.1,
    "-0.0::DOUBLE": -0.0,
    "'nan'::DOUBLE": "NaN",
    "'-inf'::FLOAT": "-Infinity",
    "'ä\"\n'": 'ä"\n',
    "'\\x00\\xFF'::BLOB": "AP8=",
    "'2026-01-31'::DATE": "2026-01-31",
    "'12:34:56.789'::TIME": "12:34:56.789000",
    "'2026-01-31 12:34:56.789012'::TIMESTAMP": "2026-01-31T12:34:56.789012",
    "'2026-01-31 12:34:56.789012345'::TIMESTAMP_NS": "2026-01-31T12:34:56.789012345",
    "'2026-01-31 12:34:56+02'::TIMESTAMPTZ": "2026-01-31T10:34:56.000000Z",
    "'infinity'::TIMESTAMP": "infinity",
    "'-infinity'::DATE": "-infinity",
    "'-infinity'::TIMESTAMPTZ": "-infinity",
    "'12:34:56.123456789'::TIME_NS": "12:34:56.123456789",
    "'0001-01-01 00:00:00'::TIMESTAMP": "0001-01-01T00:00:00.000000",
    "'32768-01-01'::DATE": "32768-01-01",
    "'5881580-07-10'::DATE": "5881580-07-10",
    "'290000-03-01 01:02:03.5'::TIMESTAMP": "290000-03-01T01:02:03.500000",
    "'290000-12-31 23:59:59+00'::TIMESTAMPTZ": "290000-12-31T23:59:59.000000Z",
    "'24:00:00'::TIME": "24:00:00",
    "['24:00:00'::TIME_NS, '23:59:59.999999999'::TIME_NS]": ["24:00:00", "23:59:59.999999999"],
    "union_value(a := '2026-01-31'::DATE)": "2026-01-31",
    "[union_value(a := 9007199254740993), NULL]": ["9007199254740993", None],
    "'5b6f7a9e-0000-4000-8000-0123456789ab'::UUID": "5b6f7a9e-0000-4000-8000-0123456789ab",
    "INTERVAL '1 month 2 days 3 seconds'": {"months": 1, "days": 2, "nanoseconds": 3_000_000_000},
    "[1, NULL, 9007199254740993]": [1, None, "9007199254740993"],
    "[]::INTEGER[]": [],
    "NULL::INTEGER[]": None,
    "[1.5, 2.5]::DECIMAL(3,1)[2]": ["1.5", "2.5"],
    "{'a': 1, 'b': {'c': '2026-01-31'::DATE}}": {"a": 1, "b": {"c": "2026-01-31"}},
    "NULL::STRUCT(a INTEGER)": None,
    "MAP {'k': 1, 'l': NULL}": {"k": 1, "l": None},
    "MAP {1: 'x'}": [{"key": 1, "value": "x"}],
    "NULL::MAP(VARCHAR, INTEGER)": None,
    "'b'::ENUM('a', 'b')": "b",
    "[{'m': MAP {'a': [1::HUGEINT]}}]": [{"m": {"a": [1]}}],
}


@pytest.mark.parametrize("sql", FORMS)
def test_each_type_has_its_form(sql: str) -> None:
    found = cell(sql)
    assert found == FORMS[sql] and type(found) is type(FORMS[sql])


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1))
def test_no_whole_number_is_rounded_by_javascript(values: list[int | None]) -> None:
    for value, form in zip(values, plain(pa.array(values, pa.int64())), strict=True):
        assert form is None if value is None else int(form) == value
        assert not isinstance(form, int) or float(form) == form


_LISTS = st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-9, 9)), max_size=3)), max_size=8)


@given(_LISTS, st.integers(0, 8), st.integers(0, 8))
def test_a_slice_of_nested_values_is_that_slice(values: list[Any], start: int, length: int) -> None:
    array = pa.array(values, pa.list_(pa.int32())).slice(start, length)
    assert plain(array) == values[start : start + length]
    maps = [None if v is None else [(str(i), x) for i, x in enumerate(v)] for v in values]
    array = pa.array(maps, pa.map_(pa.string(), pa.int32())).slice(start, length)
    assert plain(array) == [None if m is None else dict(m) for m in maps[start : start + length]]
    structs = [None if v is None else {"a": v} for v in values]
    array = pa.array(structs, pa.struct([("a", pa.list_(pa.int32()))])).slice(start, length)
    assert plain(array) == structs[start : start + length]


def test_csv_has_no_value_that_arrow_cannot_write() -> None:
    sql = """SELECT unnest(['290000-03-01'::DATE, '2026-01-31', 'infinity', NULL]) AS d,
        unnest(['24:00:00'::TIME, '01:02:03', NULL, NULL]) AS t, union_value(a := 'x') AS u"""
    assert sent(answer(sql, 4), "csv").decode().splitlines() == [
        '"d","t","u"',
        '"290000-03-01","24:00:00","x"',
        '"2026-01-31","01:02:03.000000","x"',
        '"infinity",,"x"',
        ',,"x"',
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=9), st.integers(0, 5), st.integers(0, 9))
def test_a_slice_of_unions_is_that_slice(values: list[int | None], start: int, length: int) -> None:
    cells = ", ".join(f"({'NULL' if v is None else v})" for v in values)
    mixed = "CASE WHEN i % 2 = 0 THEN union_value(n := i)::U ELSE i::VARCHAR::U END".replace(
        "U", "UNION(n INT, s TEXT)"
    )
    [column] = duckdb.sql(f"SELECT {mixed} AS x FROM (VALUES {cells}) AS v(i)").to_arrow_table().columns
    expected = [None if v is None else str(v) if v % 2 else v for v in values]
    assert plain(column.combine_chunks().slice(start, length)) == expected[start : start + length]


MIXED = """SELECT i AS id, i * 9007199254740993 AS big, 'x' || i AS "the, text", i % 2 = 0 AS even,
    CASE WHEN i % 3 > 0 THEN i / 4 END AS part, [i] AS list FROM range(10) AS r(i)"""


def test_json_has_a_row_a_line() -> None:
    sql = "SELECT i, 'two\n],\nlines' AS text, [i] AS list FROM range(7) AS r(i)"
    head, *rows, end, rest = sent(answer(sql), "json").decode().split("\n")
    assert head.startswith('{"columns":[') and head.endswith('"rows":[') and end.startswith('],"position"') and not rest
    assert [json.loads(row.removesuffix(","))[0] for row in rows] == list(range(7))


def test_every_format_has_the_same_rows() -> None:
    whole = json.loads(sent(answer(MIXED), "json"))
    assert [c["name"] for c in whole["columns"]] == ["id", "big", "the, text", "even", "part", "list"]
    assert whole["columns"][1]["type"] == "BIGINT" and whole["position"] == "orders/0:7"
    lines = [json.loads(line) for line in sent(answer(MIXED), "ndjson").splitlines()]
    assert [list(line.values()) for line in lines] == whole["rows"]
    table = list(csv.reader(io.StringIO(sent(answer(MIXED), "csv").decode())))
    assert table[0] == ["id", "big", "the, text", "even", "part", "list"]
    assert [int(row[1]) for row in table[1:]] == [int(row[1]) for row in whole["rows"]]
    assert [row[4] for row in table[1:]] == ["" if r[4] is None else _number(r[4]) for r in whole["rows"]]
    with pa.ipc.open_stream(sent(answer(MIXED), "arrow")) as stream:
        arrow = stream.read_all()
    told = arrow.schema.metadata
    assert json.loads(told[TYPES])[1] == "BIGINT" and told[POSITION] == told[APPLIED] == b"orders/0:7"
    assert arrow.column("id").to_pylist() == [row[0] for row in whole["rows"]]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def test_null_and_an_empty_text_differ_in_csv() -> None:
    assert sent(answer("SELECT NULL::VARCHAR AS a, '' AS b, 'x\"y' AS c"), "csv") == b'"a","b","c"\n,"","x""y"\n'


def test_two_columns_of_one_name_keep_both_values() -> None:
    assert json.loads(sent(Given(pa.table([[1], [2]], names=["a", "a"]), ["INTEGER"] * 2), "json"))["rows"] == [[1, 2]]


def test_an_object_a_row_does_not_lose_one_of_two_columns_of_one_name() -> None:
    with pytest.raises(BadQuery, match="two columns are named 'a'"):
        sent(answer("SELECT 1 AS a, 2 AS a, 3 AS b"), "ndjson")
    assert json.loads(sent(answer("SELECT 1 AS a, 2 AS b"), "ndjson")) == {"a": 1, "b": 2}


@pytest.mark.parametrize("format_", MEDIA_TYPES)
@pytest.mark.parametrize("sql", ["SELECT 1 AS a WHERE false", MIXED])
def test_what_is_packed_unpacks_to_the_same(format_: str, sql: str) -> None:
    bare = sent(answer(sql), format_)
    assert gzip.decompress(sent(answer(sql), format_, "gzip")) == bare
    packed = pa.BufferReader(sent(answer(sql), format_, "zstd"))
    assert pa.CompressedInputStream(packed, "zstd").read() == bare


def test_no_rows_are_an_answer_in_every_format() -> None:
    empty = "SELECT 1 AS a WHERE false"
    assert json.loads(sent(answer(empty), "json"))["rows"] == []
    assert sent(answer(empty), "ndjson") == b"" and sent(answer(empty), "csv") == b'"a"\n'


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_pieces_are_joined_and_none_is_lost(pieces: list[bytes], least: int) -> None:
    found = list(gathered(pieces, least))
    assert b"".join(found) == b"".join(pieces) and all(len(piece) >= least for piece in found[:-1])


def test_python_values_come_back_from_arrow() -> None:
    """What the client makes of it, against what DuckDB itself says."""
    sql = """SELECT 1::HUGEINT AS h, '5b6f7a9e-0000-4000-8000-0123456789ab'::UUID AS u, MAP {'a': 1} AS m,
        '2026-01-31 12:34:56.789012345'::TIMESTAMP_NS AS n"""
    given_ = answer(sql)
    with pa.ipc.open_stream(sent(given_, "arrow")) as stream:
        table = stream.read_all()
    result = Result(table.replace_schema_metadata(None), json.loads(table.schema.metadata[TYPES]), *[Position()] * 2)
    [expected] = duckdb.connect().sql(sql).fetchall()
    assert result.rows()[0][:3] == expected[:3]
