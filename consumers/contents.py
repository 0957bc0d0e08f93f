"""What a store holds, as Arrow: out of one store, and into another.

A *stretch* is what chunks are cut from: the rows of one partition of one table, in the order of their
offsets, or a small table of ``_merganser`` whole. A *chunk* is a run of a stretch, at most so many bytes.

Invariants
- Chunks are a function of a stretch's rows alone. A chunk ends before a row whose offset says so, or when it
  is full, so that rows that come and go elsewhere leave it as it is: there is nothing of it to copy again.
- Memory holds one chunk. DuckDB sorts the rows of one chunk at a time.
- What :class:`Loading` was given is a store only once it is finished; until then nobody may open it as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ..schemas.position import Position, TopicPartition
from ..schemas.types import quote
from .dbfile import FORMAT, SYSTEM_TABLES, Limits, claim, open_file, release
from .statements import run, view

#: The tables of ``_merganser`` that have rows of a partition at an offset; the others are small.
_PLACED = ("quarantine", "pending", "rejections", "operations")
_WHOLE = ("tables", "positions")

#: One row in so many begins a chunk.
CHUNK_ROWS = 65_536
#: A chunk is cut when its rows take so many bytes in memory.
CHUNK_BYTES = 32 * 2**20

_BATCH_ROWS = 2_048

#: Fibonacci hashing: offsets side by side fall far apart, so chunks are of even size. In 63 bits.
_MARKED = "((({offset} & 2147483647) * 2654435761) >> 12) & {mask} = 0"


@dataclass(frozen=True)
class Columns:
    """A user's table as SQL has it."""

    table: str
    columns: tuple[tuple[str, str], ...]


class Stretch(NamedTuple):
    """*table* is a user's, or one of ``_merganser`` if *system*. *partition* is None in a small one."""

    table: str
    system: bool
    partition: TopicPartition | None

    @property
    def sql(self) -> str:
        return f"_merganser.{quote(self.table)}" if self.system else quote(self.table)

    @property
    def offset(self) -> str:
        """The column by which rows are in order."""
        return '"offset"' if self.system else "_offset"

    @property
    def where(self) -> str:
        """SQL that is true of its rows."""
        if self.partition is None:
            return "true"
        topic, number = self.partition
        if not self.system:
            return f"_partition = {number}"
        return f"""topic = '{topic.replace("'", "''")}' AND partition = {number}"""


class Chunk(NamedTuple):
    """A run of the rows of *stretch*; *first* and *last* are offsets, -1 in a small table."""

    stretch: Stretch
    rows: pa.Table
    first: int
    last: int


# -- out of a store ----------------------------------------------------------------------------


def columns_of(cursor: duckdb.DuckDBPyConnection, tables: Collection[str]) -> list[Columns]:
    """The columns of each of *tables*, in their order."""
    sql = (
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        " WHERE schema_name = 'main' AND NOT internal ORDER BY table_name, column_index"
    )
    found: dict[str, list[tuple[str, str]]] = {table: [] for table in sorted(tables)}
    for table, name, type_ in run(cursor, sql):
        if table in found:
            found[table].append((name, type_))
    return [Columns(table, tuple(columns)) for table, columns in found.items()]


def stretches(cursor: duckdb.DuckDBPyConnection, position: Position) -> list[Stretch]:
    """All of a store that has the partitions of *position*, as *cursor* sees it."""
    found = [Stretch(tp.topic, False, tp) for tp in sorted(position)]
    for name in _PLACED:
        rows = run(cursor, f"SELECT DISTINCT topic, partition FROM _merganser.{name} ORDER BY ALL")
        found += [Stretch(name, True, TopicPartition(*row)) for row in rows]
    return found + [Stretch(name, True, None) for name in _WHOLE]


def chunks(
    cursor: duckdb.DuckDBPyConnection, stretch: Stretch, rows: int = CHUNK_ROWS, nbytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """The rows of *stretch* as *cursor*, inside a transaction, sees them. *rows* is a power of two."""
    if stretch.partition is None:
        table = _reader(cursor, f"SELECT * FROM {stretch.sql} ORDER BY ALL").read_all()
        if table.num_rows:
            yield Chunk(stretch, table, -1, -1)
        return
    for bounds in _ranges(cursor, stretch, rows):
        yield from _cut(cursor, stretch, bounds, nbytes)


def _ranges(cursor: duckdb.DuckDBPyConnection, stretch: Stretch, rows: int) -> Iterator[tuple[int, int]]:
    """Offsets, from and up to, between the rows that begin a chunk."""
    marked = _MARKED.format(offset=stretch.offset, mask=rows - 1)
    sql = f"SELECT DISTINCT {stretch.offset} FROM {stretch.sql} WHERE {stretch.where} AND {marked} ORDER BY 1"
    low = 0
    for (at,) in cursor.execute(sql).fetchall():
        if at > low:
            yield low, at
        low = at
    yield low, 2**63 - 1


def _cut(cursor: duckdb.DuckDBPyConnection, stretch: Stretch, bounds: tuple[int, int], nbytes: int) -> Iterator[Chunk]:
    """The rows between *bounds*, in chunks of about *nbytes*."""
    low, high = bounds
    where = f"{stretch.where} AND {stretch.offset} >= {low} AND {stretch.offset} < {high}"
    batches: list[pa.RecordBatch] = []
    for batch in _reader(cursor, f"SELECT * FROM {stretch.sql} WHERE {where} ORDER BY {_order(stretch)}"):
        batches.append(batch)
        if sum(b.nbytes for b in batches) >= nbytes:
            yield _chunk(stretch, batches)
            batches = []
    if any(batch.num_rows for batch in batches):
        yield _chunk(stretch, batches)


def _order(stretch: Stretch) -> str:
    # `operations` alone may have several rows at one offset.
    return f"{stretch.offset}, kind, id" if stretch.table == "operations" and stretch.system else stretch.offset


def _reader(cursor: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    return cursor.sql(sql).to_arrow_reader(_BATCH_ROWS)


def _chunk(stretch: Stretch, batches: Sequence[pa.RecordBatch]) -> Chunk:
    table = pa.Table.from_batches(batches)
    offsets = table.column(stretch.offset.strip('"'))
    return Chunk(stretch, table, offsets[0].as_py(), offsets[-1].as_py())


# -- into another ------------------------------------------------------------------------------


def add_rows(con: duckdb.DuckDBPyConnection, table: str, rows: pa.Table, types: Mapping[str, str]) -> None:
    """Insert *rows*, which came out of a store as Arrow, into *table*, which is SQL. *types* are those of columns
    that are cast back to what they were."""
    columns = [f"CAST({quote(name)} AS {types[name]})" if name in types else quote(name) for name in rows.column_names]
    names = ", ".join(map(quote, rows.column_names))
    with view(con, "#loaded", rows):
        run(con, f'INSERT INTO {table} ({names}) SELECT {", ".join(columns)} FROM "#loaded"')


class Loading:
    """A new store in the making, at *path*, where no file may be. For one thread, in a ``with``."""

    def __init__(self, path: Path, cluster_id: str, group: str, limits: Limits | None = None) -> None:
        self.path = path.resolve()
        claim(self.path)
        try:
            self._con = open_file(self.path, limits or Limits())
        except BaseException:
            release(self.path)
            raise
        self._con.sql("SET GLOBAL enable_external_access = false")
        self._con.execute(SYSTEM_TABLES).fetchall()
        self._con.execute("INSERT INTO _merganser.store VALUES (?, ?, ?)", [FORMAT, cluster_id, group]).fetchall()
        self._types: dict[str, dict[str, str]] = {}

    def add_table(self, columns: Columns) -> None:
        """Make the table that *columns* says, empty."""
        self._types[columns.table] = dict(columns.columns)
        definitions = ", ".join(f"{quote(name)} {type_}" for name, type_ in columns.columns)
        run(self._con, f"CREATE TABLE {quote(columns.table)} ({definitions})")

    def add(self, stretch: Stretch, rows: pa.Table) -> None:
        """Add *rows*, which came out of the same table of another store."""
        add_rows(self._con, stretch.sql, rows, {} if stretch.system else self._types[stretch.table])

    def keep_only(self, tables: Collection[str]) -> None:
        """Forget what the small tables say of others than *tables*."""
        for name in _WHOLE:
            run(self._con, f"DELETE FROM _merganser.{name} WHERE NOT list_contains(?, topic)", [list(tables)])

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """To look at what is there so far."""
        return self._con

    def close(self) -> None:
        """Write all of it to the disk."""
        try:
            run(self._con, "CHECKPOINT")
        finally:
            self._con.close()
            release(self.path)

    def __enter__(self) -> Loading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._con.close()
            release(self.path)
