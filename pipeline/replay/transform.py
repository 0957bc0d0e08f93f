"""Transforms: a function of the caller's between the rows that a replay comes to and those that it writes.

``function(row)`` gets a row as a dict, ``_partition``, ``_offset`` and ``_timestamp`` with it, and returns a dict,
a list of dicts, or None for no row. It is called once for each row of the table as it is at the target, in the order
of partition and offset: a row that was replaced or deleted since is not among them.

Columns that the table has keep their types. Another one gets its type from its first value that is not None, and
each later value has to fit. Invariant: an error names table, partition and offset.
"""

from __future__ import annotations

import datetime as dt
import importlib
import math
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ...schemas.arrow import with_leaves
from ...schemas.errors import BadTransform, TransformFailed
from ...schemas.table import RESERVED_COLUMNS
from ...schemas.types import NANOS, UUID_TEXT
from .plan import check_columns

Row = dict[str, Any]
Function = Callable[[Row], Row | list[Row] | None]

#: Types of columns that the table does not have. The order matters: a bool is an int, a datetime is a date.
_TYPES: tuple[tuple[type, pa.DataType, str], ...] = (
    (bool, pa.bool_(), "BOOLEAN"),
    (int, pa.int64(), "BIGINT"),
    (float, pa.float64(), "DOUBLE"),
    (str, pa.string(), "VARCHAR"),
    (bytes, pa.binary(), "BLOB"),
    (Decimal, pa.decimal128(38, 9), "DECIMAL(38, 9)"),
    (dt.date, pa.date32(), "DATE"),
    (dt.time, pa.time64("us"), "TIME"),
    (uuid.UUID, pa.string(), "UUID"),
)
_MOMENTS = {
    True: (pa.timestamp("us", tz="UTC"), "TIMESTAMP WITH TIME ZONE"),
    False: (pa.timestamp("us"), "TIMESTAMP"),
}


def load(name: str) -> Function:
    """The function that *name*, ``module:function``, means. BadTransform."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise BadTransform(name, "it is not module:function")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does; the command itself is started without
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise BadTransform(name, str(error)) from error
    except AttributeError:
        raise BadTransform(name, f"module {module!r} has no {attribute!r}") from None
    except Exception as error:  # whatever the module does while it is imported
        raise BadTransform(name, f"importing {module!r} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise BadTransform(name, f"{attribute!r} is no function")
    function: Function = found
    return function


class Transform:
    """Rows of *table* through *function*. *types* are the SQL types of the table's columns; those of the columns
    that came out so far are in :attr:`types`."""

    def __init__(self, name: str, function: Function, table: str, types: Mapping[str, str]) -> None:
        self._name, self._function, self._table, self._source = name, function, table, dict(types)
        self._arrow: dict[str, pa.DataType] = {}
        self.types: dict[str, str] = {}
        self._known: set[tuple[str, ...]] = set()

    def apply(self, rows: pa.Table) -> pa.Table | None:
        """What becomes of *rows*; None if nothing does. TransformFailed."""
        self._arrow = {field.name: field.type for field in rows.schema} | {
            name: type_ for name, type_ in self._arrow.items() if name not in self._source
        }
        made: list[Row] = []
        places: list[tuple[int, int, Any]] = []
        for row in dicts(rows):
            place = tuple(row[name] for name in RESERVED_COLUMNS)
            for result in self._called(row, place):
                made.append(result)
                places.append(place)
        return self._table_of(made, places, rows.schema) if made else None

    def _called(self, row: Row, place: tuple[Any, ...]) -> Iterator[Row]:
        try:
            result: Any = self._function(row)
        except Exception as error:
            raise self._failed(place, f"{type(error).__name__}: {error}") from error
        for each in [] if result is None else result if isinstance(result, list) else [result]:
            if not isinstance(each, dict):
                raise self._failed(place, f"it returned {type(each).__name__}, not a dict, a list of dicts or None")
            names = tuple(each)
            if names not in self._known:
                if why := check_columns(self._table, names):
                    raise self._failed(place, why)
                self._known.add(names)
            yield {name: value for name, value in each.items() if name not in RESERVED_COLUMNS}

    def _table_of(self, made: list[Row], places: list[tuple[int, int, Any]], schema: pa.Schema) -> pa.Table:
        names = list(dict.fromkeys(name for row in made for name in row))
        columns: dict[str, pa.Array] = {}
        for name in names:
            values = [row.get(name) for row in made]
            if self._learn(name, values, places):
                columns[name] = self._column(name, values, places)
        for at, name in enumerate(RESERVED_COLUMNS):
            columns[name] = pa.array([place[at] for place in places], schema.field(name).type)
        return pa.table(columns)

    def _learn(self, name: str, values: list[Any], places: list[tuple[int, int, Any]]) -> bool:
        """Have the type of column *name*; False while it has no value yet."""
        if name in self.types:
            return True
        if name in self._source:
            self.types[name] = self._source[name]
            return True
        other = next((known for known in (*self.types, *self._source) if known.casefold() == name.casefold()), None)
        first = next((i for i, value in enumerate(values) if value is not None), None)
        if other is not None:
            at = places[first or 0]
            raise self._failed(at, f"columns {other!r} and {name!r} differ in case only: SQL cannot tell them apart")
        if first is None:
            return False
        found = _type_of(values[first])
        if found is None:
            kind = type(values[first]).__name__
            raise self._failed(places[first], f"column {name!r} is new, and {kind} is no type that one can have")
        self._arrow[name], self.types[name] = found
        return True

    def _column(self, name: str, values: list[Any], places: list[tuple[int, int, Any]]) -> pa.Array:
        type_ = self._arrow[name]
        if self.types[name] == "UUID":
            self._check_uuids(name, values, places)
        try:
            return _array(values, type_)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            for value, place in zip(values, places, strict=True):
                try:
                    _array([value], type_)
                except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                    why = f"column {name!r} is {self.types[name]}: {str(error).splitlines()[0]}"
                    raise self._failed(place, why) from error
            raise

    def _check_uuids(self, name: str, values: list[Any], places: list[tuple[int, int, Any]]) -> None:
        """TransformFailed of text that is none: to Arrow it is text like any."""
        for value, place in zip(values, places, strict=True):
            if isinstance(value, str) and not UUID_TEXT.fullmatch(value):
                raise self._failed(place, f"column {name!r} is UUID: {value[:80]!r} is none")

    def _failed(self, place: tuple[Any, ...], why: str) -> TransformFailed:
        return TransformFailed(self._name, self._table, int(place[0]), int(place[1]), why)


def _type_of(value: Any) -> tuple[pa.DataType, str] | None:
    if isinstance(value, dt.datetime):
        return _MOMENTS[value.tzinfo is not None]
    return next(((arrow, sql) for type_, arrow, sql in _TYPES if isinstance(value, type_)), None)


def dicts(rows: pa.Table) -> Iterator[Row]:
    """The rows as a function gets them, maps as dicts. Nanoseconds are whole numbers since 1970: Python's times are
    coarser."""
    columns = (column.cast(counted(column.type)).to_pylist(maps_as_pydicts="strict") for column in rows.columns)
    for values in zip(*columns, strict=True):
        yield dict(zip(rows.column_names, values, strict=True))


def _in_nanoseconds(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_) and type_.unit == "ns")


def counted(type_: pa.DataType) -> pa.DataType:
    """*type_* with numbers for nanoseconds, inside of lists, structs and maps too."""

    def number(leaf: pa.DataType) -> pa.DataType:
        return pa.int64() if _in_nanoseconds(leaf) else leaf

    return with_leaves(type_, number)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """*values* in the Arrow type of their column. ValueError and its like if one does not fit."""
    given = [_given(value, type_) for value in values]
    plain = counted(type_)
    return _kept(given, plain) if plain == type_ else _kept(given, plain).cast(type_)


def _given(value: Any, type_: pa.DataType) -> Any:
    """*value* as Arrow takes it: maps as pairs, and the text of a UUID."""
    if isinstance(value, uuid.UUID) and pa.types.is_string(type_):
        return str(value)
    if isinstance(value, (dict, list, tuple)) and pa.types.is_map(type_):
        pairs = list(value.items() if isinstance(value, dict) else value)
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a map that has a key twice")
        return [(name, _given(item, type_.item_type)) for name, item in pairs]
    if isinstance(value, dict) and pa.types.is_struct(type_):
        types = {field.name: field.type for field in type_}
        return {name: _given(item, types[name]) if name in types else item for name, item in value.items()}
    if isinstance(value, (list, tuple)) and pa.types.is_list(type_):
        return [_given(item, type_.value_type) for item in value]
    if type(value) is int and _in_nanoseconds(type_) and not NANOS[0] <= value <= NANOS[1]:
        raise ValueError(f"{value} nanoseconds are no time that a column can hold")
    return value


def _kept(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Arrow cuts what does not fit, a Decimal to a whole number or a moment to its day: ValueError instead."""
    made = pa.array(values, type_)
    for value, found in zip(values, made.to_pylist(), strict=True):
        if not _same(value, found, type_):
            raise ValueError(f"{value!r} would become {found!r}")
    return made


def _same(value: Any, found: Any, type_: pa.DataType) -> bool:
    types = pa.types
    if value is None or found is None:
        return value is found
    if types.is_struct(type_) and isinstance(value, dict):
        return value.keys() <= found.keys() and all(
            _same(item, found[name], type_.field(name).type) for name, item in value.items()
        )
    if types.is_map(type_):
        pairs = zip(value, found, strict=True)
        return all(_same(given[1], item, type_.item_type) for given, (_, item) in pairs)
    if types.is_list(type_) or types.is_large_list(type_):
        return all(_same(item, other, type_.value_type) for item, other in zip(value, found, strict=True))
    if types.is_float32(type_) and type(value) is not bool:
        return math.isinf(value) or not math.isinf(found)  # the nearest one is meant
    if isinstance(value, dt.datetime) and isinstance(found, dt.datetime):
        return value == found and (value.tzinfo is None) == (found.tzinfo is None)
    if type(value) is bool or isinstance(value, str):  # no number, and no bytes
        return isinstance(found, type(value) if type(value) is bool else str)
    return bool(value == found) or value != value
