"""The row of a key as a query: what a producer takes for the key finds its row, and no other.

DuckDB compares a number with a column in a type of both, and makes a DOUBLE of a Decimal of more than 38 digits, so
1.000 would find the row of another key, or be an error; text it rounds, and moments of pandas it cuts. Needs no DuckDB:
clients have this too.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..schemas.encode import Refused, nanoseconds, unscaled
from ..schemas.errors import InvalidRow, UsageError
from ..schemas.types import NANOS, quote

_DECIMAL = re.compile(r"DECIMAL\(\d+, ?(\d+)\)")

#: What DuckDB would compare with a column all the same: a flag as a number, bytes as the text that stands for them.
_UNLIKE: Mapping[str, tuple[type, ...]] = {
    "VARCHAR": (int, bytes, bytearray, memoryview),
    "INTEGER": (bool,),
    "BIGINT": (bool,),
}


def row_of(table: str, key: Mapping[str, Any], types: Mapping[str, str]) -> tuple[str, list[Any]]:
    """The SELECT of the row of *key*, and its parameters. *types* has the SQL type of each key column. UsageError."""
    if not isinstance(key, Mapping) or set(key) != set(types):
        raise UsageError(f"the key of {table!r} is a mapping of {', '.join(types)}; got {key!r}")
    terms, params = [], []
    for column, type_ in types.items():
        try:
            placeholder, param = _compared(type_, key[column])
        except Refused as refused:
            raise InvalidRow(table, column, refused.value, refused.why) from None
        # Keys of foreign tables may be null, and null is a key like any.
        terms.append(f"{quote(column)} {'IS NOT DISTINCT FROM' if param is None else '='} {placeholder}")
        params.append(param)
    return f"SELECT * FROM {quote(table)} WHERE {' AND '.join(terms)}", params


def _compared(type_: str, value: Any) -> tuple[str, Any]:
    """What stands for *value* in SQL, and the parameter there."""
    if type_ == "TIMESTAMP_NS" and isinstance(value, (int, dt.datetime)) and not isinstance(value, bool):
        # As a number, which DuckDB compares with no time by itself; and a datetime of pandas has digits of its own.
        counted = value if isinstance(value, int) else nanoseconds(value)
        if not NANOS[0] <= counted <= NANOS[1]:
            raise Refused(value, f"out of range: {NANOS[0]} to {NANOS[1]}")
        return "make_timestamp_ns(?)", counted
    if isinstance(value, dt.datetime) and nanoseconds(value) % 1000:
        raise Refused(value, f"a key that is {type_} is no finer than a microsecond")
    found = _DECIMAL.fullmatch(type_)
    if found and value is not None:
        scale = int(found[1])
        number = unscaled(_number(value), scale)
        digits = Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale))
        return f"CAST(? AS {type_})", f"{digits:f}"
    if type_ in ("INTEGER", "BIGINT") and isinstance(value, str):
        return "?", unscaled(_number(value), 0)
    if isinstance(value, (float, Decimal, *_UNLIKE.get(type_, ()))):
        raise Refused(value, f"a key that is {type_} is no {type(value).__name__}")
    return "?", value


def _number(value: Any) -> Any:
    """Text, which DuckDB would round, as the number that it says."""
    try:
        return Decimal(value) if isinstance(value, str) else value
    except ArithmeticError:
        raise Refused(value, "not a decimal number") from None
