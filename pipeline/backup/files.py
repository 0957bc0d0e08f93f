"""The files of a snapshot: a chunk of rows each, as Parquet, named by what is in it.

Invariants
- One content, one name: a chunk that did not change since another backup has its file already.
- A name is the SHA-256 of the plain file; of an encrypted one an HMAC of it under the key, which tells nobody
  else what is in it. Each file is encrypted with a key made of the key and its name.
- Nothing that a table holds is lost on the way: NaNs keep their bits, minus zero its sign (a test says so).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ...consumers.contents import Chunk, Stretch
from ...schemas.errors import ArchiveDamaged
from ...schemas.position import TopicPartition
from ..archive.key import Key
from ..archive.objects import Objects

FOLDER = "files"

#: Columns of numbers, each a little more than the one before. A user's may have one of the names, and anything in it.
_RISING = ("_offset", "_timestamp", "offset")


class Entry(NamedTuple):
    """A file as a manifest lists it: what it is of, and the bytes that it has to have."""

    table: str
    system: bool
    topic: str
    partition: int
    first: int
    last: int
    rows: int
    address: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return name_of(self.address)

    @property
    def stretch(self) -> Stretch:
        whole = self.partition < 0
        return Stretch(self.table, self.system, None if whole else TopicPartition(self.topic, self.partition))


def name_of(address: str) -> str:
    return f"{FOLDER}/{address}.parquet"


@dataclass(frozen=True)
class Encoded:
    """A chunk's plain file, and the address of it."""

    plain: bytes
    address: str


def encode(rows: pa.Table, key: Key | None) -> Encoded:
    plain = _parquet(rows, None, "")
    return Encoded(plain, sha256(plain).hexdigest() if key is None else key.address(plain))


def sealed(encoded: Encoded, rows: pa.Table, key: Key | None) -> bytes:
    """The bytes to keep: the plain file, or it encrypted."""
    return encoded.plain if key is None else _parquet(rows, key, encoded.address)


def entry(chunk: Chunk, address: str, size: int, digest: str) -> Entry:
    topic, partition = chunk.stretch.partition or ("", -1)
    return Entry(
        chunk.stretch.table,
        chunk.stretch.system,
        topic,
        partition,
        chunk.first,
        chunk.last,
        chunk.rows.num_rows,
        address,
        size,
        digest,
    )


def read(objects: Objects, listed: Entry, key: Key | None) -> pa.Table:
    """The rows of a file that a manifest lists; ArchiveDamaged unless they are what was written."""
    data = objects.read(listed.name)
    if data is None:
        raise ArchiveDamaged(objects.url, listed.name, "it is missing")
    if why := changed(listed, data):
        raise ArchiveDamaged(objects.url, listed.name, why)
    try:
        table = pq.read_table(
            pa.BufferReader(data), decryption_properties=None if key is None else key.reading(listed.address)
        )
    except (pa.ArrowException, OSError) as error:
        raise ArchiveDamaged(objects.url, listed.name, f"it cannot be read: {error}") from error
    if table.num_rows != listed.rows:
        raise ArchiveDamaged(objects.url, listed.name, f"it has {table.num_rows} rows, {listed.rows} were written")
    return table


def changed(listed: Entry, data: bytes) -> str | None:
    """Why *data* is not what *listed* says; None if it is."""
    if len(data) != listed.size:
        return f"it has {len(data)} bytes, {listed.size} were written"
    if sha256(data).hexdigest() != listed.sha256:
        return "its bytes were changed"
    return None


def _parquet(rows: pa.Table, key: Key | None, salt: str) -> bytes:
    out = io.BytesIO()
    # Most columns of most tables have too many values for a dictionary: it took twice the time, and more room.
    pq.write_table(
        rows,
        out,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        column_encoding={
            field.name: "DELTA_BINARY_PACKED"
            for field in rows.schema
            if field.name in _RISING and (pa.types.is_integer(field.type) or pa.types.is_temporal(field.type))
        },
        write_statistics=False,
        encryption_properties=None if key is None else key.writing(salt),
    )
    return out.getvalue()
