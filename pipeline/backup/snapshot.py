"""A snapshot: all that a store holds at one position, as files in an object store.

Invariants
- Everything is read in one transaction, so it is of one position, while the replica goes on (FAILURES 30).
- A file that is there is not written again, and nothing is undone: after a kill, or when a schema change
  interrupts the read, it begins again and finds what was uploaded by its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import duckdb

from ...consumers.contents import CHUNK_BYTES, CHUNK_ROWS, Chunk, chunks, columns_of, stretches
from ...consumers.dbfile import stored_tables
from ...consumers.digest import quarantine_digest, table_digest
from ...consumers.reads import positions
from ...schemas.errors import BackupFailed, ReadInterrupted
from ...schemas.position import Position, TopicPartition
from ..archive.key import Key
from ..archive.objects import Objects
from . import files
from .manifest import TableFacts

T = TypeVar("T")

#: How often a snapshot begins again because of schema changes.
_TRIES = 20

#: The steps of a snapshot; tests stop the process at each.
STEPS = ("begun", "file-written", "read")


class Source(Protocol):
    """A store to take a snapshot of: a live Replica, or a StoreFile."""

    @property
    def path(self) -> Path: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def group(self) -> str: ...
    def reading(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A cursor inside one read-only transaction."""
        ...


@dataclass(frozen=True)
class ChunkLimits:
    """How large a file gets. *rows* is a power of two."""

    rows: int = CHUNK_ROWS
    bytes: int = CHUNK_BYTES


class Bytes(NamedTuple):
    """What a file has to be."""

    size: int
    sha256: str


@dataclass(frozen=True)
class State:
    """Where a store is, and what its tables are."""

    read: Position
    applied: Position
    since: Position
    tables: tuple[TableFacts, ...]


@dataclass(frozen=True)
class Snapshot:
    """A state, and the files that hold it. *new_bytes* of them had to be written."""

    state: State
    files: tuple[files.Entry, ...]
    new_bytes: int


class Watch(Protocol):
    """Who is told how far a long piece of work is."""

    def begin(self, what: str, total: int) -> None: ...
    def advance(self, by: int) -> None: ...


class Unwatched:
    def begin(self, what: str, total: int) -> None:
        pass

    def advance(self, by: int) -> None:
        pass


def patiently(source: Source, read: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """What *read* comes to in one transaction of *source*. When schema changes interrupt it, it begins again."""
    for _ in range(_TRIES):
        try:
            with source.reading() as cursor:
                return read(cursor)
        except ReadInterrupted:
            continue
    raise BackupFailed(f"schema changes interrupted the read of {source.path} {_TRIES} times")


def state_of(cursor: duckdb.DuckDBPyConnection) -> State:
    """What *cursor*, inside a transaction, sees."""
    read, applied = positions(cursor)
    stored = stored_tables(cursor)
    since = cursor.execute("SELECT topic, partition, first_offset FROM _merganser.positions").fetchall()
    tables = tuple(
        TableFacts(
            columns.table,
            stored[columns.table].topic_id,
            stored[columns.table].partitions,
            columns.columns,
            str(table_digest(cursor, columns.table)),
            str(quarantine_digest(cursor, columns.table)),
            stored[columns.table].stopped or "",
        )
        for columns in columns_of(cursor, stored)
    )
    return State(read, applied, Position({TopicPartition(t, p): n for t, p, n in since}), tables)


@dataclass
class Snapshotter:
    """Takes snapshots into *objects*."""

    objects: Objects
    key: Key | None = None
    limits: ChunkLimits = field(default_factory=ChunkLimits)
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None
    _there: dict[str, Bytes] = field(default_factory=dict, repr=False)
    """Files that are there and may be named again; the hash is empty where nobody knows it."""

    def take(self, source: Source, known: Mapping[str, Bytes]) -> Snapshot:
        """A snapshot of *source*. *known* are files that other backups name."""
        there = {f.name: f.size for f in self.objects.list(files.FOLDER)}
        self._there = {name: known.get(name) or Bytes(size, "") for name, size in there.items()}
        for name, size in there.items():
            if self._there[name].size != size:
                del self._there[name]  # damaged: write it again
        return patiently(source, self._take)

    def _take(self, cursor: duckdb.DuckDBPyConnection) -> Snapshot:
        self.step("begun")
        state = state_of(cursor)
        self.watch.begin("snapshot", sum(int(table.digest.partition("-")[0]) for table in state.tables))
        entries: list[files.Entry] = []
        new_bytes = 0
        for stretch in stretches(cursor, state.read):
            for chunk in chunks(cursor, stretch, self.limits.rows, self.limits.bytes):
                entry, written = self._keep(chunk)
                entries.append(entry)
                new_bytes += written
                self.watch.advance(chunk.rows.num_rows)
        self.step("read")
        return Snapshot(state, tuple(entries), new_bytes)

    def _keep(self, chunk: Chunk) -> tuple[files.Entry, int]:
        """The file of *chunk*, written unless it is there; and how many bytes were."""
        encoded = files.encode(chunk.rows, self.key)
        name, written = files.name_of(encoded.address), 0
        there = self._there.get(name)
        if there is None or (self.key is None and there.size != len(encoded.plain)):
            data = files.sealed(encoded, chunk.rows, self.key)
            self.objects.put(name, data)
            self.step("file-written")
            there, written = Bytes(len(data), sha256(data).hexdigest()), len(data)
        elif not there.sha256:
            there = Bytes(there.size, encoded.address if self.key is None else self._hash(name))
        self._there[name] = there
        return files.entry(chunk, encoded.address, *there), written

    def _hash(self, name: str) -> str:
        """Of an encrypted file that a killed process left: no manifest says what its bytes are."""
        return sha256(self.objects.read(name) or b"").hexdigest()
