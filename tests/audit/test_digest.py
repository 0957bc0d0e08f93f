"""A digest says what a table holds, and nothing of how it came to hold it."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from merganser.consumers.digest import _pairs, quarantine_digest, table_digest


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.sql("CREATE TABLE t (b VARCHAR, a INTEGER)")
    con.sql("INSERT INTO t VALUES ('x', 1), ('y', NULL), (NULL, 3)")
    return con


def test_the_definition_is_fixed(con: duckdb.DuckDBPyConnection) -> None:
    """Format 1. A change here means that replicas of two versions cannot be compared any more."""
    con.sql(
        "CREATE TABLE all_types AS SELECT true AS b, 1::INTEGER AS i, 1.5::DOUBLE AS d, 0.1::FLOAT AS f, 'é' AS s,"
        " '\\x00\\xFF'::BLOB AS bl, 1.50::DECIMAL(10, 2) AS dec, DATE '2026-01-31' AS da, TIME '12:00:00.5' AS t,"
        " TIMESTAMPTZ '2026-01-31 12:00:00+02' AS tz, TIMESTAMP '2026-01-31 12:00:00' AS ts,"
        " TIMESTAMP_NS '2026-01-31 12:00:00.123456789' AS ns, [1, NULL] AS l,"
        " MAP(['k', 'j'], [[1.5], NULL]) AS m, {'x': 1, 'y': NULL::VARCHAR} AS st,"
        " '12345678-1234-5678-1234-567812345678'::UUID AS u"
    )
    texts = {
        "b": "true",
        "i": "1",
        "d": f"{struct.unpack('>Q', struct.pack('>d', 1.5))[0]:064b}",
        "f": f"{struct.unpack('>I', struct.pack('>f', 0.1))[0]:032b}",
        "s": "é",
        "bl": "00FF",
        "dec": "1.50",
        "da": "2026-01-31",
        "t": "12:00:00.5",
        "tz": "1769853600000000",
        "ts": "1769860800000000",
        "ns": "1769860800123456789",
        "l": "1:1-",
        "m": "1:j-1:k" + framed(framed("1.5")),
        "st": "1:x1:1",
        "u": "12345678-1234-5678-1234-567812345678",
    }
    assert table_digest(con, "all_types") == (1, hashed(texts))
    assert table_digest(con, "t") == (3, hashed({"a": "1", "b": "x"}) + hashed({"b": "y"}) + hashed({"a": "3"}))


def framed(text: str) -> str:
    return f"{len(text.encode())}:{text}"


def hashed(texts: dict[str, str]) -> int:
    """The definition in the module's docstring, by Python alone."""
    row = "".join(framed(name) + framed(text) for name, text in sorted(texts.items()))
    return int.from_bytes(hashlib.md5(row.encode()).digest()[8:], "little")


@pytest.mark.parametrize(
    "shape", ["[{}, NULL]", "{{'a': {}, 'b': NULL::INTEGER}}", "MAP {{'k': {}}}", "[{{'n': 1, 'in': {}}}]"]
)
def test_what_is_nested_deeply_is_written_by_the_definition_and_in_a_few_words(
    con: duckdb.DuckDBPyConnection, shape: str
) -> None:
    """Each level doubled the SQL: of arrays of records, five in each other, a backup never had the digest."""
    value, words = "7", []
    for level in range(1, 17):
        value = shape.format(value)
        con.execute(f"CREATE OR REPLACE TABLE nested AS SELECT {value} AS c")
        [column_type] = con.sql("SELECT c FROM nested").types
        words.append(len(_pairs({"c": ("c", column_type)})))
        if level <= 4:
            [[found]] = con.sql("SELECT c FROM nested").fetchall()
            assert table_digest(con, "nested") == (1, hashed({"c": text(found, "MAP" in shape)}))
    assert words[15] < 60 * words[0]


def text(value: Any, maps: bool) -> str:
    """A number, or what such are in, by the definition in the module's docstring."""
    if isinstance(value, list):
        return "".join("-" if item is None else framed(text(item, maps)) for item in value)
    if isinstance(value, dict):
        present = [(name, item) for name, item in sorted(value.items()) if maps or item is not None]
        return "".join(framed(name) + framed(text(item, maps)) for name, item in present)
    return str(value)


def test_order_of_rows_and_of_columns_does_not_count(con: duckdb.DuckDBPyConnection) -> None:
    con.sql("CREATE TABLE other AS SELECT a, b FROM t ORDER BY a DESC NULLS FIRST")
    assert table_digest(con, "other") == table_digest(con, "t")


def test_a_column_of_nulls_does_not_count(con: duckdb.DuckDBPyConnection) -> None:
    before = table_digest(con, "t")
    con.sql("ALTER TABLE t ADD COLUMN aa DOUBLE")
    assert table_digest(con, "t") == before


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO t SELECT * FROM t WHERE a = 1",
        "DELETE FROM t WHERE a = 1",
        "UPDATE t SET a = 2 WHERE a = 1",
        "UPDATE t SET b = '' WHERE a = 3",
        "UPDATE t SET b = 'X' WHERE a = 1",
        "ALTER TABLE t RENAME COLUMN a TO c",
    ],
)
def test_every_change_counts(con: duckdb.DuckDBPyConnection, change: str) -> None:
    before = table_digest(con, "t")
    con.execute(change)
    assert table_digest(con, "t") != before


def test_values_cannot_move_between_columns() -> None:
    con = duckdb.connect()
    con.sql("CREATE TABLE one AS SELECT 'x' AS a, '1:b1:y' AS b")
    con.sql("CREATE TABLE two AS SELECT 'x1:b6:1:b1:y' AS a")
    con.sql("CREATE TABLE three AS SELECT '1:b1:y' AS a, 'x' AS b")
    assert len({table_digest(con, name) for name in ("one", "two", "three")}) == 3


def test_floats_count_bit_by_bit() -> None:
    con = duckdb.connect()
    nan, other_nan = float("nan"), struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0]
    digests = set()
    for value in (0.0, -0.0, nan, other_nan, 5e-324):
        con.register("v", pa.table({"x": [value]}))
        con.sql("CREATE OR REPLACE TABLE one AS FROM v")
        digests.add(table_digest(con, "one"))
    assert len(digests) == 5


def test_the_session_does_not_count(con: duckdb.DuckDBPyConnection) -> None:
    con.sql("CREATE TABLE z AS SELECT TIMESTAMPTZ '2026-01-31 12:00:00+00' AS at")
    con.sql("SET TimeZone = 'UTC'")
    before = table_digest(con, "z")
    con.sql("SET TimeZone = 'America/New_York'")
    assert table_digest(con, "z") == before


def test_the_reason_of_a_quarantined_record_does_not_count() -> None:
    con = duckdb.connect()
    con.sql("CREATE SCHEMA _merganser")
    con.sql(
        'CREATE TABLE _merganser.quarantine (topic VARCHAR, partition INTEGER, "offset" BIGINT,'
        " timestamp TIMESTAMP WITH TIME ZONE, key BLOB, value BLOB, reason VARCHAR)"
    )
    con.sql("INSERT INTO _merganser.quarantine VALUES ('t', 0, 7, '2026-01-31 12:00:00+00', 'k', 'v', 'cut short')")
    before = quarantine_digest(con, "t")
    con.sql("UPDATE _merganser.quarantine SET reason = 'too short'")
    assert quarantine_digest(con, "t") == before and quarantine_digest(con, "other").rows == 0
    con.sql("UPDATE _merganser.quarantine SET value = 'w'")
    assert quarantine_digest(con, "t") != before
