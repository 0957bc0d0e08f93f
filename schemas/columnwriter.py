"""Many Arrow rows to Avro values at once, or not at all: the way back of ``columns.py``.

Invariant: ``ColumnWriter.values`` gives either exactly the bytes that ``encode.RowEncoder`` gives for the
same rows, or None. None only says that some row needs a closer look, row by row.

pyruhvro encodes, but not the schema as it is: it gets a *plain* one that has the same bytes and only the
types that it writes well. The five-byte prefix is a boolean (the magic 0) and a float (the id's bits), so
nothing is put together afterwards; integers, dates, times and enums are longs; a uuid is its text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from .arrow import arrow_type
from .columns import Doubtful, utf8, uuids
from .types import RANGES, Type, is_uuid_text

#: What a whole column is written of. Decimals, bytes and nested types are not among them: pyruhvro has no
#: bytes, and Arrow's strings must be UTF-8.
_KINDS = frozenset(["boolean", "float", "double", "string", "enum", *RANGES])


def supported(row: Type) -> bool:
    """True if `ColumnWriter` writes this record."""
    return all(f.type.kind in _KINDS or is_uuid_text(f.type.required) for f in row.fields)


class ColumnWriter:
    """Writes rows of one schema version, framed. Safe to share between threads."""

    def __init__(self, row: Type, schema_id: int) -> None:
        self._columns = [(f.name, _column(f.type)) for f in row.fields]
        prefix = [{"name": "magic", "type": "boolean"}, {"name": "id", "type": "float"}]
        fields = [{"name": f"c{i}", "type": column.plain} for i, (_, column) in enumerate(self._columns)]
        self._plain = json.dumps({"type": "record", "name": "row", "fields": prefix + fields})
        self._id = struct.unpack("<i", schema_id.to_bytes(4, "big"))[0]
        self._names = ["magic", "id", *(f"c{i}" for i in range(len(fields)))]

    def values(self, rows: pa.RecordBatch) -> list[bytes] | None:
        """The values of *rows*, which have every column in its Arrow type; None if one of them is in doubt."""
        count = rows.num_rows
        try:
            lowered = [column.lower(rows.column(name)) for name, column in self._columns]
        except (Doubtful, pa.ArrowInvalid):
            return None
        ids = pa.array([self._id], pa.int32()).view(pa.float32())
        prefix = [pa.repeat(False, count), pa.repeat(0.0, 0).cast(pa.float32()) if not count else _repeated(ids, count)]
        batch = pa.RecordBatch.from_arrays([*prefix, *lowered], names=self._names)
        written = pyruhvro.serialize_record_batch(batch, self._plain, 1)
        return [value for part in written for value in part.to_pylist()]


def _repeated(one: pa.Array, count: int) -> pa.Array:
    """The one value of *one*, so often, bit by bit: as a number it might be a NaN."""
    return pa.Array.from_buffers(one.type, count, [None, pa.py_buffer(one.buffers()[1].to_pybytes()[:4] * count)])


@dataclass(frozen=True)
class _Column:
    """How one column is written: its *plain* Avro type; *lower*, from our Arrow type to what pyruhvro
    takes for it, or Doubtful."""

    plain: Any
    lower: Callable[[pa.Array], pa.Array]


def _column(type_: Type) -> _Column:
    required = type_.required
    plain, lower = _plain(required), _lowering(required)
    if type_.null_branch is None:
        return _Column(plain, lambda a: lower(_no_null(_typed(required, a))))
    branches = ["null", plain] if type_.null_branch == 0 else [plain, "null"]
    return _Column(branches, lambda a: lower(_typed(required, a)))


def _plain(type_: Type) -> str:
    if type_.kind in ("boolean", "float", "double", "string"):
        return type_.kind
    return "string" if type_.kind == "uuid" else "long"


def _typed(type_: Type, a: pa.Array) -> pa.Array:
    if a.type != arrow_type(type_):
        raise Doubtful
    return a


def _no_null(a: pa.Array) -> pa.Array:
    if a.null_count:
        raise Doubtful
    return a


def _lowering(type_: Type) -> Callable[[pa.Array], pa.Array]:
    match type_.kind:
        case "boolean" | "double" | "float":
            return lambda a: a
        case "string":
            return utf8
        case "uuid":
            return uuids
        case "enum":
            return _codes(type_.symbols)
    return _whole(type_)


def _codes(symbols: tuple[str, ...]) -> Callable[[pa.Array], pa.Array]:
    known = pa.array(symbols, pa.string())

    def lower(a: pa.Array) -> pa.Array:
        codes = pc.index_in(a, value_set=known)
        if codes.null_count != a.null_count:
            raise Doubtful
        return codes.cast(pa.int64())

    return lower


def _whole(type_: Type) -> Callable[[pa.Array], pa.Array]:
    low, high = RANGES[type_.kind]
    width = 32 if arrow_type(type_).bit_width == 32 else 64
    millis = type_.kind.endswith("-millis")

    def lower(a: pa.Array) -> pa.Array:
        numbers = a.view(pa.int32() if width == 32 else pa.int64()).cast(pa.int64())
        if millis:
            whole = pc.divide(numbers, 1000)
            if pc.all(pc.equal(pc.multiply(whole, 1000), numbers)).as_py() is False:
                raise Doubtful
            numbers = whole
        found = pc.min_max(numbers).as_py()
        if found["min"] is not None and (found["min"] < low or found["max"] > high):
            raise Doubtful
        return numbers

    return lower
