"""One Avro datum to one row: the strict reader, which decides what is a row.

Invariants: every byte string is either one row or one reason; the answer depends on those bytes and
the schema alone. Bytes after the datum, a length that runs past the end, a value that its SQL type
cannot hold: each is a reason. Memory is bounded by the bytes given, since each item takes one.

Plain Python, a few microseconds a row. The vectorised way (``columns.py``) has to agree with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .types import RANGES, UUID_TEXT, Field, Type, fits_decimal

Get = Callable[[bytes, int], tuple[Any, int]]

NULL = "null value"

_NAN = float("nan")


class Damaged(Exception):
    """Why some bytes are no row."""


class RowReader:
    """Reads the values of one schema version."""

    def __init__(self, row: Type, schema_id: int) -> None:
        self._get = _reader(row)
        self._id = schema_id

    def row(self, value: bytes | None) -> dict[str, Any]:
        """The row in the form that Arrow takes (times as integers); Damaged if there is none."""
        if value is None:
            raise Damaged(NULL)
        found = schema_id(value)
        if found != self._id:
            raise Damaged(f"schema id {found}, not {self._id}")
        try:
            row, end = self._get(value, 5)
        except (IndexError, struct.error):
            raise Damaged(f"cut short: {len(value)} bytes end inside the row") from None
        if end != len(value):
            raise Damaged(f"{len(value) - end} trailing bytes after the row")
        return row  # type: ignore[no-any-return]


def read_value(type_: Type, raw: bytes) -> Any:
    """The one value of *type_* that *raw* is, as `RowReader` reads it in a row."""
    return _reader(type_)(raw, 0)[0]


def schema_id(value: bytes | None) -> int:
    """The id in Confluent's five-byte prefix; Damaged if there is no such prefix."""
    if value is None:
        raise Damaged(NULL)
    if len(value) < 5:
        raise Damaged(f"{len(value)} bytes: too short for the five-byte schema prefix")
    if value[0] != 0:
        raise Damaged(f"the first byte is {value[0]}, not 0: no Confluent schema prefix")
    return int.from_bytes(value[1:5])


# -- containers ------------------------------------------------------------------------------


def _reader(type_: Type) -> Get:
    if type_.null_branch is not None:
        return _optional(type_.null_branch, _reader(type_.required))
    match type_.kind:
        case "record":
            return _record(type_.fields)
        case "array":
            return _array(_reader(type_.element))
        case "map":
            return _map(_reader(type_.element))
        case "string":
            return _text
        case "boolean":
            return _boolean
        case "float" | "double":
            return _floating(type_)
        case "enum":
            return _enum(type_.symbols)
    return _integer(type_) if type_.kind in RANGES else _binary(type_)


def _optional(null_branch: int, get_value: Get) -> Get:
    def get(buf: bytes, at: int) -> tuple[Any, int]:
        branch, at = _long(buf, at)
        if branch == null_branch:
            return None, at
        if branch != 1 - null_branch:
            raise Damaged(f"union branch {branch} of 2")
        return get_value(buf, at)

    return get


def _record(fields: tuple[Field, ...]) -> Get:
    parts = tuple((f.name, _reader(f.type)) for f in fields)

    def get(buf: bytes, at: int) -> tuple[Any, int]:
        row = {}
        for name, get_value in parts:
            row[name], at = get_value(buf, at)
        return row, at

    return get


def _array(get_item: Get) -> Get:
    def get(buf: bytes, at: int) -> tuple[Any, int]:
        items: list[Any] = []
        while True:
            count, at = _block(buf, at)
            if count == 0:
                return items, at
            for _ in range(count):
                item, at = get_item(buf, at)
                items.append(item)

    return get


def _map(get_item: Get) -> Get:
    def pair(buf: bytes, at: int) -> tuple[Any, int]:
        name, at = _text(buf, at)
        item, at = get_item(buf, at)
        return (name, item), at

    get_pairs = _array(pair)

    def get(buf: bytes, at: int) -> tuple[Any, int]:
        pairs, at = get_pairs(buf, at)
        if len({name for name, _ in pairs}) != len(pairs):
            raise Damaged("a map with the same key twice")
        return pairs, at

    return get


def _block(buf: bytes, at: int) -> tuple[int, int]:
    count, at = _long(buf, at)
    if count < 0:
        # A negative count has the block's size in bytes behind it, for readers that skip blocks.
        _, at = _long(buf, at)
        count = -count
    if count > len(buf) - at:
        raise Damaged(f"a block of {count} items in {len(buf) - at} bytes")
    return count, at


# -- scalars ---------------------------------------------------------------------------------


def _long(buf: bytes, at: int) -> tuple[int, int]:
    byte = buf[at]
    at += 1
    bits = byte & 127
    shift = 7
    while byte > 127:
        if shift > 63:
            raise Damaged("a number of more than ten bytes")
        byte = buf[at]
        at += 1
        bits |= (byte & 127) << shift
        shift += 7
    # Ten bytes carry 70 bits; like other readers, keep 64.
    bits &= 0xFFFFFFFFFFFFFFFF
    return (bits >> 1) ^ -(bits & 1), at


def _sized(buf: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(buf, at)
    end = at + size
    if size < 0:
        raise Damaged(f"a length of {size}")
    if end > len(buf):
        raise Damaged(f"a length of {size} with {len(buf) - at} bytes left")
    return buf[at:end], end


def _text(buf: bytes, at: int) -> tuple[str, int]:
    raw, at = _sized(buf, at)
    try:
        return raw.decode(), at
    except UnicodeDecodeError as e:
        raise Damaged(f"text that is not UTF-8: {e.reason}") from None


def _boolean(buf: bytes, at: int) -> tuple[bool, int]:
    byte = buf[at]
    if byte > 1:
        raise Damaged(f"a boolean of {byte}")
    return byte == 1, at + 1


def _integer(type_: Type) -> Get:
    low, high = RANGES[type_.kind]
    unit = 1000 if type_.kind.endswith("-millis") else 1

    def get(buf: bytes, at: int) -> tuple[int, int]:
        value, at = _long(buf, at)
        if not low <= value <= high:
            raise Damaged(f"{value} is out of the range of {type_.kind}")
        return value * unit, at

    return get


def _floating(type_: Type) -> Get:
    form = struct.Struct("<f" if type_.kind == "float" else "<d")

    def get(buf: bytes, at: int) -> tuple[float, int]:
        (value,) = form.unpack_from(buf, at)
        # Every NaN is the same one: their spare bits would differ between two ways of decoding.
        return (value if value == value else _NAN), at + form.size

    return get


def _enum(symbols: tuple[str, ...]) -> Get:
    def get(buf: bytes, at: int) -> tuple[str, int]:
        index, at = _long(buf, at)
        if not 0 <= index < len(symbols):
            raise Damaged(f"enum symbol {index} of {len(symbols)}")
        return symbols[index], at

    return get


def _binary(type_: Type) -> Get:
    """Bytes and fixed, and the decimals and uuids that travel as either."""
    get_raw = _sized if type_.size is None else _fixed(type_.size)
    if type_.kind == "decimal":
        return _decimal(type_, get_raw)
    return _uuid_text if type_.kind == "uuid" and type_.size is None else get_raw


def _fixed(size: int) -> Get:
    def get(buf: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        if end > len(buf):
            raise IndexError
        return buf[at:end], end

    return get


def _decimal(type_: Type, get_raw: Get) -> Get:
    def get(buf: bytes, at: int) -> tuple[Decimal, int]:
        raw, at = get_raw(buf, at)
        if not raw:
            raise Damaged("a decimal of no bytes")
        unscaled = int.from_bytes(raw, signed=True)
        if not fits_decimal(type_, unscaled):
            raise Damaged(f"a decimal of more than {type_.precision} digits")
        digits = tuple(map(int, str(abs(unscaled))))
        return Decimal((unscaled < 0, digits, -type_.scale)), at

    return get


def _uuid_text(buf: bytes, at: int) -> tuple[str, int]:
    text, at = _text(buf, at)
    if not UUID_TEXT.fullmatch(text):
        raise Damaged("text that is no uuid")
    return text.lower(), at
