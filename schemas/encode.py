"""Rows to Kafka values and keys.

Invariants: bytes come out only of a row that fits its schema whole; a reader of those bytes gets a
value equal to the one given (a *float* column keeps 32 bits, as its type says). Nothing is guessed:
a bool is no int, text is no bytes, a time of no zone is no instant, and a value finer than its
column is refused, not rounded.

The writers check while they write, one walk for both. fastavro's writer is not used: it takes bools
for ints, truncates timestamps and reads a naive datetime in the zone of the machine, and the checks
that would keep this out cost more than the writing. ``tests/schemas`` holds it as the oracle.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .avro import key_fields, row_type
from .defaults import encode_default, varint
from .errors import BadSchema, InvalidRow
from .layout import layout
from .rowcheck import RowChecker
from .table import SchemaVersion, Table
from .types import RANGES, UUID_TEXT, Field, Type

Put = Callable[[bytearray, Any], None]

_MISSING: Any = object()
_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()


class Refused(Exception):
    """Why a value does not fit; the containers it lies in add their part of *path* on the way up."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.value, self.why, self.path = value, why, ""

    def inside(self, part: object) -> Refused:
        """This, one container further out. A mapping that Python made may have any *part* as a name."""
        dotted = self.path and not self.path.startswith("[")
        self.path = f"{part}.{self.path}" if dotted else f"{part}{self.path}"
        return self


class RowEncoder:
    """Encodes the rows of one table by its latest schema. Safe to share between threads.

    A version that replicas refuse takes no rows, since each would be in quarantine: BadSchema. Keys are encoded.
    """

    def __init__(self, table: Table) -> None:
        self._table = table.name
        type_ = row_type(table.name, table.latest.schema)
        self.refused = _refusal(table)
        """Why replicas refuse all rows of the latest version; None if they take them."""
        self._value = _framed(table.latest, type_) if self.refused is None else _refusing(self.refused)
        self._columns = table.key
        #: Key columns that only the key carries, as in topics that others made.
        self._apart = frozenset(table.key) - {f.name for f in type_.fields}
        self._key = _key_writer(table)
        self._checker = RowChecker(table) if table.checks else None

    def value(self, row: Mapping[str, Any]) -> bytes:
        """The Kafka value of *row*; InvalidRow names the column that does not fit, or the check it breaks."""
        if self._apart and isinstance(row, Mapping):
            row = {name: value for name, value in row.items() if name not in self._apart}
        try:
            value = self._value(row)
        except Refused as e:
            raise InvalidRow(self._table, e.path, e.value, e.why) from None
        if self._checker is not None:
            self._checker.check(row)
        return value

    def key(self, row: Mapping[str, Any], *, exact: bool = False) -> bytes:
        """The Kafka key of *row*, which has at least the key columns (*exact*: and no other)."""
        try:
            key = {name: row[name] for name in self._columns}
        except (KeyError, TypeError):
            raise self._no_key(row) from None
        if exact and len(row) != len(key):
            extra = next(name for name in row if name not in key)
            raise InvalidRow(self._table, str(extra), row[extra], "not a key column")
        try:
            return self._key(key)
        except Refused as e:
            raise InvalidRow(self._table, e.path, e.value, e.why) from None

    def _no_key(self, row: object) -> InvalidRow:
        if not isinstance(row, Mapping):
            return InvalidRow(self._table, "", row, "a row is a mapping of column names to values")
        missing = next(name for name in self._columns if name not in row)
        return InvalidRow(self._table, missing, None, "the key column is missing")


def _refusal(table: Table) -> BadSchema | None:
    newest = table.latest.version
    why = layout(table.name, table.values, newest, key_fields(table)).refused.get(newest)
    if why is None:
        return None
    hint = "another client registered it: `merganser table alter` to one without that column, then to one with it"
    return BadSchema(table.name, f"version {newest}", f"replicas refuse its records: {why}", hint)


def _refusing(why: BadSchema) -> Callable[[Mapping[str, Any]], bytes]:
    def refuse(row: Mapping[str, Any]) -> bytes:
        raise replace(why)

    return refuse


# -- frames ----------------------------------------------------------------------------------


def prefix(schema_id: int) -> bytes:
    """Confluent's five bytes before the Avro body."""
    return struct.pack(">bI", 0, schema_id)


def _framed(version: SchemaVersion, type_: Type) -> Callable[[Mapping[str, Any]], bytes]:
    head, put = prefix(version.id), _writer(type_)

    def frame(row: Mapping[str, Any]) -> bytes:
        out = bytearray(head)
        put(out, row)
        return bytes(out)

    return frame


def _key_writer(table: Table) -> Callable[[Mapping[str, Any]], bytes]:
    if not table.key:
        return _no_key_writer
    if table.key_encoding == "avro":
        if table.key_schema is None:
            raise ValueError(f"table {table.name!r} has Avro keys and no key schema")
        return _framed(table.key_schema, row_type(table.name, table.key_schema.schema))
    (column,) = table.key
    pack = _PLAIN_KEYS[table.key_encoding]

    def plain(key: Mapping[str, Any]) -> bytes:
        try:
            return pack(key[column])
        except Refused as e:
            raise e.inside(column) from None

    return plain


def _no_key_writer(key: Mapping[str, Any]) -> bytes:
    raise Refused(None, "the table has no key")


def _string_key(value: Any) -> bytes:
    return _utf8(value)


def _int_key(value: Any) -> bytes:
    return struct.pack(">i", _whole(value, *RANGES["int"]))


def _long_key(value: Any) -> bytes:
    return struct.pack(">q", _whole(value, *RANGES["long"]))


_PLAIN_KEYS = {"string": _string_key, "int": _int_key, "long": _long_key}


# -- containers ------------------------------------------------------------------------------


def _writer(type_: Type) -> Put:
    if type_.null_branch is not None:
        return _optional(type_.null_branch, _writer(type_.required))
    match type_.kind:
        case "record":
            return _record(type_.fields)
        case "array":
            return _array(_writer(type_.element))
        case "map":
            return _map(_writer(type_.element))
    return _SCALARS[type_.kind](type_)


def _optional(null_branch: int, put_value: Put) -> Put:
    null, present = 2 * null_branch, 2 * (1 - null_branch)

    def put(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(null)
        else:
            out.append(present)
            put_value(out, value)

    return put


_NO_VALUE = "the value is missing and the schema has no default"


def _unknown(row: Mapping[Any, Any], names: Collection[str]) -> Any:
    """A name in *row* that the schema has not; None if there is none."""
    return next((name for name in row if name not in names), None)


def _no_column(name: Any, fields: Iterable[Field]) -> str:
    """Why *name*, which is none of the *fields*, is refused: it may have been one's name."""
    now = next((f.name for f in fields if name in f.aliases), None)
    return "the schema has no such column" + (f": it is {now!r} now" if now is not None else "")


def _record(fields: tuple[Field, ...]) -> Put:
    names = frozenset(f.name for f in fields)
    parts = tuple(
        (f.name, _writer(f.type), encode_default(f.type, f.default) if f.has_default else None) for f in fields
    )

    def put(out: bytearray, row: Any) -> None:
        if type(row) is not dict and not isinstance(row, Mapping):
            raise Refused(row, "not a mapping of names to values")
        left = len(row)
        name = ""
        try:
            for name, put_value, default in parts:
                value = row.get(name, _MISSING)
                if value is not _MISSING:
                    put_value(out, value)
                    left -= 1
                elif default is None:
                    name = _unknown(row, names) or name  # likelier misspelt than forgotten
                    raise Refused(row.get(name), _no_column(name, fields) if name in row else _NO_VALUE)
                else:
                    out += default
        except Refused as e:
            raise e.inside(name) from None
        if left:
            extra = _unknown(row, names)
            raise Refused(row[extra], _no_column(extra, fields)).inside(extra)

    return put


def _array(put_item: Put) -> Put:
    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise Refused(value, "not a list")
        if value:
            out += varint(len(value))
            i = 0
            try:
                for i, item in enumerate(value):  # noqa: B007  used where it fails
                    put_item(out, item)
            except Refused as e:
                raise e.inside(f"[{i}]") from None
        out.append(0)

    return put


def _map(put_item: Put) -> Put:
    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise Refused(value, "not a mapping of text to values")
        if value:
            out += varint(len(value))
            name: Any = None
            try:
                for name, item in value.items():
                    _put_text(out, name)
                    put_item(out, item)
            except Refused as e:
                raise e.inside(f"[{name!r}]") from None
        out.append(0)

    return put


# -- scalars ---------------------------------------------------------------------------------


def _whole(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(value, f"not a whole number but {_named(value)}")
    if not low <= value <= high:
        raise Refused(value, f"out of range: {low} to {high}")
    return value


def _utf8(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Refused(value, f"not text but {_named(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Refused(value, "text that UTF-8 cannot carry (a lone surrogate)") from None


def _named(value: object) -> str:
    return type(value).__name__


def _put_long(out: bytearray, value: int) -> None:
    rest = (value << 1) ^ (value >> 63)
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)


def _put_sized(out: bytearray, raw: bytes | bytearray) -> None:
    size = len(raw)
    if size < 64:
        out.append(size << 1)
    else:
        _put_long(out, size)
    out += raw


def _put_text(out: bytearray, value: Any) -> None:
    _put_sized(out, _utf8(value))


def _put_boolean(out: bytearray, value: Any) -> None:
    if value is True:
        out.append(1)
    elif value is False:
        out.append(0)
    else:
        raise Refused(value, f"not a bool but {_named(value)}")


def _integer(type_: Type) -> Put:
    low, high = RANGES[type_.kind]

    def put(out: bytearray, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            value = _whole(value, low, high)
        rest = (value << 1) ^ (value >> 63)
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)

    return put


def _floating(type_: Type) -> Put:
    pack = struct.Struct("<f" if type_.kind == "float" else "<d").pack
    exact = 2**24 if type_.kind == "float" else 2**53

    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, float) and not -exact <= _whole(value, *RANGES["long"]) <= exact:
            raise Refused(value, f"a {type_.kind} cannot hold every digit of it")
        try:
            out += pack(value)
        except OverflowError:
            raise Refused(value, "out of the range of a float") from None

    return put


def _binary(type_: Type) -> Put:
    size = type_.size

    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, (bytes, bytearray)):
            raise Refused(value, f"not bytes but {_named(value)}")
        if size is None:
            _put_sized(out, value)
        elif len(value) != size:
            raise Refused(value, f"{len(value)} bytes, not {size}")
        else:
            out += value

    return put


def _enum(type_: Type) -> Put:
    codes = {symbol: varint(i) for i, symbol in enumerate(type_.symbols)}

    def put(out: bytearray, value: Any) -> None:
        code = codes.get(value) if isinstance(value, str) else None
        if code is None:
            raise Refused(value, f"not one of {', '.join(codes)}")
        out += code

    return put


def _decimal(type_: Type) -> Put:
    limit, scale, size = 10**type_.precision, type_.scale, type_.size

    def put(out: bytearray, value: Any) -> None:
        number = unscaled(value, scale)
        if not -limit < number < limit:
            raise Refused(value, f"more than {type_.precision} digits at {scale} after the point")
        if size is None:
            # The fewest bytes in two's complement, as Java writes them: a key's bytes pick its partition.
            bits = (~number if number < 0 else number).bit_length()
            _put_sized(out, number.to_bytes(bits // 8 + 1, signed=True))
        else:
            out += number.to_bytes(size, signed=True)

    return put


def unscaled(value: Any, scale: int) -> int:
    """*value* counted in the last of *scale* digits after the point. Refused if it has more, or is no such number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * _ten_to(scale)
    if not isinstance(value, Decimal) or not value.is_finite():
        raise Refused(value, "not a finite Decimal")
    sign, digits, exponent = value.as_tuple()
    shift = int(exponent) + scale
    if not digits or digits == (0,):
        return 0
    # A Decimal may say 1E+999999: judge its size before writing it out.
    if len(digits) + shift > 80:
        raise Refused(value, f"more digits than any decimal({scale} after the point) holds")
    number = int("".join(map(str, digits)))
    if shift < 0:
        number, lost = divmod(number, 10 ** min(-shift, len(digits) + 1))
        if lost:
            raise Refused(value, f"more than {scale} digits after the point")
    return (-number if sign else number) * _ten_to(max(shift, 0))


def _ten_to(power: int) -> int:
    return int(10**power)


def _uuid(type_: Type) -> Put:
    as_text = type_.size is None

    def put(out: bytearray, value: Any) -> None:
        if isinstance(value, str) and UUID_TEXT.fullmatch(value):
            value = uuid.UUID(value)
        if not isinstance(value, uuid.UUID):
            raise Refused(value, "not a uuid")
        if as_text:
            _put_sized(out, str(value).encode())
        else:
            out += value.bytes

    return put


def _date(type_: Type) -> Put:
    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
            raise Refused(value, f"not a date but {_named(value)}")
        _put_long(out, value.toordinal() - _EPOCH_DAY)

    return put


def _time(type_: Type) -> Put:
    unit = 1000 if type_.kind == "time-millis" else 1

    def put(out: bytearray, value: Any) -> None:
        if not isinstance(value, dt.time) or value.tzinfo is not None:
            raise Refused(value, "not a time of day without a zone")
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        _put_micros(out, value, seconds * 1_000_000 + value.microsecond, unit)

    return put


def _moment(type_: Type) -> Put:
    """Instants and local timestamps: with a zone, and without."""
    zoned = type_.kind.startswith("timestamp")
    nanos, unit = type_.kind.endswith("nanos"), 1000 if type_.kind.endswith("millis") else 1
    epoch = _EPOCH_UTC if zoned else _EPOCH

    def put(out: bytearray, value: Any) -> None:
        if isinstance(value, int) and nanos:
            _put_long(out, _whole(value, *RANGES[type_.kind]))
            return
        if not isinstance(value, dt.datetime):
            raise Refused(value, f"not a datetime but {_named(value)}")
        _check_moment(value)
        if zoned and value.utcoffset() is None:
            raise Refused(value, "a datetime without a zone is no instant: give it a tzinfo")
        if not zoned and value.tzinfo is not None:
            raise Refused(value, "a local timestamp has no zone: drop the tzinfo")
        counted = _nanos_since(value, epoch)
        if nanos:
            _put_long(out, _whole(counted, *RANGES[type_.kind]))
            return
        micros, finer = divmod(counted, 1000)
        if finer:
            raise Refused(value, "finer than a microsecond: round it, or make the column nanos")
        _put_micros(out, value, _whole(micros, *RANGES["timestamp-micros"]), unit)

    return put


def nanoseconds(value: dt.datetime) -> int:
    """*value* counted from 1970, in UTC if it has a zone. Refused if it is no moment."""
    _check_moment(value)
    return _nanos_since(value, _EPOCH if value.utcoffset() is None else _EPOCH_UTC)


def _check_moment(value: dt.datetime) -> None:
    if value != value:  # pandas's NaT is a datetime too
        raise Refused(value, f"not a datetime but {_named(value)}")


def _nanos_since(value: dt.datetime, epoch: dt.datetime) -> int:
    # pandas's Timestamp is a datetime with three digits more.
    finer = 0 if type(value) is dt.datetime else getattr(value, "nanosecond", 0)
    return (value - epoch) // _MICROSECOND * 1000 + int(finer)


def _put_micros(out: bytearray, value: object, micros: int, unit: int) -> None:
    whole, lost = divmod(micros, unit)
    if lost:
        raise Refused(value, "finer than a millisecond: round it, or make the column micros")
    _put_long(out, whole)


_SCALARS: dict[str, Callable[[Type], Put]] = {
    "boolean": lambda _: _put_boolean,
    "int": _integer,
    "long": _integer,
    "float": _floating,
    "double": _floating,
    "string": lambda _: _put_text,
    "bytes": _binary,
    "fixed": _binary,
    "enum": _enum,
    "decimal": _decimal,
    "uuid": _uuid,
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "timestamp-nanos": _moment,
    "local-timestamp-millis": _moment,
    "local-timestamp-micros": _moment,
    "local-timestamp-nanos": _moment,
}
