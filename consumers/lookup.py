"""The row of a key as a query: what a producer takes for the key finds its row, and no other.

DuckDB compares a number with a column in a type of both, and makes a DOUBLE of a Decimal of more than 38 digits, so
1.000 would find the row of another key, or be an error. Needs no DuckDB: clients have this too.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..schemas.encode import Refused, nanoseconds, unscaled
from ..schemas.errors import InvalidRow, UsageError
from ..schemas.types import quote

_DECIMAL = re.compile(r"DECIMAL\(\d+, ?(\d+)\)")


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
        return "make_timestamp_ns(?)", value if isinstance(value, int) else nanoseconds(value)
    found = _DECIMAL.fullmatch(type_)
    if found and value is not None:
        scale = int(found[1])
        number = unscaled(_number(value), scale)
        digits = Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale))
        return f"CAST(? AS {type_})", f"{digits:f}"
    if isinstance(value, (float, Decimal)) or (type_ == "VARCHAR" and isinstance(value, int)):
        raise Refused(value, f"a key that is {type_} is no {type(value).__name__}")
    return "?", value


def _number(value: Any) -> Any:
    """Text, which DuckDB would round, as the number that it says."""
    try:
        return Decimal(value) if isinstance(value, str) else value
    except ArithmeticError:
        raise Refused(value, "not a decimal number") from None
