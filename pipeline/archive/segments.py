"""Records ↔ the bytes of a Parquet file, without loss.

A row holds all that Kafka keeps of a record: offset, timestamp and its kind, key, value, every header in its
order (names may come again, values may be missing), and the leader epoch. Files are compressed by zstd, and
may be encrypted. Any Parquet tool reads them.

Memory: a file is built and read as a whole, and a segment is bounded (:class:`SegmentLimits`); rows come out
one row group at a time.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...consumers.checks import Seen, digest
from ...consumers.chunk import Chunk, WholeChunk
from ...schemas.headers import ERASED, Headers, ours
from .key import Key

_HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("timestamp_kind", pa.int8(), nullable=False),
        pa.field("leader_epoch", pa.int32()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS),
    ]
)

#: Rows that are decoded at once when a segment is read.
ROW_GROUP = 32_768

_NAME, _VALUE = itemgetter(0), itemgetter(1)


@dataclass(frozen=True)
class SegmentLimits:
    """When a segment is closed: whichever comes first. *total_bytes* bounds the open ones of all partitions."""

    records: int = 1_000_000
    bytes: int = 32 * 2**20
    """Of keys, values and headers, before compression."""
    age_s: float = 60.0
    """How long a record waits, at most, before its segment is closed."""
    total_bytes: int = 128 * 2**20


def columns(records: WholeChunk, first: int, stop: int) -> pa.RecordBatch:
    """The records from index *first* up to *stop*, which are of one partition, as columns."""
    run = slice(first, stop)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(records.offsets[run], pa.int64()),
            pa.array(records.times_ms[run], pa.int64()),
            pa.array(records.kinds[run], pa.int8()),
            pa.array(records.record_epochs[run], pa.int32()),
            pa.array(records.keys[run], pa.binary()),
            pa.array(records.values[run], pa.binary()),
            _header_column(records.all_headers[run]),
        ],
        schema=SCHEMA,
    )


def _header_column(headers: Sequence[Headers | None]) -> pa.Array:
    if not any(headers):
        return pa.nulls(len(headers), _HEADERS)
    flat = list(chain.from_iterable(filter(None, headers)))
    values = [value.encode() if isinstance(value, str) else value for value in map(_VALUE, flat)]
    ends = accumulate((len(each or ()) for each in headers), initial=0)
    entries = pa.StructArray.from_arrays(
        [pa.array(map(_NAME, flat), pa.string()), pa.array(values, pa.binary())], fields=list(_HEADERS.value_type)
    )
    missing = pa.array([not each for each in headers], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entries, type=_HEADERS, mask=missing)


def encode(batches: Sequence[pa.RecordBatch], facts: Mapping[str, str], key: Key | None, salt: str) -> bytes:
    """A Parquet file of *batches*, with *facts* for people who find it alone. Releases the GIL for most of it."""
    out = io.BytesIO()
    table = pa.Table.from_batches(batches, SCHEMA.with_metadata({f"merganser.{n}": v for n, v in facts.items()}))
    pq.write_table(
        table,
        out,
        compression="zstd",
        compression_level=1,
        row_group_size=ROW_GROUP,
        use_dictionary=["timestamp_ms", "timestamp_kind", "leader_epoch", "headers.list.element.name"],
        column_encoding={"offset": "DELTA_BINARY_PACKED"},
        write_statistics=["offset", "timestamp_ms"],
        store_schema=False,
        encryption_properties=None if key is None else key.writing(salt),
    )
    return out.getvalue()


def decode(data: bytes, key: Key | None, salt: str) -> pq.ParquetFile:
    """The file in *data*, to be read by :func:`batches`. pa.ArrowException and OSError: it is no such file."""
    return pq.ParquetFile(pa.BufferReader(data), decryption_properties=None if key is None else key.reading(salt))


def nothing() -> pq.ParquetFile:
    """A file without records, to be read as one of a segment that has some."""
    return decode(encode([], {}, None, ""), None, "")


def batches(file: pq.ParquetFile, rows: int = ROW_GROUP, first_offset: int = 0) -> Iterator[pa.RecordBatch]:
    """The records from *first_offset* on, *rows* at a time."""
    groups = [g for g in range(file.metadata.num_row_groups) if _last_offset(file, g) >= first_offset]
    for batch in file.iter_batches(batch_size=rows, row_groups=groups):
        skipped = int(pc.sum(pc.less(batch["offset"], first_offset)).as_py() or 0)
        if skipped < batch.num_rows:
            yield batch.slice(skipped)


def headers_at(batch: pa.RecordBatch, i: int) -> list[tuple[str, bytes | None]]:
    """The headers of the record at index *i*."""
    return [(entry["name"], entry["value"]) for entry in batch["headers"][i].as_py() or ()]


def without(batch: pa.RecordBatch, gone: Collection[int], stand_ins: Mapping[int, Headers]) -> pa.RecordBatch:
    """*batch*, less the records at the offsets *gone*; of *stand_ins* these headers are left, and no key or value."""
    kept = batch.filter(pc.invert(_among(batch, gone)))
    mine = _among(kept, stand_ins)
    if not pc.any(mine, min_count=0).as_py():
        return kept
    found = _headers_of(kept)
    offsets = kept["offset"].to_pylist()
    headers = [stand_ins.get(offset, found.get(i)) for i, offset in enumerate(offsets)]
    none = pa.scalar(None, pa.binary())
    columns = {name: kept[name] for name in SCHEMA.names}
    columns |= {name: pc.if_else(mine, none, kept[name]) for name in ("key", "value")}
    return pa.RecordBatch.from_arrays([*(columns | {"headers": _header_column(headers)}).values()], schema=SCHEMA)


def _among(batch: pa.RecordBatch, offsets: Collection[int]) -> pa.Array:
    return pc.is_in(batch["offset"], value_set=pa.array(list(offsets), pa.int64()))


def last_of(batch: pa.RecordBatch, erased: bool = True) -> Seen | None:
    """The last record in *batch*; if some were *erased*, the last one that stands in for none: what the log has too.
    None if there is none."""
    for i in reversed(range(batch.num_rows)):
        headers = batch["headers"][i].as_py() if erased else None
        if not any(entry["name"] == ERASED for entry in headers or ()):
            offset, key, value, epoch = (batch[name][i].as_py() for name in ("offset", "key", "value", "leader_epoch"))
            return Seen(offset, digest(key, value), epoch)
    return None


def _last_offset(file: pq.ParquetFile, group: int) -> int:
    statistics = file.metadata.row_group(group).column(0).statistics
    return -1 if statistics is None else int(statistics.max)  # a group without records has none


def fill(chunk: Chunk, partition: int, batch: pa.RecordBatch) -> None:
    """Add the records of *batch* to *chunk*, as the reader of a log does."""
    start, count = len(chunk), batch.num_rows
    headers = _headers_of(batch)
    epochs = batch["leader_epoch"].to_pylist()
    chunk.partitions += [partition] * count
    chunk.offsets += batch["offset"].to_pylist()
    chunk.keys += batch["key"].to_pylist()
    chunk.values += batch["value"].to_pylist()
    chunk.times_ms += batch["timestamp_ms"].to_pylist()
    chunk.epochs[partition] = epochs[-1]
    chunk.headers |= {start + i: mine for i, found in headers.items() if (mine := ours(found))}
    if isinstance(chunk, WholeChunk):
        chunk.kinds += batch["timestamp_kind"].to_pylist()
        chunk.record_epochs += epochs
        chunk.all_headers += map(headers.get, range(count))
    chunk.changed()


def _headers_of(batch: pa.RecordBatch) -> dict[int, list[tuple[str, bytes | None]]]:
    column = batch["headers"]
    if column.null_count == len(column):
        return {}
    entries: dict[int, list[tuple[str, bytes | None]]] = {}
    for i, found in enumerate(column.to_pylist()):
        if found:
            entries[i] = [(entry["name"], entry["value"]) for entry in found]
    return entries


def schema_ids(values: Sequence[bytes | None]) -> set[bytes]:
    """The first five bytes of each framed value: which schemas it takes to read them."""
    prefixes: Any = set(map(_PREFIX, filter(None, values)))
    return {prefix for prefix in prefixes if len(prefix) == 5 and prefix[0] == 0}


_PREFIX = itemgetter(slice(0, 5))
