"""A store that no process has open, read as it lies on the disk.

Invariants: a read neither makes a file nor changes one; what a killed process left in the WAL is seen,
as its own restart would see it. Only the process that follows the log can read a store that is open:
here it is StoreLocked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import duckdb

from ..schemas.errors import ReadError, StoreFailed, StoreFormat
from ..schemas.position import Position
from .asked import Params
from .dbfile import Limits, StoredTable, identity, open_file, stored_tables
from .derived import Derived, derived_tables
from .reads import Reading, one_line, parse, positions, run
from .result import Result


class StoreFile:
    """The tables of a store at rest, read-only. For one thread; use it in a ``with``.

    StoreFormat if the file is missing, or no store of this format; StoreLocked while a process has it.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None) -> None:
        self.path = Path(path).resolve()
        if not self.path.is_file():
            hint = "`merganser replica run --store FILE --group NAME --tables a,b` makes one"
            raise StoreFormat(str(self.path), "there is no such file", hint=hint)
        self._con = open_file(self.path, limits or Limits(), read_only=True)
        try:
            self._con.sql("SET GLOBAL enable_external_access = false")
            self._con.sql("SET GLOBAL lock_configuration = true")
            self.cluster_id, self.group = identity(self._con, self.path)
        except BaseException:
            self._con.close()
            raise

    def query(self, sql: str, params: Params = None) -> Result:
        """The rows of one SELECT as the store is. BadQuery."""
        query = parse(sql)
        try:
            with self.reading() as cursor:
                return run(Reading(cursor, *positions(cursor)), query, params)
        except duckdb.FatalException as error:
            raise StoreFailed(str(self.path), one_line(error)) from error

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside one read-only transaction: all it reads is of one state."""
        cursor = self._con.cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
            yield cursor
        except duckdb.FatalException:
            raise
        except duckdb.Error as error:
            raise ReadError(f"store {self.path}: {one_line(error)}") from error
        finally:
            cursor.close()

    def tables(self) -> dict[str, StoredTable]:
        return stored_tables(self._con)

    def derived(self) -> dict[str, Derived]:
        """The tables in it that are no replicas."""
        return derived_tables(self._con)

    @property
    def position(self) -> Position:
        """How far the store has read the log."""
        return positions(self._con)[0]

    def quarantined(self) -> dict[str, int]:
        """Records in quarantine, by table; tables without any are absent."""
        sql = "SELECT topic, count(*) FROM _merganser.quarantine GROUP BY topic ORDER BY topic"
        return dict(self._con.execute(sql).fetchall())

    def pending(self) -> dict[str, int]:
        """Records that are held back, by table; tables without any are absent."""
        sql = "SELECT topic, count(*) FROM _merganser.pending GROUP BY topic ORDER BY topic"
        return dict(self._con.execute(sql).fetchall())

    def close(self) -> None:
        self._con.close()

    def __enter__(self) -> StoreFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
