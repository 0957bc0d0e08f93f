"""The DuckDB file of a replica: opening it by the right process, and what ``_merganser`` in it says.

Invariants: a file that is no store of this format, or that another process or Store has open, is
refused by name before anything in it changes.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ..schemas.disk import hint_of
from ..schemas.errors import StoreFailed, StoreFormat, StoreFull, StoreLocked, UsageError
from ..schemas.position import TopicPartition
from .checks import Held
from .reads import one_line

#: Of the layout of ``_merganser``. A store of another version is refused by name.
FORMAT = 3

SYSTEM_TABLES = """
CREATE SCHEMA _merganser;
CREATE TABLE _merganser.store (format INTEGER, cluster_id VARCHAR, group_name VARCHAR);
CREATE TABLE _merganser.tables (
    topic VARCHAR, topic_id VARCHAR, partitions INTEGER, key VARCHAR[], key_encoding VARCHAR,
    schema_version INTEGER, superseded BIGINT, stopped VARCHAR);
CREATE TABLE _merganser.positions (
    topic VARCHAR, partition INTEGER, topic_id VARCHAR, first_offset BIGINT, next_offset BIGINT,
    last_offset BIGINT, leader_epoch INTEGER, digest BLOB,
    puts BIGINT, deletes BIGINT, gaps BIGINT, caught_up_ms BIGINT,
    applied_offset BIGINT, rejected BIGINT, repeated BIGINT, late_from BIGINT, late_below BIGINT);
CREATE TABLE _merganser.quarantine (
    topic VARCHAR, partition INTEGER, "offset" BIGINT, timestamp TIMESTAMP WITH TIME ZONE,
    key BLOB, value BLOB, reason VARCHAR);
CREATE TABLE _merganser.pending (
    topic VARCHAR, partition INTEGER, "offset" BIGINT, timestamp_ms BIGINT, key BLOB, value BLOB,
    tx VARCHAR, manifest VARCHAR, condition VARCHAR, ops VARCHAR[], resolution VARCHAR, guarded BOOLEAN);
CREATE TABLE _merganser.rejections (
    topic VARCHAR, partition INTEGER, "offset" BIGINT, timestamp TIMESTAMP WITH TIME ZONE,
    tx VARCHAR, ops VARCHAR[], reason VARCHAR);
CREATE TABLE _merganser.operations (
    kind VARCHAR, id VARCHAR, topic VARCHAR, partition INTEGER, "offset" BIGINT, state VARCHAR, reason VARCHAR);
"""

#: The tables of ``_merganser`` whose rows belong to a partition, as (topic, partition).
PARTITIONED = ("quarantine", "pending", "rejections", "operations", "positions")


_NAME_HINT = "--store names the file of a replica, or a new one"


@dataclass(frozen=True)
class Limits:
    """What a store may use. Sizes in bytes, times in seconds."""

    memory: int = 160 * 2**20
    threads: int = 2
    head_room: int = 64 * 2**20
    """Free disk that must remain after a commit, for the checkpoint that follows it."""
    pending_bytes: int = 256 * 2**20
    """Keys and values that may wait for transactions to become whole."""
    spill: int = 4 * 2**30
    """What queries may put beside the file, in all, when memory does not suffice."""
    open_reads_s: float = 5.0
    """How long a schema change waits for open reads before it interrupts them."""

    def __post_init__(self) -> None:
        for name in ("memory", "threads", "head_room", "pending_bytes", "spill"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"Limits.{name} is a whole number (sizes in bytes), not {value!r}")
        if self.threads < 1:
            raise UsageError("Limits.threads is 1 at least")


@dataclass(frozen=True)
class StoredTable:
    """A table as the store has it."""

    topic: str
    topic_id: str
    partitions: int
    key: tuple[str, ...]
    key_encoding: str
    schema_version: int
    superseded: int
    stopped: str | None

    @property
    def declared_key(self) -> tuple[tuple[str, ...], str]:
        """Columns and encoding, as :class:`Table` has them."""
        return self.key, self.key_encoding if self.key else "avro"


def failed(path: Path, error: duckdb.Error) -> StoreFailed:
    """What to make of an *error* that a reopen does not mend."""
    return StoreFailed(str(path), one_line(error), hint=hint_of(error) or StoreFailed.hint)


def open_file(path: Path, limits: Limits, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """DuckDB's connection to the file, with its times in UTC; StoreLocked or StoreFormat in place of DuckDB's own
    words."""
    if not path.parent.is_dir():
        raise StoreFormat(str(path), "its folder does not exist", hint=f"mkdir -p {path.parent}")
    if path.name.partition(".")[0] == "_merganser":
        raise StoreFormat(str(path), "a file of that name hides what is in it from DuckDB", hint="give it another name")
    # DuckDB takes a file of JSON, CSV or Parquet for data and keeps its tables in memory: seen, and fatal here.
    try:
        ours = not path.exists() or not (head := _head(path)) or head[8:] == b"DUCK"
    except OSError as error:
        raise StoreFormat(str(path), str(error.strerror), hint=_NAME_HINT) from error
    if not ours:
        raise StoreFormat(str(path), "not a DuckDB file", hint=_NAME_HINT)
    config: dict[str, str | bool | int | float | list[str]] = {
        "storage_compatibility_version": "v1.5.0",
        "memory_limit": f"{limits.memory}B",
        "threads": limits.threads,
        "temp_directory": f"{path}.tmp",
        "max_temp_directory_size": f"{limits.spill}B",
        "python_enable_replacements": False,  # a query that names a variable of ours does not get to read it
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    new = not read_only and not path.exists()
    try:
        con = duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.IOException as error:
        first = str(error).splitlines()[0]
        if "Could not set lock" in first:  # the path is in it too, and may be of any words
            raise StoreLocked(str(path), _holder(first)) from error
        begun = path.exists()
        if new and begun:
            path.unlink()  # what there is of it would be refused the next time
        elif begun and size_of(path) == 0:
            raise StoreFormat(str(path), "the file is empty", hint=f"rm {path}: a new store is made there") from error
        raise StoreFormat(str(path), first, hint=hint_of(error) or StoreFormat.hint) from error
    except duckdb.Error as error:
        raise StoreFormat(str(path), str(error).splitlines()[0]) from error
    try:
        con.sql("SET GLOBAL TimeZone = 'UTC'")
    except BaseException:
        con.close()
        raise
    return con


def check_room(path: Path, limits: Limits, nbytes: int) -> None:
    """StoreFull unless the disk takes *nbytes* more of Arrow: they are in the WAL and, after a checkpoint, in the
    file, so twice their size is ample."""
    needed = 2 * nbytes + limits.head_room
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreFull(str(path), f"{free / 2**20:.0f} MiB free, {needed / 2**20:.0f} MiB needed")


def wal_of(path: Path) -> Path:
    """Where DuckDB has what it has not checkpointed yet; after a checkpoint there is no such file."""
    return path.with_name(path.name + ".wal")


def size_of(path: Path) -> int:
    """In bytes; 0 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _head(path: Path) -> bytes:
    """Where a DuckDB file has a checksum and its mark; empty in an empty file."""
    with path.open("rb") as file:
        return file.read(12)


def _holder(message: str) -> str:
    """Who holds the lock, out of DuckDB's message."""
    _, found, rest = message.partition("held in ")
    return rest.split(" by user")[0].split(". See")[0].rstrip(". ") if found else message


_open_paths: set[Path] = set()
_open_lock = threading.Lock()


def claim(path: Path) -> None:
    """Have *path* for one Store of this process. StoreLocked if another has it."""
    # DuckDB hands a second connection in one process the same database: it would be applied twice.
    with _open_lock:
        if path in _open_paths:
            raise StoreLocked(str(path), "this very process")
        _open_paths.add(path)


def release(path: Path) -> None:
    with _open_lock:
        _open_paths.discard(path)


def identity(con: duckdb.DuckDBPyConnection, path: Path) -> tuple[str, str]:
    """Cluster and group of the open store; StoreFormat if it is none, or of another format."""
    found = con.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_merganser' AND table_name = 'store'"
    ).fetchall()
    if not found:
        raise StoreFormat(str(path), "a DuckDB file, but not a Merganser store", hint=_NAME_HINT)
    [(format_,)] = con.execute("SELECT format FROM _merganser.store").fetchall()
    if format_ != FORMAT:
        raise StoreFormat(str(path), f"store format {format_}, this version reads {FORMAT}")
    [(cluster_id, group)] = con.execute("SELECT cluster_id, group_name FROM _merganser.store").fetchall()
    return cluster_id, group


def held_partitions(con: duckdb.DuckDBPyConnection) -> dict[TopicPartition, Held]:
    """What the open store is of, whether the tables are made yet or not."""
    rows = con.execute(
        "SELECT topic, partition, topic_id, first_offset, next_offset, late_from, late_below FROM _merganser.positions"
    ).fetchall()
    return {
        TopicPartition(t, p): Held(id_, first, next_, range(low, high)) for t, p, id_, first, next_, low, high in rows
    }


def stored_tables(con: duckdb.DuckDBPyConnection) -> dict[str, StoredTable]:
    """The tables of the open store, by name."""
    rows = con.execute(
        "SELECT topic, topic_id, partitions, key, key_encoding, schema_version, superseded, stopped"
        " FROM _merganser.tables ORDER BY topic"
    ).fetchall()
    return {
        topic: StoredTable(topic, topic_id, partitions, tuple(key), encoding, version, superseded, stopped)
        for topic, topic_id, partitions, key, encoding, version, superseded, stopped in rows
    }
