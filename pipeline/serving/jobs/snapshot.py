"""All tables of a replica at one position, on their way to who makes a file of them.

The form: Arrow streams, one table after another. The metadata of each stream's schema says which table it is, its
columns and their SQL types, the position, and how many streams there are.

Invariants
- All of it is of one state. It is read at full speed into a file without a name, and the store is left then.
- One at a time, and never so that the disk is left with too little for the apply loop.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb
import pyarrow as pa

from ....consumers.contents import Columns, columns_of
from ....consumers.dbfile import stored_tables
from ....consumers.reads import positions
from ....schemas.errors import ServiceError, TooBusy, TooLarge
from ....schemas.position import Position
from ....schemas.types import quote
from ...backup.snapshot import Source, patiently
from .sink import Sink

ABOUT = b"merganser:snapshot"

_BATCH_ROWS = 16_384

#: Of the disk, what stays free whatever is spooled.
_HEAD_ROOM = 256 * 2**20

_one = threading.Lock()


class About(NamedTuple):
    """What the metadata of a stream says. *of* is the number of streams."""

    table: str
    columns: tuple[tuple[str, str], ...]
    position: str
    applied: str
    group: str
    cluster: str
    of: int

    def metadata(self) -> dict[bytes, bytes]:
        return {ABOUT: json.dumps(self._asdict()).encode()}


@dataclass(frozen=True)
class Spooled:
    """*file* is at its beginning; who has it closes it."""

    file: IO[bytes]
    nbytes: int


def spooled(source: Source, wanted: Callable[[str], bool]) -> Spooled:
    """The tables of *source* that are *wanted* in a file without a name beside the store. TooBusy, TooLarge."""
    if not _one.acquire(blocking=False):
        raise TooBusy("another snapshot is being taken")
    try:
        return patiently(source, lambda cursor: _spool(source, cursor, wanted))
    finally:
        _one.release()


def _spool(source: Source, cursor: duckdb.DuckDBPyConnection, wanted: Callable[[str], bool]) -> Spooled:
    # Whoever sends it closes it.
    file = tempfile.TemporaryFile(dir=source.path.parent, prefix=".merganser-snapshot-")  # noqa: SIM115
    try:
        for piece in streams(source, cursor, wanted):
            if shutil.disk_usage(source.path.parent).free - len(piece) < _HEAD_ROOM:
                raise TooLarge("the node has too little disk left to keep a snapshot")
            file.write(piece)
        nbytes = file.tell()
        file.seek(0)
        return Spooled(file, nbytes)
    except BaseException:
        file.close()
        raise


def streams(source: Source, cursor: duckdb.DuckDBPyConnection, wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """The *wanted* tables that *cursor*, inside a transaction, sees, as Arrow streams."""
    tables = [name for name in stored_tables(cursor) if wanted(name)]
    read, applied = (position.of(frozenset(tables)) for position in positions(cursor))
    places = (str(read), str(applied), source.group, source.cluster_id)
    for columns in columns_of(cursor, tables):
        yield from _stream(cursor, columns, About(columns.table, columns.columns, *places, len(tables)))


def _stream(cursor: duckdb.DuckDBPyConnection, columns: Columns, about: About) -> Iterator[bytes]:
    reader = cursor.sql(f"SELECT * FROM {quote(columns.table)}").to_arrow_reader(_BATCH_ROWS)
    sink = Sink()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    schema = reader.schema.with_metadata(about.metadata())
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema, options=options) as stream:
        for batch in reader:
            stream.write_batch(batch)
            yield sink.take()
    yield sink.take()


# -- into a file -----------------------------------------------------------------------------


class Made(NamedTuple):
    """What a file was made of."""

    tables: dict[str, int]
    position: Position


def write_file(stream: Any, path: Path) -> Made:
    """Make a DuckDB file at *path* of the streams in *stream*. It takes its name once it is whole."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(beside), config={"storage_compatibility_version": "v1.5.0"}) as con:
            made = _fill(con, stream)
            con.execute("CHECKPOINT").fetchall()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
        beside.with_name(beside.name + ".wal").unlink(missing_ok=True)
    return made


def _fill(con: duckdb.DuckDBPyConnection, stream: Any) -> Made:
    con.execute("SET TimeZone = 'UTC'").fetchall()
    tables: dict[str, int] = {}
    about: About | None = None
    while about is None or len(tables) < about.of:
        with pa.ipc.open_stream(stream) as reader:
            about = _about(reader.schema)
            tables[about.table] = _table(con, about, reader)
    con.execute("CREATE SCHEMA _merganser").fetchall()
    columns = '"position" VARCHAR, applied VARCHAR, group_name VARCHAR, cluster_id VARCHAR'
    con.execute(f"CREATE TABLE _merganser.snapshot ({columns})").fetchall()
    facts = [about.position, about.applied, about.group, about.cluster]
    con.execute("INSERT INTO _merganser.snapshot VALUES (?, ?, ?, ?)", facts).fetchall()
    return Made(tables, Position.parse(about.position))


def _about(schema: pa.Schema) -> About:
    told = (schema.metadata or {}).get(ABOUT)
    if told is None:
        raise ServiceError("what came is no snapshot")
    facts = json.loads(told)
    return About(**{**facts, "columns": tuple((name, type_) for name, type_ in facts["columns"])})


def _table(con: duckdb.DuckDBPyConnection, about: About, reader: pa.RecordBatchReader) -> int:
    definitions = ", ".join(f"{quote(name)} {type_}" for name, type_ in about.columns)
    con.execute(f"CREATE TABLE {quote(about.table)} ({definitions})").fetchall()
    columns = ", ".join(f"CAST({quote(name)} AS {type_})" for name, type_ in about.columns)
    con.register("#coming", reader)
    try:
        [(rows,)] = con.execute(f'INSERT INTO {quote(about.table)} SELECT {columns} FROM "#coming"').fetchall()
    finally:
        con.unregister("#coming")
    return int(rows)
