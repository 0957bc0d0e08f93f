"""Avro defaults: from the JSON form in a schema to the bytes that a record carries.

Invariant: what this module writes is what any Avro library writes for that default.
"""

from __future__ import annotations

import struct
from typing import Any

from .types import RANGES, UUID_TEXT, Type, fits_decimal, is_uuid_text


def varint(value: int) -> bytes:
    """A zig-zag varint: Avro's int and long, lengths, counts and branches."""
    out = bytearray()
    rest = (value << 1) ^ (value >> 63)
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def encode_default(type_: Type, default: Any) -> bytes:
    """The Avro bytes of *default*; ValueError, TypeError or LookupError if it does not fit."""
    if type_.null_branch is not None:
        if default is None:
            return varint(type_.null_branch)
        return varint(1 - type_.null_branch) + encode_default(type_.required, default)
    match type_.kind:
        case "array":
            return _blocks([encode_default(type_.element, item) for item in _checked(default, list)])
        case "map":
            pairs = _checked(default, dict).items()
            return _blocks([_sized(k.encode()) + encode_default(type_.element, v) for k, v in pairs])
        case "record":
            given = _checked(default, dict)
            return b"".join(
                encode_default(f.type, given[f.name] if f.name in given or not f.has_default else f.default)
                for f in type_.fields
            )
    return _scalar(type_, default)


def _scalar(type_: Type, default: Any) -> bytes:
    match type_.kind:
        case "boolean":
            return b"\1" if _checked(default, bool) else b"\0"
        case "float" | "double":
            return _floating(type_, default)
        case "string":
            return _sized(_checked(default, str).encode())
        case "enum":
            return varint(type_.symbols.index(default))
    if type_.kind in RANGES:
        low, high = RANGES[type_.kind]
        if isinstance(default, bool) or not low <= _checked(default, int) <= high:
            raise ValueError(f"not a whole number of {low} to {high}")
        return varint(default)
    raw: bytes = _checked(default, str).encode("ascii" if is_uuid_text(type_) else "latin-1")
    if is_uuid_text(type_) and not UUID_TEXT.fullmatch(default):
        raise ValueError("not the text of a uuid")
    if type_.kind == "decimal" and not raw:
        raise ValueError('no bytes are no number: zero is "\\u0000"')
    if type_.kind == "decimal" and not fits_decimal(type_, int.from_bytes(raw, signed=True)):
        raise ValueError(f"more than {type_.precision} digits")
    if type_.size is None:
        return _sized(raw)
    if len(raw) != type_.size:
        raise ValueError(f"{len(raw)} bytes, not {type_.size}")
    return raw


def _floating(type_: Type, default: Any) -> bytes:
    if isinstance(default, bool):
        raise TypeError("not a number")
    try:
        return struct.pack("<f" if type_.kind == "float" else "<d", float(default))
    except OverflowError:
        raise ValueError(f"out of the range of a {type_.kind}") from None


def _checked(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise TypeError(f"not a {expected.__name__}")
    return value


def _sized(raw: bytes) -> bytes:
    return varint(len(raw)) + raw


def _blocks(items: list[bytes]) -> bytes:
    return (varint(len(items)) + b"".join(items) if items else b"") + b"\0"
