"""Row checks on Arrow columns: what a replica asks of the rows it decoded.

Invariant: the same answer as ``rowcheck.RowChecker`` gives for each row alone; ``tests/schemas`` holds
both against DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .checktext import All, Column, Compare, Constant, Expression, IsNull, Not, Some
from .rowcheck import BoundCheck, family, nearest
from .types import INT64, MAX_PRECISION, Field

#: Rows of booleans, or one boolean for all of them.
Answer = Any

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def breaking(check: BoundCheck, rows: pa.Table) -> list[int]:
    """The rows that break *check*, by number. *rows* are as the bound version's `Decoder` gives them."""
    answer = _answer(check, check.expression, rows)
    if pc.all(answer, min_count=0).as_py() is not False:  # nulls count as true
        return []
    found: list[int] = pc.indices_nonzero(pc.fill_null(pc.invert(answer), False)).to_pylist()
    return found


def _answer(check: BoundCheck, expression: Expression, rows: pa.Table) -> Answer:
    match expression:
        case All(parts):
            return reduce(pc.and_kleene, (_answer(check, part, rows) for part in parts))
        case Some(parts):
            return reduce(pc.or_kleene, (_answer(check, part, rows) for part in parts))
        case Not(part):
            return pc.invert(_answer(check, part, rows))
        case IsNull(column):
            f = check.fields[column.name]
            return pc.is_null(rows[f.name]) if f is not None else pa.repeat(True, rows.num_rows)
        case Compare():
            return _compare(check, expression, rows)


def _compare(check: BoundCheck, compare: Compare, rows: pa.Table) -> Answer:
    left, right = check.fields[compare.left.name], compare.right
    other = check.fields[right.name] if isinstance(right, Column) else right
    if left is None or other is None or (isinstance(other, Constant) and other.value is None):
        return pa.nulls(rows.num_rows, pa.bool_())
    if family(left) == "float":
        return _ORDERED[compare.op](rows[left.name], _floats(left, other, rows))
    if family(left) == "number":
        return _COMPARE[compare.op](*_numbers(left, other, rows))
    return _COMPARE[compare.op](rows[left.name], _plain(other, rows))


def _plain(other: Field | Constant, rows: pa.Table) -> Any:
    return rows[other.name] if isinstance(other, Field) else pa.scalar(other.value)


# -- numbers: exact --------------------------------------------------------------------------


def _numbers(left: Field, other: Field | Constant, rows: pa.Table) -> tuple[Any, Any]:
    """Both sides in one type that holds every digit of each."""
    if isinstance(other, Field):
        if "decimal" not in (left.type.kind, other.type.kind):
            return rows[left.name], rows[other.name]
        wide = _wide(max(left.type.scale, other.type.scale))
        return rows[left.name].cast(wide), rows[other.name].cast(wide)
    number = Decimal(other.value)  # type: ignore[arg-type]  # `bind` saw to it
    whole = number == number.to_integral_value()
    if left.type.kind != "decimal" and whole and INT64[0] <= number <= INT64[1]:
        return rows[left.name], pa.scalar(int(number), pa.int64())
    wide = _wide(max(left.type.scale, -int(number.as_tuple().exponent)))
    return rows[left.name].cast(wide), pa.scalar(number, wide)


def _wide(scale: int) -> pa.DataType:
    """38 digits before the point and as many after it as any decimal here has."""
    return pa.decimal256(MAX_PRECISION + scale, scale)


# -- floats: a total order, with NaN as its last value ---------------------------------------


def _floats(left: Field, other: Field | Constant, rows: pa.Table) -> Any:
    if isinstance(other, Field):
        return rows[other.name]
    return pa.scalar(nearest(left)(other.value), pa.float64())


def _equal(a: Any, b: Any) -> Answer:
    return pc.or_(pc.equal(a, b), pc.and_(pc.is_nan(a), pc.is_nan(b)))


def _less(a: Any, b: Any) -> Answer:
    return pc.and_(pc.invert(pc.is_nan(a)), pc.invert(pc.greater_equal(a, b)))


def _less_equal(a: Any, b: Any) -> Answer:
    return pc.or_(pc.is_nan(b), pc.less_equal(a, b))


_ORDERED: dict[str, Callable[[Any, Any], Answer]] = {
    "=": _equal,
    "<>": lambda a, b: pc.invert(_equal(a, b)),
    "<": _less,
    "<=": _less_equal,
    ">": lambda a, b: _less(b, a),
    ">=": lambda a, b: _less_equal(b, a),
}
