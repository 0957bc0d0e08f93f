"""Values of an Arrow column as a row holds them, whoever made the column.

Invariant: a value is the same one in another form, or is left as it is, for whoever encodes the row to refuse.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from .arrow import with_leaves
from .types import DAY_MILLIS, MAX_DATE, MIN_DATE, Type

_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def row_values(a: pa.Array, type_: Type) -> list[Any]:
    """The values of *a* as a row holds them; what does not fit *type_* is left as it is, to be refused."""
    countable = with_leaves(a.type, _countable)
    plain = a.cast(countable) if countable != a.type else a
    shape = _shape(a.type, type_)
    try:
        found: list[Any] = plain.to_pylist(maps_as_pydicts="strict")
    except (KeyError, ValueError):
        found = [_value(each) for each in plain]
    if shape is None:
        return found
    return [value if value is None or value is _TWICE else shape(value) for value in found]


#: In the place of a value with a map that has a key twice: text is refused for what it should be.
_TWICE = "a map that has a key twice"


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except (KeyError, ValueError):
        return _TWICE


def _countable(type_: pa.DataType) -> pa.DataType:
    """*type_* with each timestamp, date and time as the number that it is: Python has none with nanoseconds, no
    year 10000, and takes 24:00 for 00:00."""
    types = pa.types
    if types.is_timestamp(type_) or types.is_date64(type_) or types.is_time64(type_):
        return pa.int64()
    return pa.int32() if types.is_date32(type_) or types.is_time32(type_) else type_


Shape = Callable[[Any], Any]


def _shape(given: pa.DataType, type_: Type) -> Shape | None:
    """From a value that is countable to what a row holds; None if it is that already."""
    types = pa.types
    if types.is_timestamp(given):
        return _moment(given, type_)
    if types.is_date(given):
        return _day(1 if types.is_date32(given) else DAY_MILLIS)
    if types.is_time(given):
        return _clock(given)
    if type_.kind == "uuid" and types.is_fixed_size_binary(given) and given.byte_width == 16:
        return lambda value: uuid.UUID(bytes=value)
    if types.is_struct(given) and type_.kind == "record":
        wanted = {f.name: f.type.required for f in type_.fields}
        shapes = {f.name: _shape(f.type, wanted[f.name]) for f in given if f.name in wanted}
        return lambda value: {name: _shaped(shapes.get(name), item) for name, item in value.items()}
    if types.is_map(given) and type_.kind == "map":
        item_shape = _shape(given.item_type, type_.element.required)
        return lambda value: {name: _shaped(item_shape, item) for name, item in value.items()}
    if _is_list(given) and type_.kind == "array":
        element = _shape(given.value_type, type_.element.required)
        return None if element is None else lambda value: [_shaped(element, item) for item in value]
    return None


def _is_list(type_: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def _shaped(shape: Shape | None, value: Any) -> Any:
    return value if value is None or shape is None else shape(value)


def _day(per_day: int) -> Shape:
    """A number of days, or of a day's parts, as a row has it."""

    def day(value: int) -> Any:
        days, lost = divmod(value, per_day)
        return value if lost or not MIN_DATE <= days <= MAX_DATE else _EPOCH.date() + dt.timedelta(days=days)

    return day


_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}


def _clock(given: pa.DataType) -> Shape:
    """A number of *given* units since midnight as a row has it. One that is no time of day is left a number."""
    per_second = _PER_SECOND[given.unit]

    def clock(value: int) -> Any:
        micros, lost = divmod(value * 1_000_000, per_second)
        if lost or not 0 <= micros < DAY_MILLIS * 1000:
            return value
        return (_EPOCH + dt.timedelta(microseconds=micros)).time()

    return clock


def _moment(given: pa.DataType, type_: Type) -> Shape:
    """A number of *given* units since 1970 as a row has it. One that cannot be is left a number, and refused."""
    per_second = _PER_SECOND[given.unit]
    if type_.kind.endswith("nanos"):
        return lambda value: value * (1_000_000_000 // per_second)
    epoch = _EPOCH if given.tz is None else _EPOCH_UTC

    def moment(value: int) -> Any:
        micros, lost = divmod(value * 1_000_000, per_second)
        try:
            return value if lost else epoch + dt.timedelta(microseconds=micros)
        except OverflowError:
            return value

    return moment
