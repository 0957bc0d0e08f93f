"""Shadows: derived tables of a store at rest, made, put in the place of a table, and removed.

Invariants
- A shadow is noted in ``_merganser.derived`` before its SQL table is there, and *whole* only when all rows are in
  it. Nobody takes it for a replica: only ``_merganser.tables`` makes a table one.
- A swap is one DuckDB transaction: the table is the old one or the new one. Names and ``_merganser`` change in it,
  no rows: those were written, and checkpointed, before (FAILURES 25). A checkpoint follows.
- A table is a replica after a swap only with all that ``_merganser`` said of it replaced by what the replay came
  to, up to the position that it had. Anything else is derived, and the store forgets its partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from ..schemas.errors import StoreFormat
from ..schemas.position import TopicPartition
from ..schemas.types import quote
from .atomic import Entry
from .contents import CHUNK_BYTES, CHUNK_ROWS, Stretch, add_rows, chunks
from .dbfile import (
    PARTITIONED,
    Limits,
    StoredTable,
    check_room,
    claim,
    identity,
    open_file,
    release,
    stored_tables,
)
from .derived import Derived, derived_tables, forget, note, prepare
from .ledger import decided
from .statements import Connection, run, transaction

#: What each derived table has beside its own columns: where the record of a row lies.
PLACE = (("_partition", "INTEGER"), ("_offset", "BIGINT"), ("_timestamp", "TIMESTAMP WITH TIME ZONE"))

#: The steps, in order; tests stop the process at each.
STEPS = ("noted", "made", "filled", "whole", "swapping", "swapped", "checkpointed")


def sql_tables(con: Connection) -> list[str]:
    """Every table that a query finds by its bare name."""
    rows = run(con, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' AND NOT internal")
    rows += run(con, "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal")
    return [name for (name,) in rows]


class Shadows:
    """A store at rest that is changed beside its apply loop. For one thread, in a ``with``.

    StoreFormat, StoreLocked: nobody else has the file meanwhile.
    """

    def __init__(
        self, path: Path, limits: Limits | None = None, on_step: Callable[[str], None] = lambda step: None
    ) -> None:
        self.path, self.limits, self._step = path.resolve(), limits or Limits(), on_step
        if not self.path.is_file():
            hint = "`merganser replica run --store FILE --group NAME --tables a,b` makes one"
            raise StoreFormat(str(self.path), "there is no such file", hint=hint)
        claim(self.path)
        try:
            self._con = open_file(self.path, self.limits)
        except BaseException:
            release(self.path)
            raise
        try:
            self._con.sql("SET GLOBAL enable_external_access = false")
            self.cluster_id, self.group = identity(self._con, self.path)
        except BaseException:
            self._close()
            raise
        self._columns: dict[str, str] = {}

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """To look at what is there."""
        return self._con

    def tables(self) -> dict[str, StoredTable]:
        return stored_tables(self._con)

    def derived(self) -> dict[str, Derived]:
        return derived_tables(self._con)

    def settled(self, lacking: Sequence[Entry]) -> set[str]:
        """Of which transactions with these records the store waits for nothing more, at the position that it has: parts
        may lie in tables that it does not follow any more, or below where it began."""
        transactions = {entry.marks.tx for entry in lacking if entry.marks.tx is not None}
        sql = "SELECT topic, partition, applied_offset FROM _merganser.positions"
        applied = {TopicPartition(topic, partition): offset for topic, partition, offset in run(self._con, sql)}
        passed = {entry.marks.tx for entry in lacking if entry.place.offset < applied.get(entry.place.partition, 0)}
        return decided(self._con, transactions) | (transactions & passed)

    # -- making one ----------------------------------------------------------------------------

    def begin(self, shadow: Derived, columns: Sequence[tuple[str, str]] = ()) -> None:
        """Begin *shadow* anew, with *columns* if they are known already. What a killed run left of it goes."""
        prepare(self._con)
        with transaction(self._con):
            note(self._con, replace(shadow, whole=False))
        self._step("noted")
        run(self._con, f"DROP TABLE IF EXISTS {quote(shadow.name)}")
        self._checkpoint()
        self._columns = {}
        if columns:
            self._create(shadow.name, dict(columns))

    def _create(self, name: str, columns: Mapping[str, str]) -> None:
        self._columns = {**columns, **dict(PLACE)}
        definitions = ", ".join(f"{quote(column)} {type_}" for column, type_ in self._columns.items())
        run(self._con, f"CREATE TABLE {quote(name)} ({definitions})")
        self._checkpoint()
        self._step("made")

    def add(self, name: str, rows: pa.Table, types: Mapping[str, str]) -> None:
        """Add *rows*, whose columns are of *types*; those that are new are added to the table."""
        check_room(self.path, self.limits, rows.nbytes)
        if not self._columns:
            self._create(name, {column: types[column] for column in rows.column_names if column in types})
        missing = [column for column in rows.column_names if column not in self._columns]
        for column in missing:
            run(self._con, f"ALTER TABLE {quote(name)} ADD COLUMN {quote(column)} {types[column]}")
            self._columns[column] = types[column]
        if missing:
            self._checkpoint()
        add_rows(self._con, quote(name), rows, self._columns)
        self._step("filled")

    def finish(self, shadow: Derived) -> None:
        """All of *shadow* is there."""
        if not self._columns:
            self._create(shadow.name, {})
        self._checkpoint()
        with transaction(self._con):
            note(self._con, replace(shadow, whole=True))
        self._step("whole")

    # -- putting it in place -------------------------------------------------------------------

    def swap_replica(self, shadow: Derived, side: duckdb.DuckDBPyConnection) -> None:
        """Put *shadow* in the place of its source, which stays a replica: what ``_merganser`` in *side* says of it,
        at the position that it has here, replaces what is said here."""
        table = shadow.source
        with self._swapping(shadow):
            # How long deletes may have been missed for: a replay is not the loop at the end of the log (FAILURES 35).
            sql = "SELECT caught_up_ms, partition FROM _merganser.positions WHERE topic = ?"
            times = run(self._con, sql, [table])
            self._forget_partitions(table)
            for name in PARTITIONED:
                self._copy(name, table, side)
            for at_ms, partition in times:
                sql = "UPDATE _merganser.positions SET caught_up_ms = ? WHERE topic = ? AND partition = ?"
                run(self._con, sql, [at_ms, table, partition])
            new = stored_tables(side)[table]
            sql = "UPDATE _merganser.tables SET superseded = ?, schema_version = ? WHERE topic = ?"
            run(self._con, sql, [new.superseded, new.schema_version, table])

    def swap_derived(self, shadow: Derived) -> None:
        """Put *shadow* in the place of its source, which is no replica any more."""
        with self._swapping(shadow):
            self._forget_partitions(shadow.source)
            run(self._con, "DELETE FROM _merganser.tables WHERE topic = ?", [shadow.source])
            note(self._con, replace(shadow, name=shadow.source, whole=True))

    @contextmanager
    def _swapping(self, shadow: Derived) -> Iterator[None]:
        self._checkpoint()
        with transaction(self._con):
            run(self._con, f"DROP TABLE IF EXISTS {quote(shadow.source)}")
            run(self._con, f"ALTER TABLE {quote(shadow.name)} RENAME TO {quote(shadow.source)}")
            forget(self._con, shadow.name)
            yield
            self._step("swapping")
        self._step("swapped")
        self._checkpoint()
        self._step("checkpointed")

    def _forget_partitions(self, table: str) -> None:
        for name in PARTITIONED:
            run(self._con, f"DELETE FROM _merganser.{name} WHERE topic = ?", [table])

    def _copy(self, name: str, table: str, side: duckdb.DuckDBPyConnection) -> None:
        """What *side* says of *table* in the small table *name*."""
        target = f"_merganser.{quote(name)}"
        if name == "positions":
            sql = "SELECT * FROM _merganser.positions WHERE topic = ?"
            add_rows(self._con, target, side.sql(sql, params=[table]).to_arrow_table(), {})
            return
        for (partition,) in run(side, f"SELECT DISTINCT partition FROM {target} WHERE topic = ?", [table]):
            stretch = Stretch(name, True, TopicPartition(table, partition))
            for chunk in chunks(side, stretch, CHUNK_ROWS, CHUNK_BYTES):
                add_rows(self._con, target, chunk.rows, {})

    def drop(self, name: str) -> None:
        """Remove the derived table *name*."""
        with transaction(self._con):
            run(self._con, f"DROP TABLE IF EXISTS {quote(name)}")
            forget(self._con, name)
        self._checkpoint()

    # -- inside --------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        run(self._con, "CHECKPOINT")

    def _close(self) -> None:
        try:
            self._con.close()
        finally:
            release(self.path)

    def __enter__(self) -> Shadows:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
