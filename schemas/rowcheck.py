"""Row checks: the expressions (``checktext.py``) that each row of a table must not break.

With SQL's meaning: a comparison with null is null, and a check is broken only where it is false.

Invariants: a check that `bind` accepted gives an answer for every row, never an error; the answer
depends on the row alone, and is the one that ``arrowcheck.py`` and DuckDB give. Numbers are exact, a
literal beside a float column is the nearest value of that column's type, NaN equals itself and is
greater than all else, text is ordered by code points.

A check sees what a record carries: the columns of the first schema, under whatever name and type
the writer's version has them, and null where it has none.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .avro import key_fields, row_type
from .checktext import All, Column, Compare, Constant, Expression, IsNull, Not, Some, Unreadable, parse
from .defaults import encode_default
from .errors import BadSchema, InvalidRow
from .layout import Layout, layout
from .read import read_value
from .table import AvroSchema, Table
from .types import Field

MAX_CHECKS = 100

_HINT = "docs/schemas.md, \"Row checks\", has the language: qty > 0 and status in ('new', 'paid')"
_BROKEN_HINT = "`merganser table describe` shows the checks; a check that is null holds"


@dataclass(frozen=True)
class BoundCheck:
    """A check on the rows of one schema version.

    *fields* has, by the name in the check, the writer's field of each column; None if it writes none.
    """

    text: str
    expression: Expression
    fields: Mapping[str, Field | None]

    @property
    def broken(self) -> str:
        """Why a row that breaks it is refused."""
        return f'check "{self.text}" does not hold'


def check_rules(table: str, schema: AvroSchema, checks: Sequence[str]) -> None:
    """BadSchema, with the place in the text, unless each of *checks* can judge rows of *schema*."""
    if len(checks) > MAX_CHECKS:
        raise BadSchema(table, "", f"{len(checks)} checks, {MAX_CHECKS} at most", _HINT)
    fields = {f.name.lower(): f for f in row_type(table, schema).fields}
    for text in checks:
        _bound(table, text, _parsed(table, text), fields)


def bind(table: Table, columns: Layout, version: int) -> tuple[BoundCheck, ...]:
    """The checks of *table* on records of schema *version*, which the layout *columns* knows.

    BadSchema if one cannot judge them: two columns that could be compared in the first version have
    types in this one that cannot, or the version is refused as a whole.
    """
    first = table.values[0].version
    for refused in (first, version):
        if refused in columns.refused:
            raise BadSchema(table.name, f"version {refused}", columns.refused[refused])
    schemas = {v.version: v.schema for v in table.values}
    names = [f.name for f in row_type(table.name, schemas[first]).fields]
    written = {columns.places[version][f.name]: f for f in row_type(table.name, schemas[version]).fields}
    fields = {name.lower(): written.get(columns.places[first][name]) for name in names}
    return tuple(_bound(table.name, text, _parsed(table.name, text), fields) for text in table.checks)


class RowChecker:
    """Judges rows as users write them, by the newest version of a table. Safe to share between threads."""

    def __init__(self, table: Table) -> None:
        newest = table.latest.version
        columns = layout(table.name, table.values, newest, key_fields(table))
        self._table = table.name
        self._checks = [(check, _judge(check)) for check in bind(table, columns, newest)]

    def check(self, row: Mapping[str, Any]) -> None:
        """InvalidRow if *row*, which fits its schema, breaks a check: the first one, with what it looks at."""
        for check, judge in self._checks:
            if judge(row) is False:
                raise self._refusal(check, row)

    def _refusal(self, check: BoundCheck, row: Mapping[str, Any]) -> InvalidRow:
        seen = {f.name: row.get(f.name, _default(f)) for f in check.fields.values() if f is not None}
        value = seen if len(seen) > 1 else next(iter(seen.values()), None)
        return InvalidRow(self._table, ", ".join(seen), value, check.broken, _BROKEN_HINT)


# -- expression to columns -------------------------------------------------------------------

#: What can be compared with what. Types that are not here have IS NULL only.
_FAMILIES = {
    **dict.fromkeys(["int", "long", "decimal"], "number"),
    **dict.fromkeys(["float", "double"], "float"),
    **dict.fromkeys(["string", "enum"], "text"),
    "boolean": "bool",
}


def family(f: Field) -> str:
    """``number``, ``float``, ``text`` or ``bool``; empty if values of *f* are not compared."""
    return _FAMILIES.get(f.type.kind, "")


def _bound(table: str, text: str, expression: Expression, fields: Mapping[str, Field | None]) -> BoundCheck:
    used: dict[str, Field | None] = {}
    try:
        _bind(expression, fields, used)
    except Unreadable as e:
        raise _bad(table, text, e) from None
    return BoundCheck(text, expression, used)


def _bind(expression: Expression, fields: Mapping[str, Field | None], used: dict[str, Field | None]) -> None:
    """Look the columns of *expression* up in *fields*, and take those into *used*."""
    match expression:
        case All(parts) | Some(parts):
            for part in parts:
                _bind(part, fields, used)
        case Not(part):
            _bind(part, fields, used)
        case IsNull(column):
            _look_up(column, fields, used)
        case Compare(_, left, right):
            mine = _comparable(left, _look_up(left, fields, used))
            if isinstance(right, Column):
                other = _comparable(right, _look_up(right, fields, used))
                if mine and other and mine != other:
                    why = f"{left.name} is {_sql(fields, left)}, {right.name} is {_sql(fields, right)}"
                    raise Unreadable(right.at, f"{why}: not compared, since one would have to be rounded or guessed")
            elif mine and right.value is not None and not _fits(mine, right.value):
                raise Unreadable(right.at, f"{left.name} is {_sql(fields, left)}, not compared with {_said(right)}")


def _look_up(column: Column, fields: Mapping[str, Field | None], used: dict[str, Field | None]) -> Field | None:
    if column.name not in fields:
        raise Unreadable(column.at, f"the schema has no column {column.name!r}")
    used[column.name] = fields[column.name]
    return used[column.name]


def _comparable(column: Column, f: Field | None) -> str:
    """The family of *f*; empty if the writer has no such column: then it is null."""
    if f is None:
        return ""
    if not family(f):
        why = f"{column.name} is {f.type.sql}: only numbers, text and booleans are compared; IS [NOT] NULL is for all"
        raise Unreadable(column.at, why)
    return family(f)


def _fits(family: str, value: Decimal | str | bool) -> bool:
    if isinstance(value, bool):
        return family == "bool"
    return family == "text" if isinstance(value, str) else family in ("number", "float")


def _sql(fields: Mapping[str, Field | None], column: Column) -> str:
    f = fields[column.name]
    return f.type.sql if f is not None else "NULL"


def _said(constant: Constant) -> str:
    if isinstance(constant.value, bool):
        return str(constant.value).lower()
    return repr(constant.value) if isinstance(constant.value, str) else f"the number {constant.value}"


def _parsed(table: str, text: str) -> Expression:
    try:
        return parse(text)
    except Unreadable as e:
        raise _bad(table, text, e) from None


def _bad(table: str, text: str, e: Unreadable) -> BadSchema:
    shown = text if text.isprintable() and len(text) <= 200 else ascii(text[:200])[1:-1]
    return BadSchema(table, f'check "{shown}", character {e.at + 1}', str(e), _HINT)


# -- the answer for one row ------------------------------------------------------------------

Row = Mapping[str, Any]
Judge = Callable[[Row], bool | None]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _judge(check: BoundCheck) -> Judge:
    carried = {name: _carried(f) for name, f in check.fields.items()}

    def compiled(expression: Expression) -> Judge:
        match expression:
            case All(parts):
                return _junction([compiled(part) for part in parts], False)
            case Some(parts):
                return _junction([compiled(part) for part in parts], True)
            case Not(part):
                return _negation(compiled(part))
            case IsNull(column):
                value = carried[column.name]
                return lambda row: value(row) is None
            case Compare(op, left, right):
                other = carried[right.name] if isinstance(right, Column) else _always(check.fields[left.name], right)
                return _comparison(_COMPARE[op], carried[left.name], other)

    return compiled(check.expression)


def _junction(parts: Sequence[Judge], decisive: bool) -> Judge:
    """OR where *decisive* is True, AND where it is False."""

    def judge(row: Row) -> bool | None:
        answer: bool | None = not decisive
        for part in parts:
            found = part(row)
            if found is decisive:
                return decisive
            if found is None:
                answer = None
        return answer

    return judge


def _negation(part: Judge) -> Judge:
    def judge(row: Row) -> bool | None:
        found = part(row)
        return None if found is None else not found

    return judge


def _comparison(compare: Callable[[Any, Any], Any], left: Callable[[Row], Any], right: Callable[[Row], Any]) -> Judge:
    def judge(row: Row) -> bool | None:
        a, b = left(row), right(row)
        return None if a is None or b is None else bool(compare(a, b))

    return judge


def _carried(f: Field | None) -> Callable[[Row], Any]:
    """What a record of a row carries in field *f*, in a form that Python compares as SQL does."""
    if f is None:
        return lambda row: None
    name, default = f.name, _default(f)
    if family(f) != "float":
        return lambda row: row.get(name, default)
    rounded = nearest(f)

    def value(row: Row) -> Any:
        number = row.get(name, default)
        return None if number is None else _ordered(rounded(number))

    return value


def _default(f: Field) -> Any:
    """What a record carries where its row leaves *f* out."""
    return read_value(f.type, encode_default(f.type, f.default)) if f.has_default else None


def _always(f: Field | None, constant: Constant) -> Callable[[Row], Any]:
    value: Any = constant.value
    if f is not None and family(f) == "float" and value is not None:
        value = _ordered(nearest(f)(value))
    return lambda row: value


def nearest(f: Field) -> Callable[[Any], float]:
    """From a number to the nearest that the float column *f* holds."""
    if f.type.kind == "double":
        return float
    single = struct.Struct("<f")
    return lambda number: float(single.unpack(single.pack(number))[0])


def _ordered(number: float) -> tuple[bool, float]:
    """A float such that NaN equals itself and is greater than all else."""
    return (True, 0.0) if number != number else (False, number)
