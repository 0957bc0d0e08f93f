"""CSV: whole columns and single records are two ways to the same end, at any size of block."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_tables import bad, encoded, record, table, values

from merganser.pipeline.loading import csvfile
from merganser.pipeline.loading.csvfile import CsvFile
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadInput, BadLine, BadSchema
from merganser.schemas.table import SchemaVersion

Fields = list[list[str | None]]

quick = settings(deadline=None)

#: What makes a reader stumble: quotes, delimiters and line breaks in all orders.
AWKWARD = st.text(st.sampled_from('",\n\r ab;é0'), max_size=8)


def read(data: bytes, *, block: int = 1 << 20) -> tuple[list[str], Fields, list[tuple[int, str]]]:
    """Header, records and what is none, each by the way that a piece of its block takes; both, where there are two."""
    before, csvfile._BLOCK = csvfile._BLOCK, block
    try:
        file = CsvFile("file", io.BytesIO(data))
        rows: Fields = []
        wrong = []
        for each in file.blocks(file.header):
            found = list(each.records())
            mine = [r.fields for r in found if r.why is None]
            wrong += [(r.line, r.why) for r in found if r.why is not None]
            columns = each.columns()
            if columns is not None:
                assert list(map(list, zip(*columns.to_pydict().values(), strict=True))) == mine
                assert len(mine) == len(found)
            rows += mine
        return file.header, rows, wrong
    finally:
        csvfile._BLOCK = before


@given(st.lists(st.tuples(AWKWARD, AWKWARD, AWKWARD), max_size=8), st.sampled_from([1, 7, 40, 1 << 20]))
@quick
def test_what_python_writes_is_read_back(rows: list[tuple[str, str, str]], block: int) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    header, found, wrong = read(out.getvalue().encode(), block=block)
    assert (header, found, wrong) == (["a", "b", "c"], list(map(list, rows)), [])


@given(st.text(st.sampled_from('",\n\r ab'), max_size=60), st.sampled_from([1, 5, 1 << 20]))
@quick
def test_any_text_is_read_alike_in_blocks_and_at_once(text: str, block: int) -> None:
    data = b"a,b\n" + text.encode()
    assert read(data, block=block) == read(data)


@given(st.lists(st.lists(st.none() | AWKWARD, min_size=2, max_size=2), max_size=6))
@quick
def test_null_and_empty_text_are_told_apart(rows: list[list[str | None]]) -> None:
    lines = (",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row) for row in rows)
    _, found, wrong = read("\n".join(["a,b", *lines, ""]).encode())
    assert (found, wrong) == (rows, [])


def test_lines_are_counted_through_quoted_breaks_and_blocks() -> None:
    data = b'a,b\r\n1,"x\r\ny"\r\n\r\n2\r\n3,"z"z\n4,\xff\n5,"open'
    expected = [
        (5, "1 fields, the header has 2"),
        (6, "text after the closing quote of field 2"),
        (7, "not UTF-8: byte 0xff"),
        (8, "a quoted field is not closed"),
    ]
    for block in (1, 10, 1 << 20):
        assert read(data, block=block)[2] == expected


def test_an_empty_line_is_an_empty_value_where_there_is_one_column() -> None:
    assert read(b"a\n1\n\n2")[1] == [["1"], [None], ["2"]]
    assert read(b"a,b\n1,2\n\n3,4\n")[1] == [["1", "2"], ["3", "4"]]


def test_a_record_that_never_ends_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "LONGEST_RECORD", 3000)
    monkeypatch.setattr(csvfile, "_BLOCK", 500)
    data = b'a,b\n1,2\n3,"' + b"x,y\n" * 2000
    with pytest.raises(BadLine, match=r"line 3: a record longer than .* not closed"):
        list(CsvFile("file", io.BytesIO(data)).blocks(["a", "b"]))


@pytest.mark.parametrize(
    ("data", "delimiter"), [(b"a,b\n", ","), (b"a;b,c;d\n", ";"), (b"a\tb\n", "\t"), (b"a|b|c", "|"), (b"a\n", ",")]
)
def test_the_delimiter_is_the_one_that_the_header_has_most_of(data: bytes, delimiter: str) -> None:
    assert CsvFile("file", io.BytesIO(data), "", ",;\t|").dialect.delimiter == delimiter


@pytest.mark.parametrize("data", [b"\n", b"\xef\xbb\xbf", b"  \n"])
def test_a_file_without_a_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="not even a header"):
        CsvFile("file", io.BytesIO(data))


def test_a_mark_of_utf8_is_no_part_of_the_first_name() -> None:
    assert CsvFile("file", io.BytesIO(b"\xef\xbb\xbfa,b\n1,2")).header == ["a", "b"]


# -- fields as values: whole columns against one by one -----------------------------------------

CHECKED: list[tuple[Any, list[str]]] = [
    ("boolean", ["true", "False", "t", "F", " true", "yes", "1", ""]),
    ("int", ["0", "-7", "+7", "007", " 8 ", "2147483647", "2147483648", "0x1F", "1.0", "1e3", "1_000", "-"]),
    ("long", ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "123456789012345678", "٣"]),
    ("double", ["0", "-0.0", "1e3", "0.1", "9007199254740993", "1e999", "NaN", "-inf", ".5", "5.", "0x1p3", "1e-400"]),
    ("float", ["0.1", "16777217", "16777216", "3.5e38", "1e-46", "123456.789", "nan", "-Infinity", "3.4028236e38"]),
    ("string", ["", " x ", "NULL", "é"]),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, ["A", "B", "C", "a", ""]),
    ({"type": "string", "logicalType": "uuid"}, ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "no"]),
    (
        {"type": "int", "logicalType": "date"},
        ["2026-02-29", "2024-02-29", "0000-01-01", "0001-01-01", "2026-1-1", "9999-12-31"],
    ),
    ({"type": "int", "logicalType": "time-millis"}, ["12:00:00.123", "12:00:00.1234", "24:00:00", "12:00", "23:59:59"]),
    ({"type": "long", "logicalType": "time-micros"}, ["00:00:00", "12:00:00.123456", "12:00:60", "12:00:00.1234567"]),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        [
            *("2026-01-01T00:00:00Z", "2026-01-01 00:00:00+05:30", "2026-01-01 00:00:00"),
            *("2026-01-01T00:00:00.1234567Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00"),
            *("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:00+24:00"),
            *("2026-01-01T00:00:00+00:60", "2026-01-01T00:00:00.000000Z"),
        ],
    ),
    ({"type": "long", "logicalType": "timestamp-millis"}, ["2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00.1234Z"]),
    (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        ["2026-01-01 10:00:00", "2026-01-01T10:00:00.5", "2026-01-01T10:00:00Z", "2026-02-30 10:00:00"],
    ),
    (
        {"type": "long", "logicalType": "local-timestamp-millis"},
        ["2026-01-01 10:00:00.001", "2026-01-01 10:00:00.0001"],
    ),
    ({"type": "long", "logicalType": "timestamp-nanos"}, ["2026-01-01T00:00:00.123456789Z", "2026-01-01 00:00:00"]),
    ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, ["1.23", "-999.99", "1.234", "1e2", "x"]),
    ("bytes", ["AAE=", "AAE", ""]),
    ({"type": "array", "items": "int"}, ["[1,2]", "[]", "[1.5]", "[", "null"]),
    ({"type": "map", "values": "string"}, ['{"a":"b"}', '{"a":1}', '{"a":"b","a":"c"}', "[" * 5000]),
]


@pytest.mark.parametrize(("type_", "texts"), CHECKED, ids=[str(t) for t, _ in CHECKED])
@pytest.mark.parametrize("nullable", [False, True])
def test_each_field_is_taken_or_refused_alike_in_both_ways(type_: Any, texts: list[str], nullable: bool) -> None:
    """One file a field, and one of all fields, so that a doubtful one is not the reason for all."""
    declared = table(record(("c", ["null", type_] if nullable else type_), ("d", "int")))
    rows = ['"' + text.replace('"', '""') + '",1' for text in texts]
    for lines in [*([row] for row in rows), rows, [",1"]]:
        data = ("c,d\n" + "\n".join(lines) + "\n").encode()
        both = [encoded(data, declared, by_columns=way) for way in (True, False)]
        assert values(both[0]) == values(both[1])
        assert bad(both[0]) == bad(both[1])


NUMBERISH = st.text(st.sampled_from("0123456789+-.eE"), min_size=1, max_size=20) | st.floats().map(repr)
MOMENTISH = st.from_regex(
    r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
    r"(\.[0-9]{1,7})?(Z|[+-][0-2][0-9]:[0-6][0-9])?\Z"
)


NUMBERS = st.sampled_from(["int", "long", "float", "double"])
MOMENTS = st.sampled_from([f"{p}timestamp-{unit}" for p in ("", "local-") for unit in ("millis", "micros")])


@given(
    st.tuples(NUMBERS, NUMBERISH)
    | st.tuples(MOMENTS.map(lambda kind: {"type": "long", "logicalType": kind}), MOMENTISH)
)
@quick
def test_whole_columns_read_numbers_and_moments_as_single_fields_are(drawn: tuple[Any, str]) -> None:
    type_, text = drawn
    declared = table(record(("c", type_), ("d", "int")))
    data = f"c,d\n{text},1\n".encode()
    both = [encoded(data, declared, by_columns=way) for way in (True, False)]
    assert values(both[0]) == values(both[1]) and bad(both[0]) == bad(both[1])


def test_values_and_keys_are_those_of_a_producer() -> None:
    declared = table(record(("id", "long"), ("name", ["null", "string"]), ("n", "int", {"default": 5})), ["id"])
    encoder = RowEncoder(declared)
    rows = [{"id": i, "name": None if i % 3 else f"n{i}"} for i in range(100)]
    data = ("id,name\n" + "".join(f"{r['id']},{r['name'] or ''}\n" for r in rows)).encode()
    [part] = encoded(data, declared)
    assert part.values == [encoder.value(row) for row in rows]
    assert part.keys == [encoder.key(row) for row in rows]


def test_a_row_that_breaks_a_check_is_a_bad_line() -> None:
    declared = table(record(("id", "long"), ("qty", "int"), merganser={"checks": ["qty > 0"]}), ["id"])
    assert declared.checks == ("qty > 0",)
    parts = encoded(b"id,qty\n1,1\n2,0\n3,3\n", declared)
    assert bad(parts) == [(3, "column 'qty', value 0: check \"qty > 0\" does not hold")]
    assert len(values(parts)) == 2 and list(parts[0].at) == [0, 2]


def test_most_of_a_file_is_read_by_whole_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be right, and slow."""
    monkeypatch.setattr(csvfile, "_BLOCK", 4096)
    declared = table(record(("id", "long"), ("name", ["null", "string"]), ("x", "double")), ["id"])
    lines = [f'{i},"a ""quoted"" name\nof two lines, {i}",{i / 7}' for i in range(1000)]
    lines[500] = "bad,,1"
    parts = encoded(("id,name,x\n" + "\n".join(lines)).encode(), declared)
    ways = [isinstance(part.at, range) for part in parts]
    assert len(ways) > 5 and ways.count(False) == 1
    assert [line for line, _ in bad(parts)] == [2 + 2 * 500]


@pytest.mark.parametrize("by_columns", [True, False])
def test_no_file_is_imported_by_a_version_that_replicas_refuse(by_columns: bool) -> None:
    """Another client registered it: all rows would be in quarantine."""
    declared = table(record(("id", "long"), ("n", "long")), ["id"])
    other = SchemaVersion("t-value", 2, 9, record(("id", "long"), ("n", "string")))
    declared = replace(declared, values=(*declared.values, other))
    with pytest.raises(BadSchema, match="version 2: replicas refuse its records"):
        encoded(b"id,n\n1,2\n", declared, by_columns=by_columns)
