"""What Merganser relies on in DuckDB. When one of these fails, DuckDB changed, and so must we."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
