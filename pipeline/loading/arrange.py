"""Sorting the rows of a file, and leaving out what a later row of it replaces, in a DuckDB of its own.

Invariant: the order is total (rows that sort alike stay in the file's order), so that a run that was killed finds
the same rows in the same places again. Memory is bounded: DuckDB goes to the disk (TMPDIR) beyond its limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from .encoding import Encoded

_MEMORY = 256 * 2**20
_ROWS = 16_384


def arranged(encoded: Iterator[Encoded], *, dedupe: bool, sort: bool) -> Iterator[Encoded]:
    """The same rows: of each key the last one only (*dedupe*), by the column that was asked for (*sort*).

    All of *encoded* is read before the first comes out. Rows are numbered anew, in the new order; what is bad
    comes first.
    """
    with tempfile.TemporaryDirectory(prefix="merganser-import-") as folder:
        con = _open(Path(folder))
        try:
            keyed, bad = False, []
            for part in encoded:
                bad += part.bad
                keyed = keyed or part.keys is not None
                if part.values:
                    _keep(con, part)
            yield Encoded(0, bad=bad)
            yield from _in_order(con, keyed, dedupe, sort)
        finally:
            con.close()


def _open(folder: Path) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{_MEMORY}B",
        "threads": 2,
        "temp_directory": str(folder / "spill"),
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    return duckdb.connect(config=config)


def _keep(con: duckdb.DuckDBPyConnection, part: Encoded) -> None:
    count = len(part.values)
    columns = {
        "n": pa.array(part.at, pa.int64()),
        "k": pa.array(part.keys, pa.binary()) if part.keys is not None else pa.nulls(count, pa.binary()),
        "v": pa.array(part.values, pa.binary()),
        "s": part.sort if part.sort is not None else pa.nulls(count, pa.int64()),
    }
    con.register("part", pa.table(columns))
    con.execute("CREATE TABLE IF NOT EXISTS rows AS SELECT * FROM part LIMIT 0")
    con.execute("INSERT INTO rows SELECT * FROM part")
    con.unregister("part")


def _in_order(con: duckdb.DuckDBPyConnection, keyed: bool, dedupe: bool, sort: bool) -> Iterator[Encoded]:
    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'rows'").fetchall():
        return
    where = "WHERE n IN (SELECT max(n) FROM rows GROUP BY k)" if dedupe else ""
    by = "s NULLS FIRST, n" if sort else "n"
    reader = con.sql(f"SELECT k, v FROM rows {where} ORDER BY {by}").to_arrow_reader(_ROWS)
    taken = 0
    for batch in reader:
        at = range(taken, taken + batch.num_rows)
        taken += batch.num_rows
        yield Encoded(taken, at, batch.column("k").to_pylist() if keyed else None, batch.column("v").to_pylist())
