"""Parquet files: columns that have types already, brought to those of the table where no value changes by it.

Invariant: a value is taken as it is or refused, as `Producer.put` would: no number is rounded, no time gets a zone.
Nanoseconds are taken for instants of UTC and for local times alike, since a store keeps both without a zone.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...schemas.arrow import arrow_type
from ...schemas.errors import BadInput
from ...schemas.table import Table
from ...schemas.types import DAY_MILLIS, MAX_DATE, MIN_DATE, Type
from .pieces import Piece, Row, fields_of, matched, whole

_ROWS = 16_384


class ParquetSource:
    """The rows of a Parquet file. A piece takes as much memory as the columns of a row group, compressed, at most."""

    unit = "row"

    def __init__(self, name: str, stream: IO[bytes], renames: Mapping[str, str], table: Table) -> None:
        self._name, self._table = name, table
        self._file = open_parquet(name, stream)
        found = self._file.schema_arrow.names
        twice = next((each for each in found if found.count(each) > 1), None)
        if twice is not None:
            raise BadInput(name, f"the column {twice!r} comes twice")
        columns = matched(name, found, renames, table)
        self._columns = {column: given for column, given in zip(columns, found, strict=True) if column}
        self._types = {c: fields_of(table)[c].type.required for c in self._columns}

    @property
    def size(self) -> int:
        """How many rows it has."""
        return int(self._file.metadata.num_rows)

    def pieces(self) -> Iterator[Piece]:
        first = 1
        try:
            for batch in self._file.iter_batches(_ROWS, columns=list(self._columns.values())):
                yield _ParquetPiece(self, first, batch)
                first += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(self._name, error) from error

    def batch(self, rows: pa.RecordBatch) -> pa.RecordBatch | None:
        arrays = {}
        for column, given in self._columns.items():
            array = _as_type(rows.column(given), self._types[column])
            if array is None:
                return None
            arrays[column] = array
        return whole(arrays, self._table, rows.num_rows)

    def rows(self, first: int, rows: pa.RecordBatch) -> Iterator[Row]:
        columns = {
            column: row_values(rows.column(given), self._types[column]) for column, given in self._columns.items()
        }
        for i in range(rows.num_rows):
            values = {column: found[i] for column, found in columns.items()}
            yield Row(first + i, values, values)


@dataclass(frozen=True)
class _ParquetPiece:
    source: ParquetSource
    first: int
    data: pa.RecordBatch

    def batch(self) -> pa.RecordBatch | None:
        return self.source.batch(self.data)

    def rows(self) -> Iterator[Row]:
        return self.source.rows(self.first, self.data)


def open_parquet(name: str, stream: IO[bytes]) -> pq.ParquetFile:
    """The Parquet file in *stream*. BadInput."""
    try:
        return pq.ParquetFile(stream, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> BadInput:
    return BadInput(name, f"broken Parquet: {' '.join(str(error).split())[:200]}", "get the file again: it is torn")


# -- whole columns -----------------------------------------------------------------------------


def _as_type(a: pa.Array, type_: Type) -> pa.Array | None:
    """*a* in the Arrow type of the column, if that is another form of the same values; else None."""
    target = arrow_type(type_)
    if pa.types.is_dictionary(a.type):
        a = a.dictionary_decode()
    if a.type == target:
        return a
    try:
        return a.cast(target) if _same_values(a.type, target) else None
    except pa.ArrowInvalid:
        return None


def _same_values(given: pa.DataType, target: pa.DataType) -> bool:
    """True if a checked cast of *given* to *target* gives the same values, or fails."""
    types = pa.types
    if types.is_integer(target):
        return bool(types.is_integer(given))
    if types.is_floating(target):
        return bool(types.is_floating(given) and given.bit_width < target.bit_width)
    if types.is_timestamp(target):
        return bool(types.is_timestamp(given) and (given.tz is None) == (target.tz is None))
    if types.is_string(target):
        return bool(types.is_large_string(given) or types.is_string_view(given))
    if types.is_date(target):
        return bool(types.is_date(given))
    return bool(types.is_time(target) and types.is_time(given))


# -- one by one --------------------------------------------------------------------------------

_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def row_values(a: pa.Array, type_: Type) -> list[Any]:
    """The values of *a* as a row holds them; what does not fit *type_* is left as it is, to be refused."""
    plain = a.cast(_countable(a.type)) if _countable(a.type) != a.type else a
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
    if types.is_date32(type_) or types.is_time32(type_):
        return pa.int32()
    if types.is_struct(type_):
        return pa.struct([(f.name, _countable(f.type)) for f in type_])
    if types.is_map(type_):
        return pa.map_(type_.key_type, _countable(type_.item_type))
    if types.is_list(type_) or types.is_large_list(type_):
        return pa.list_(_countable(type_.value_type))
    if types.is_fixed_size_list(type_):
        return pa.list_(_countable(type_.value_type), type_.list_size)
    return type_


Shape = Callable[[Any], Any]


def _shape(given: pa.DataType, type_: Type) -> Shape | None:
    """From a value of `_countable` to what a row holds; None if it is that already."""
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
