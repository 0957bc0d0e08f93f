"""What Merganser relies on in DuckDB. When one of these fails, DuckDB changed, and so must we."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    config = {"storage_compatibility_version": "v1.5.0", "autoload_known_extensions": False}
    with duckdb.connect(str(tmp_path / "e.duckdb"), config=config) as opened:
        opened.execute("CREATE TABLE t (a INTEGER, b VARCHAR)").fetchall()
        opened.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')").fetchall()
        yield opened


def test_a_delete_hidden_in_a_select_is_stopped_by_a_read_only_transaction(con: duckdb.DuckDBPyConnection) -> None:
    sql = "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d"
    assert duckdb.extract_statements(sql)[0].type == duckdb.StatementType.SELECT
    con.execute("BEGIN TRANSACTION READ ONLY").fetchall()
    with pytest.raises(duckdb.Error):
        con.execute(sql).fetchall()
    con.execute("ROLLBACK").fetchall()
    assert con.execute("SELECT count(*) FROM t").fetchall() == [(2,)]


def test_alters_are_undone_with_their_transaction(con: duckdb.DuckDBPyConnection) -> None:
    before = con.execute("DESCRIBE t").fetchall()
    con.begin()
    for alter in ("ADD COLUMN c INTEGER", "RENAME COLUMN b TO bb", "ALTER COLUMN a TYPE DOUBLE"):
        con.execute(f"ALTER TABLE t {alter}").fetchall()
    con.rollback()
    assert con.execute("DESCRIBE t").fetchall() == before


def test_a_delete_counts_its_rows_and_joins_arrow(con: duckdb.DuckDBPyConnection) -> None:
    con.register("keys", pa.table({"a": pa.array([1, 7], pa.int32())}))
    assert con.execute("DELETE FROM t USING keys AS k WHERE t.a = k.a").fetchall() == [(1,)]


def test_arrow_comes_in_with_the_instance_locked_down(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("SET GLOBAL enable_external_access = false").fetchall()
    con.execute("SET GLOBAL lock_configuration = true").fetchall()
    con.register("rows", pa.table({"b": ["z"], "a": pa.array([3], pa.int32())}))
    con.execute("INSERT INTO t BY NAME SELECT * FROM rows").fetchall()
    con.execute("CHECKPOINT").fetchall()
    assert con.execute("SELECT b FROM t WHERE a = 3").fetchall() == [("z",)]
    with pytest.raises(duckdb.Error):
        con.execute("SELECT * FROM read_csv('/etc/passwd')").fetchall()


def test_a_cursor_reads_a_committed_state_while_another_writes(con: duckdb.DuckDBPyConnection) -> None:
    reader = con.cursor()
    reader.execute("BEGIN TRANSACTION READ ONLY").fetchall()
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
    con.execute("DELETE FROM t").fetchall()
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
    reader.execute("ROLLBACK").fetchall()
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(0,)]


def test_another_process_is_refused_even_to_read(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    code = f"import duckdb; duckdb.connect({str(tmp_path / 'e.duckdb')!r}, read_only=True)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "lock" in other.stderr.lower()


def test_a_second_connection_in_one_process_is_the_same_database(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Why Store keeps a list of the paths it has open."""
    config = {"storage_compatibility_version": "v1.5.0", "autoload_known_extensions": False}
    with duckdb.connect(str(tmp_path / "e.duckdb"), config=config) as again:
        assert again.execute("SELECT count(*) FROM t").fetchall() == [(2,)]


def test_storage_is_of_the_compatible_version(con: duckdb.DuckDBPyConnection) -> None:
    [(setting,)] = con.execute("SELECT current_setting('storage_compatibility_version')").fetchall()
    assert setting == "v1.5.0"


# -- what serving relies on (pipeline/serving) ------------------------------------------------------


def tree(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    [(text,)] = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_syntax_tree_has_what_is_nested_and_what_writes() -> None:
    """In an instance of its own: with an older storage version the tree would lack what is new."""
    with duckdb.connect(":memory:") as parser:
        nested = json.dumps(tree(parser, "SELECT 1 FROM a WHERE EXISTS (FROM b.c ORDER BY (SELECT max(x) FROM d))"))
        assert all(json.dumps({"path": path}) in nested for path in (["a"], ["b", "c"], ["d"]))
        assert "DELETE_QUERY_NODE" in json.dumps(tree(parser, "WITH d AS (DELETE FROM t RETURNING *) FROM d"))
        assert tree(parser, "DELETE FROM t")["error"] and tree(parser, "SELECT 1; SELECT 2")["statements"][1]


def test_a_variable_of_python_is_not_found_when_replacements_are_off() -> None:
    rows = pa.table({"a": [1]})
    with duckdb.connect(":memory:") as naive:
        assert naive.sql("SELECT * FROM rows").fetchall() == [(1,)]
    with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as con:
        with pytest.raises(duckdb.CatalogException):
            con.sql("SELECT * FROM rows").fetchall()
    assert rows.num_rows == 1


def test_a_result_streams_with_its_types_and_is_interrupted(con: duckdb.DuckDBPyConnection) -> None:
    result = con.cursor()._submit("SELECT a, b FROM t WHERE a > ? ORDER BY a", [0], "stream", 1000)
    assert [str(column[1]) for column in result.description] == ["INTEGER", "VARCHAR"]
    assert result.arrow_reader().read_all().to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    cursor, ended = con.cursor(), threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.1):  # one that comes before it begins is lost
            cursor.interrupt()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises((duckdb.InterruptException, OSError), match="INTERRUPT"):
            endless = cursor._submit("SELECT count(*) FROM range(1000000000000000)", None, "stream", 1000)
            endless.arrow_reader().read_all()
    finally:
        ended.set()
        interrupting.join()


def test_a_statement_tells_the_types_of_its_parameters(con: duckdb.DuckDBPyConnection) -> None:
    _, _, parameters, *_ = con.cursor()._bind("SELECT ? FROM t WHERE a = ? AND b LIKE ?")
    assert [(name, str(type_)) for name, type_ in parameters] == [("1", "UNKNOWN"), ("2", "INTEGER"), ("3", "VARCHAR")]


def test_a_fatal_error_is_met_by_every_later_statement(tmp_path: Path) -> None:
    """So that `SELECT 1` tells whether the store has to be opened anew (`Store.probe`)."""
    with duckdb.connect(str(tmp_path / "broken.duckdb")) as con:
        con.execute("CREATE TABLE t AS FROM range(1000)")
        doomed(con)
        for other in (con, con.cursor()):
            with pytest.raises(duckdb.FatalException):
                other.execute("SELECT 1")


def doomed(con: duckdb.DuckDBPyConnection) -> None:
    """Have the instance of *con* given up by DuckDB: no checkpoint can be written."""
    con.execute("SET GLOBAL disabled_filesystems = 'LocalFileSystem'")
    with pytest.raises(duckdb.FatalException):
        con.execute("CHECKPOINT")


def test_a_commit_with_an_update_is_checkpointed_only_when_nobody_reads_who_began_before(tmp_path: Path) -> None:
    """Why queries pause (pipeline/serving/guard/pause.py): each commit moves the positions by an UPDATE."""
    config = {"storage_compatibility_version": "v1.5.0", "checkpoint_threshold": "100KB"}
    with duckdb.connect(str(tmp_path / "w.duckdb"), config=config) as con:
        con.execute("CREATE TABLE t (a VARCHAR); CREATE TABLE p AS SELECT 0 AS next").fetchall()
        wal = tmp_path / "w.duckdb.wal"

        def write() -> int:
            """The size of the WAL after a commit of 30 KB."""
            con.begin()
            con.execute("INSERT INTO t VALUES (?)", ["x" * 30_000]).fetchall()
            con.execute("UPDATE p SET next = next + 1").fetchall()
            con.commit()
            return wal.stat().st_size if wal.exists() else 0

        def reader() -> duckdb.DuckDBPyConnection:
            cursor = con.cursor()
            cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
            cursor.execute("FROM p").fetchall()
            return cursor

        assert max(write() for _ in range(20)) < 150_000
        last = reader()
        for _ in range(20):  # there is always one that began before the commit
            before, last = last, reader()
            before.close()
            grown = write()
        assert grown > 20 * 30_000
        with pytest.raises(duckdb.TransactionException, match="CHECKPOINT"):
            con.execute("CHECKPOINT").fetchall()
        last.close()
        assert write() == 0


@pytest.mark.parametrize(
    ("sql", "arrow"),
    [
        ("340282366920938463463374607431768211455::UHUGEINT", Decimal(-1)),
        ("TIMETZ '01:02:03+05'", dt.time(1, 2, 3)),
        ("'101'::BIT", b"\x05\xfd"),
        ("1::BIGNUM", b"\x80\x00\x01\x01"),
        ("1::VARIANT", {"metadata": b"\x01\x00\x00", "value": b"\x14\x01\x00\x00\x00"}),
    ],
)
def test_some_types_are_others_in_arrow(sql: str, arrow: object) -> None:
    """A door refuses them (pipeline/serving/guard/rules.py)."""
    assert duckdb.sql(f"SELECT {sql} AS x").to_arrow_table().to_pylist() == [{"x": arrow}]
