"""An export: the users' columns of one table, at one position, as a file.

Invariants:
- All of it is of one state of the store, read in one transaction, in the order of partition and offset: two
  replicas at one position write the same rows in the same order.
- A file is there whole or not at all, and its manifest after it: what has a manifest can be checked against it.
- No value is changed. A type that a format cannot carry is refused before anything is written.

Steps, for tests that kill: ``written``, ``placed``, ``published``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import duckdb
import pyarrow as pa

from ...consumers.digest import columns_digest, table_digest
from ...consumers.reads import positions
from ...schemas.errors import NotFreshEnough, UnknownTable, UsageError
from ...schemas.position import Position
from ...schemas.table import RESERVED_COLUMNS
from ...schemas.types import quote
from ..files import sync_folder
from .inputs import MANIFEST, Compression, packing
from .remote import exists, remove, upload
from .writers import WRITERS, FileFormat, check_types

#: Told how many more rows are written.
Progress = Callable[[int], None]

_ROWS = 16_384
_FORMAT = 1


class Store(Protocol):
    """A Replica, or a StoreFile."""

    def reading(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]: ...


@dataclass(frozen=True)
class Exported:
    """What is in a file: its manifest. *digest* is what `audit` prints of the table at *position*; *columns_digest*
    is of the users' columns alone, and so that of any table with the same rows."""

    table: str
    file: str
    file_format: str
    rows: int
    size: int
    sha256: str
    position: str
    applied: str
    digest: str
    columns_digest: str

    def manifest(self) -> bytes:
        return (json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n").encode()


def export_table(
    store: Store,
    table: str,
    to: str,
    file_format: FileFormat,
    *,
    at_least: Position | None = None,
    force: bool = False,
    progress: Progress = lambda rows: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write *table* to the path, or object store URL, *to*, and its manifest beside it.

    NotFreshEnough if the store has not applied *at_least*; UsageError if a column's type is none that the format
    can carry, or if the file is there (unless *force*). A name that ends in ``.gz`` or ``.zst`` is packed so.
    """
    place, packed = _Place(to, force), packing(to)
    if packed and file_format == "parquet":
        raise UsageError(f"{to}: Parquet files compress themselves: leave the ending away")
    with store.reading() as cursor:
        columns = _columns(cursor, table)
        check_types(table, columns, file_format)
        _check_applied(positions(cursor)[1], at_least)
        read, applied = (position.of({table}) for position in positions(cursor))
        names = ", ".join(map(quote, columns))
        rows = cursor.sql(f"SELECT {names} FROM {quote(table)} ORDER BY _partition, _offset").to_arrow_reader(_ROWS)
        with place.part() as part:
            count, size, sha256 = _write(rows, part, file_format, packed, progress)
            on_step("written")
            digests = str(table_digest(cursor, table)), str(columns_digest(cursor, table))
            done = Exported(table, place.name, file_format, count, size, sha256, str(read), str(applied), *digests)
            place.publish(part, done.manifest(), on_step)
    return done


def _check_applied(applied: Position, at_least: Position | None) -> None:
    """A token may be of a transaction, and so of other tables too."""
    if at_least is not None and not applied.reaches(at_least):
        mine = applied.of({tp.topic for tp in at_least})
        why = f"the store has applied {mine or 'nothing'}, not {at_least}"
        raise NotFreshEnough("export", 0, why, "`merganser replica run --until-end` brings the store up first")


_NOT_KEPT_UP = "; of a shadow, or a derived table, `merganser query --format csv` writes the rows"


def _columns(cursor: duckdb.DuckDBPyConnection, table: str) -> dict[str, Any]:
    """The users' columns with their DuckDB types."""
    held = [name for (name,) in cursor.execute("SELECT topic FROM _merganser.tables ORDER BY topic").fetchall()]
    if table not in held:
        raise UnknownTable(table, hint=f"this store has {', '.join(held)}{_NOT_KEPT_UP}")
    found = cursor.sql(f"SELECT * FROM {quote(table)} LIMIT 0")
    pairs = zip(found.columns, found.types, strict=True)
    return {name: type_ for name, type_ in pairs if name not in RESERVED_COLUMNS}


def _write(
    rows: pa.RecordBatchReader, part: Path, file_format: FileFormat, packed: Compression | None, progress: Progress
) -> tuple[int, int, str]:
    """Rows, bytes and SHA-256 of the file *part*, which is on the disk then."""
    count = 0
    with part.open("wb") as file:
        with _packed(file, packed) as stream, WRITERS[file_format](stream, rows.schema) as writer:
            for batch in rows:
                writer.write(batch)
                count += batch.num_rows
                progress(batch.num_rows)
    with part.open("rb") as written:
        os.fsync(written.fileno())
        digest = hashlib.file_digest(written, "sha256")
    return count, part.stat().st_size, digest.hexdigest()


def _packed(file: IO[bytes], how: Compression | None) -> AbstractContextManager[Any]:
    if how == "gzip":  # without name and time: what is the same comes out the same
        return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
    return nullcontext(file) if how is None else pa.CompressedOutputStream(pa.PythonFile(file, "w"), how)


class _Place:
    """Where an export goes to."""

    def __init__(self, to: str, force: bool) -> None:
        parts = urlsplit(to)
        if not to or to.endswith("/") or ("://" not in to and Path(to).is_dir()):
            raise UsageError(f"--to names a file, not {to!r}")
        self._url = to if "://" in to and parts.scheme != "file" else None
        self._path = Path(unquote(parts.path) if parts.scheme == "file" else to)
        self.name = to.rpartition("/")[2]
        self._force = force
        if self._url is None and not self._path.parent.is_dir():
            raise UsageError(f"{to}: its folder does not exist")
        if not force and (self._path.exists() if self._url is None else exists(self._url)):
            error = UsageError(f"{to} is there already")
            error.hint = "--force replaces it, or name another file"
            raise error

    def part(self) -> AbstractContextManager[Path]:
        """A new file, gone at the end unless it was published."""
        folder = Path(tempfile.gettempdir()) if self._url else self._path.parent
        return _Part(folder / f".{self.name}.{uuid4().hex[:12]}.part")

    def publish(self, part: Path, manifest: bytes, on_step: Callable[[str], None]) -> None:
        """The file, then its manifest; an older manifest goes first, or it would speak of another file."""
        if self._url is not None:
            remove(self._url + MANIFEST)
            upload(part, self._url)
            on_step("placed")
            with self.part() as listed:
                listed.write_bytes(manifest)
                upload(listed, self._url + MANIFEST)
        else:
            beside = self._path.with_name(self._path.name + MANIFEST)
            beside.unlink(missing_ok=True)
            part.replace(self._path)
            sync_folder(self._path.parent)
            on_step("placed")
            with self.part() as listed:
                with listed.open("wb") as file:
                    file.write(manifest)
                    file.flush()
                    os.fsync(file.fileno())
                listed.replace(beside)
            sync_folder(self._path.parent)
        on_step("published")


class _Part(AbstractContextManager[Path]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *exc: object) -> None:
        self._path.unlink(missing_ok=True)
