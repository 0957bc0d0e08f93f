"""Many Avro values to Arrow columns at once, or not at all.

Invariant: ``ColumnReader.rows`` gives either exactly what the strict reader (``read.py``) gives for
the same values, or None. None only says that some value needs a closer look.

pyruhvro decodes, but not the schema as it is. It gets a *plain* one that has the same bytes and only
the types that it reads well, and the rest is done here on whole columns:

- the five-byte prefix is a boolean (the magic 0) and a float (the id's bits), so nothing is sliced;
- integers, dates, times and enums are longs, since pyruhvro cuts an int to 32 bits in silence;
- bytes and decimals are strings, since pyruhvro has no bytes and does not check UTF-8: we do;
- a map is an array of pairs, a fixed is a record of doubles and a float;
- no names, since pyruhvro knows no references.

It ignores bytes after a datum. Every encoding takes at least its canonical length, so if the
canonical lengths of all values add up to the bytes given, no value has a byte too many.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from .arrow import arrow_schema, arrow_type
from .types import RANGES, UUID_TEXT, Type, is_uuid_text

_PREFIX = [{"name": "magic", "type": "boolean"}, {"name": "id", "type": "float"}]
_PREFIX_SCHEMA = json.dumps({"type": "record", "name": "prefix", "fields": _PREFIX})


class Doubtful(Exception):
    """Some value in the column needs a closer look, alone."""


class ColumnReader:
    """Reads values of one schema version. Safe to share between threads."""

    def __init__(self, row: Type, schema_id: int) -> None:
        names = (f"r{i}" for i in count())
        self._schema = arrow_schema(row)
        self._lanes = [_lane(f.type, names) for f in row.fields]
        fields = [{"name": f"c{i}", "type": lane.plain} for i, lane in enumerate(self._lanes)]
        self._plain = json.dumps({"type": "record", "name": "row", "fields": _PREFIX + fields})
        self._id = schema_id

    def rows(self, values: list[bytes]) -> pa.RecordBatch | None:
        """All of *values*, complete with their prefix, as rows; None if one of them is in doubt."""
        batch = _decode(values, self._plain)
        if batch is None or _common_id(batch) != self._id:
            return None
        columns = list(zip(self._lanes, batch.columns[2:], strict=True))
        try:
            canonical = 5 * len(values) + sum(lane.size(column) for lane, column in columns)
            if canonical != sum(map(len, values)):
                return None
            lifted = [lane.lift(column) for lane, column in columns]
        except (Doubtful, pa.ArrowInvalid):
            return None
        return pa.RecordBatch.from_arrays(lifted, schema=self._schema)


def common_schema_id(values: list[bytes]) -> int | None:
    """The schema id that all *values* carry; None if they differ or one has no prefix."""
    batch = _decode(values, _PREFIX_SCHEMA)
    return None if batch is None else _common_id(batch)


def supported(row: Type) -> bool:
    """True if ``ColumnReader`` reads this type."""
    if row.kind == "record":
        return all(supported(f.type) for f in row.fields)
    if row.item is not None:
        return supported(row.item)
    return row.size is None or row.size % 4 == 0


def _decode(values: list[bytes], plain: str) -> pa.RecordBatch | None:
    try:
        return pyruhvro.deserialize_array(values, plain)
    except (ValueError, TypeError):
        return None
    except BaseException as e:
        # A text column above Arrow's 2 GiB makes it panic, which PyO3 raises outside of Exception.
        if type(e).__name__ != "PanicException":
            raise
        return None


def _common_id(batch: pa.RecordBatch) -> int | None:
    magic, ids = batch.column(0), batch.column(1).view(pa.int32())
    low, high = _bounds(ids)
    if not len(ids) or magic.true_count or low != high:
        return None
    return int.from_bytes(low.to_bytes(4, "little", signed=True))


# -- lanes: one column each ------------------------------------------------------------------


@dataclass(frozen=True)
class _Lane:
    """How one type is read: its *plain* Avro type; *lift*, from what pyruhvro gives to our Arrow type
    or Doubtful; and *size*, the canonical encoded bytes of a whole plain column."""

    plain: Any
    lift: Callable[[pa.Array], pa.Array]
    size: Callable[[pa.Array], int]


def _lane(type_: Type, names: Iterator[str]) -> _Lane:
    if type_.null_branch is not None:
        return _optional(type_.null_branch, _lane(type_.required, names))
    match type_.kind:
        case "record":
            return _record(arrow_type(type_), [_lane(f.type, names) for f in type_.fields], names)
        case "array":
            return _list(_lane(type_.element, names), arrow_type(type_))
        case "map":
            return _map(_lane(type_.element, names), arrow_type(type_), names)
        case "boolean":
            return _Lane("boolean", _same, len)
        case "float":
            return _Lane("float", _one_nan, lambda a: 4 * len(a))
        case "double":
            return _Lane("double", _one_nan, lambda a: 8 * len(a))
        case "enum":
            return _Lane("long", _symbols(type_.symbols), _varints)
    if type_.kind in RANGES:
        return _Lane("long", _integers(type_), _varints)
    if type_.size is not None:
        return _fixed(type_, type_.size, next(names))
    return _Lane("string", _texts(type_), _sized)


def _optional(null_branch: int, value: _Lane) -> _Lane:
    branches = ["null", value.plain] if null_branch == 0 else [value.plain, "null"]

    def size(a: pa.Array) -> int:
        return len(a) + value.size(a.drop_null() if a.null_count else a)

    return _Lane(branches, value.lift, size)


def _record(target: pa.DataType, lanes: list[_Lane], names: Iterator[str]) -> _Lane:
    fields = [{"name": f"c{i}", "type": lane.plain} for i, lane in enumerate(lanes)]

    def lift(a: pa.Array) -> pa.Array:
        children = [lane.lift(a.field(i)) for i, lane in enumerate(lanes)]
        return pa.Array.from_buffers(target, len(a), a.buffers()[:1], a.null_count, children=children)

    def size(a: pa.Array) -> int:
        return sum(lane.size(child) for lane, child in zip(lanes, a.flatten(), strict=True))

    return _Lane({"type": "record", "name": next(names), "fields": fields}, lift, size)


def _list(item: _Lane, target: pa.DataType) -> _Lane:
    def lift(a: pa.Array) -> pa.Array:
        children = [item.lift(a.values)]
        return pa.Array.from_buffers(target, len(a), a.buffers()[:2], a.null_count, children=children)

    def size(a: pa.Array) -> int:
        counts = pc.list_value_length(a)
        empty = pc.equal(counts, 0).true_count
        # A count, the items, and a closing 0; an empty list is the 0 alone.
        return len(a) - int(empty) + _varints(counts) + item.size(a.flatten())

    return _Lane({"type": "array", "items": item.plain}, lift, size)


def _map(value: _Lane, target: pa.DataType, names: Iterator[str]) -> _Lane:
    entry = pa.struct([target.key_field, target.item_field])
    pairs = _list(_record(entry, [_Lane("string", utf8, _sized), value], names), pa.list_(entry))

    def lift(a: pa.Array) -> pa.Array:
        lifted = pairs.lift(a)
        _no_key_twice(lifted)
        buffers = lifted.buffers()[:2]
        return pa.Array.from_buffers(target, len(a), buffers, a.null_count, children=[lifted.values])

    return _Lane(pairs.plain, lift, pairs.size)


def _no_key_twice(pairs: pa.Array) -> None:
    keys = pairs.flatten().field(0)
    if len(keys) <= 1:
        return
    where = pa.table({"map": pc.list_parent_indices(pairs), "key": keys})
    if where.group_by(["map", "key"]).aggregate([]).num_rows != len(keys):
        raise Doubtful


def _fixed(type_: Type, size: int, name: str) -> _Lane:
    parts = ["double"] * (size // 8) + ["float"] * (size % 8 // 4)
    fields = [{"name": f"c{i}", "type": part} for i, part in enumerate(parts)]

    def lift(a: pa.Array) -> pa.Array:
        raw = [_raw(a.field(i)) for i in range(len(parts))]
        joined = pc.binary_join_element_wise(*raw, b"") if len(raw) > 1 else raw[0]
        validity, (_, offsets, data) = a.buffers()[0], joined.buffers()
        if type_.kind == "uuid":
            return pa.Array.from_buffers(pa.binary(16), len(a), [validity, data])
        blobs = pa.Array.from_buffers(pa.binary(), len(a), [validity, offsets, data])
        return _decimals(type_)(blobs) if type_.kind == "decimal" else blobs

    return _Lane({"type": "record", "name": name, "fields": fields}, lift, lambda a: size * len(a))


def _raw(a: pa.Array) -> pa.Array:
    """The bytes of numbers, whether they count as null or not."""
    width = a.type.bit_width // 8
    return pa.Array.from_buffers(pa.binary(width), len(a), [None, a.buffers()[1]]).cast(pa.binary())


# -- lifting scalars -------------------------------------------------------------------------


def _same(a: pa.Array) -> pa.Array:
    return a


def _one_nan(a: pa.Array) -> pa.Array:
    nan = pc.is_nan(a)
    return pc.if_else(nan, pa.scalar(float("nan"), a.type), a) if nan.true_count else a


def _symbols(symbols: tuple[str, ...]) -> Callable[[pa.Array], pa.Array]:
    texts = pa.array(symbols, pa.string())

    def lift(a: pa.Array) -> pa.Array:
        _check_bounds(a, 0, len(symbols) - 1)
        return texts.take(a)

    return lift


def _integers(type_: Type) -> Callable[[pa.Array], pa.Array]:
    low, high = RANGES[type_.kind]
    target, millis = arrow_type(type_), type_.kind.endswith("-millis")

    def lift(a: pa.Array) -> pa.Array:
        if type_.kind == "long":
            return a
        _check_bounds(a, low, high)
        if type_.kind == "date":
            a = a.cast(pa.int32())
        return (pc.multiply(a, 1000) if millis else a).cast(target)

    return lift


def _texts(type_: Type) -> Callable[[pa.Array], pa.Array]:
    if is_uuid_text(type_):
        return uuids
    if type_.kind == "decimal":
        lift = _decimals(type_)
        return lambda a: lift(a.view(pa.binary()))
    return utf8 if type_.kind == "string" else lambda a: a.view(pa.binary())


def utf8(a: pa.Array) -> pa.Array:
    a.validate(full=True)
    return a


def uuids(a: pa.Array) -> pa.Array:
    if pc.all(pc.match_substring_regex(utf8(a), f"^{UUID_TEXT.pattern}$")).as_py() is False:
        raise Doubtful
    return pc.ascii_lower(a)  # one uuid, one text: keys are compared by it


def _decimals(type_: Type) -> Callable[[pa.Array], pa.Array]:
    target = arrow_type(type_)

    def lift(a: pa.Array) -> pa.Array:
        """Big-endian bytes of any length to the sixteen little-endian ones of decimal128."""
        full = a.fill_null(b"\0")
        lengths = pc.binary_length(full)
        _check_bounds(lengths, 1, 16)
        negative = pc.greater_equal(pc.binary_slice(full, 0, 1), pa.scalar(b"\x80"))
        fill = pc.if_else(negative, pa.scalar(b"\xff"), pa.scalar(b"\0"))
        rest = pc.binary_repeat(fill, pc.subtract(16, lengths))
        wide = pc.binary_join_element_wise(pc.binary_reverse(full), rest, b"")
        validity = a.buffers()[0] if a.null_count else None
        numbers = pa.Array.from_buffers(target, len(a), [validity, wide.buffers()[2]])
        numbers.validate(full=True)  # no more digits than the precision
        return numbers

    return lift


def _check_bounds(a: pa.Array, low: int, high: int) -> None:
    least, most = _bounds(a)
    if a.null_count < len(a) and (least < low or most > high):
        raise Doubtful


def _bounds(a: pa.Array) -> tuple[int, int]:
    """Least and most; (0, 0) if there is nothing."""
    found = pc.min_max(a).as_py()
    return found["min"] or 0, found["max"] or 0


# -- canonical sizes -------------------------------------------------------------------------


def _varints(a: pa.Array) -> int:
    """Bytes that the values of *a*, none of them null, take as zig-zag varints."""
    least, most = _bounds(a)
    if least < 0:
        # -1 takes the room of 0, -2 that of 1, and so on; of a number and its complement one is positive.
        a = pc.max_element_wise(a, pc.bit_wise_not(a))
        most = max(most, ~least)
    total, limit = len(a), 64
    while limit <= most:
        total += pc.greater_equal(a, limit).true_count
        limit <<= 7
    return total


def _sized(a: pa.Array) -> int:
    lengths = pc.binary_length(a)
    return _varints(lengths) + (pc.sum(lengths).as_py() or 0)
