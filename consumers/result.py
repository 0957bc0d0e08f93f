"""What a query comes to: rows, and the position that they are of. Needs Arrow and no DuckDB: clients have it too."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from ..schemas.errors import BadQuery
from ..schemas.position import Position


class Result:
    """The rows of one query. ``position`` says which state of the log they are of; ``applied`` stops
    before the first record that is held back there, since its transaction is not whole yet.

    Safe to share between threads; holds no connection.
    """

    def __init__(self, table: pa.Table, types: Sequence[str], position: Position, applied: Position) -> None:
        self._table = table
        self._types = types
        self.position = position
        self.applied = applied

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    def arrow(self) -> pa.Table:
        """The rows as a pyarrow Table, as DuckDB exports them."""
        return self._table

    def df(self) -> Any:
        """The rows as a pandas DataFrame (needs pandas)."""
        return self._table.to_pandas()

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values.

        HUGEINT comes as int, UUID as uuid.UUID, MAP as dict, nanosecond times cut to microseconds; inside of lists,
        structs and maps too.
        """
        return list(zip(*(self.column(at) for at in range(len(self._types))), strict=True))

    def column(self, at: int) -> list[Any]:
        """The values of one column, as :meth:`rows` has them. OverflowError of a date that Python has not."""
        return _python(self._table.column(at), self._types[at])

    def head(self, rows: int) -> Result:
        """The first *rows* of it."""
        return Result(self._table.slice(0, rows), self._types, self.position, self.applied)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"<Result: {len(self)} row{'s'[: len(self) != 1]} of {', '.join(self.columns)[:200]}>"


def apart(names: Sequence[str]) -> Sequence[str]:
    """*names* of columns, as those of an object's fields. BadQuery if one comes twice: of its values only the last
    would be left."""
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        why = f"two columns are named {twice[0][:200]!r}, and a row as an object has one of them"
        raise BadQuery(why, hint="give one of them another name with AS, or take a format that has columns: csv, arrow")
    return names


def _python(column: pa.ChunkedArray, sql_type: str) -> list[Any]:
    whole = _microseconds(column.type)
    values: list[Any] = (column if whole == column.type else column.cast(whole, safe=False)).to_pylist()
    convert = converter(sql_type)
    return values if convert is None else [convert(value) for value in values]


def _microseconds(type_: pa.DataType) -> pa.DataType:
    """*type_* with microseconds for nanoseconds, which Arrow has no Python values for."""
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz) if type_.unit == "ns" else type_
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_microseconds(type_.value_type)))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(type_.value_field.with_type(_microseconds(type_.value_type)), type_.list_size)
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, type_.item_field.with_type(_microseconds(type_.item_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_microseconds(field.type)) for field in type_])
    return type_


# -- by DuckDB's name of a type --------------------------------------------------------------

Convert = Callable[[Any], Any]

#: A piece of a type's text: a quoted name or symbol, a mark, or a run of anything else.
_PIECE = re.compile(r'"(?:[^"]|"")*"|\'(?:[^\']|\'\')*\'|[(),]|[^"\'(),]+')


@lru_cache(maxsize=1024)
def converter(sql_type: str) -> Convert | None:
    """From Arrow's Python value of a column, or of a part of one, to ours; None if they are the same."""
    if sql_type.endswith("]"):
        return _each(converter(sql_type[: sql_type.rindex("[")]))
    name, _, rest = sql_type.partition("(")
    if name == "MAP":
        key, value = _parts(rest)
        return _mapping(converter(key), converter(value))
    if name == "STRUCT":
        return _fields({field: converter(type_) for field, type_ in map(_named, _parts(rest))})
    return _or_null(_SCALARS[name]) if name in _SCALARS else None


def _parts(text: str) -> list[str]:
    """What stands between the commas of *text*, which goes on to the parenthesis that closes it."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(text):
        depth += (piece == "(") - (piece == ")")
        if depth < 0:
            break
        if piece == "," and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def _named(field: str) -> tuple[str, str]:
    """Name and type of a struct's field."""
    if field.startswith('"'):
        quoted = _PIECE.findall(field)[0]
        return quoted[1:-1].replace('""', '"'), field[len(quoted) :].strip()
    name, _, type_ = field.partition(" ")
    return name, type_


def _or_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _each(convert: Convert | None) -> Convert | None:
    return None if convert is None else _or_null(lambda values: [convert(value) for value in values])


def _mapping(key: Convert | None, value: Convert | None) -> Convert:
    if key is None and value is None:
        return _or_null(dict)
    mine, its = key or _same, value or _same
    return _or_null(lambda pairs: {mine(k): its(v) for k, v in pairs})


def _fields(converters: Mapping[str, Convert | None]) -> Convert | None:
    wanted = {name: convert for name, convert in converters.items() if convert is not None}
    if not wanted:
        return None
    # A struct without names has a text that may look as if it had some.
    return _or_null(lambda row: row | {name: wanted[name](value) for name, value in row.items() if name in wanted})


def _same(value: Any) -> Any:
    return value


def _unsigned(value: Any) -> int:
    """Arrow's decimals have a sign, so there a large one is negative."""
    return int(value) % 2**128


_SCALARS: dict[str, Convert] = {"HUGEINT": int, "UHUGEINT": _unsigned, "UUID": uuid.UUID}
