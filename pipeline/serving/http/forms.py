"""How values are written in JSON and CSV: nothing is rounded, and each column in one way.

| SQL | JSON |
|---|---|
| whole numbers, also DECIMAL(p, 0) | a number; beyond ±(2^53 - 1), where JavaScript would round, its digits as text |
| DECIMAL | text with all its digits |
| FLOAT, DOUBLE | a number; ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` |
| VARCHAR, ENUM, UUID | text |
| BLOB | base64 text |
| DATE, TIME | ISO 8601 text; ``infinity`` |
| TIMESTAMP | ISO 8601 text with all its digits; WITH TIME ZONE ends with ``Z`` |
| INTERVAL | ``{"months": 1, "days": 2, "nanoseconds": 3}`` |
| lists and arrays | arrays |
| STRUCT, and MAP with keys of text | objects |
| other MAP | an array of ``{"key": …, "value": …}`` |
| UNION | the value of its member |

These are the forms that ``merganser put`` reads, but for numbers beyond 2^53. In CSV text is quoted and NULL is empty,
numbers and booleans are bare, nested values are JSON.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

#: Whole numbers up to this are the same in JavaScript.
SAFE = 2**53 - 1


def plain(column: pa.Array) -> list[Any]:
    """The values of *column* for ``json.dumps``."""
    type_ = column.type
    if isinstance(type_, pa.BaseExtensionType):
        return _extension(column)
    if types.is_dictionary(type_):
        return plain(column.dictionary_decode())
    for fits, convert in _BY_TYPE:
        if fits(type_):
            return convert(column)
    return list(column.to_pylist())


def bare(column: pa.Array) -> pa.Array:
    """*column* as the CSV writer takes it."""
    type_ = column.type
    if types.is_dictionary(type_):
        return column.dictionary_decode()
    if types.is_boolean(type_) or types.is_integer(type_) or types.is_decimal(type_) or _is_text(type_):
        return column
    if types.is_floating(type_):
        return column.cast(pa.float64())
    if types.is_timestamp(type_):
        return _instants(column)
    if types.is_date(type_):
        return _dated(column, pa.int32())
    if types.is_time(type_):
        return _times(column)
    return pa.array([v if v is None or isinstance(v, str) else dumps(v) for v in plain(column)], pa.string())


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of *batch* in JSON's forms."""
    if batch.num_columns == 0:
        return iter([()] * batch.num_rows)
    return zip(*(plain(column) for column in batch.columns), strict=True)


# -- by type ---------------------------------------------------------------------------------


def _whole(column: pa.Array) -> list[Any]:
    values = column.to_pylist()
    if types.is_decimal(column.type):
        values = [None if v is None else int(v) for v in values]
    elif column.type.bit_width < 64:
        return list(values)
    return [v if v is None or -SAFE <= v <= SAFE else str(v) for v in values]


def _fraction(column: pa.Array) -> list[Any]:
    return [None if v is None else f"{v:f}" for v in column.to_pylist()]


def _float(column: pa.Array) -> list[Any]:
    values = column.to_pylist()
    return [v if v is None or math.isfinite(v) else _name(v) for v in values]


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _blob(column: pa.Array) -> list[Any]:
    return [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]


def _instants(column: pa.Array) -> pa.Array:
    return pc.replace_substring(_dated(column, pa.int64()), " ", "T", max_replacements=1)


def _dated(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column of dates or timestamps, kept as *kind*, as text; what DuckDB calls infinite has a number of its own."""
    text, number, most = column.cast(pa.string()), column.cast(kind), 2 ** (kind.bit_width - 1) - 1
    per_day = _PER_DAY[column.type.unit] if types.is_timestamp(column.type) else 1
    near = min(_NEAR * per_day, most)
    far = pc.or_(pc.greater(number, near), pc.less(number, -near))
    if pc.any(far).as_py():
        text = _far(column, text, number.filter(far), far, per_day)
    after, before = pc.equal(number, most), pc.equal(number, -most)
    if not (pc.any(after).as_py() or pc.any(before).as_py()):
        return text
    return pc.if_else(after, "infinity", pc.if_else(before, "-infinity", text))


#: Arrow writes no year beyond 32,767, or another one. Days from 1970 on that are not so many.
_NEAR = 11_000_000
#: After so many the calendar is the same again.
_ERA_YEARS, _ERA_DAYS = 400, 146_097
_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}


def _far(column: pa.Array, text: pa.Array, numbers: pa.Array, far: pa.Array, per_day: int) -> pa.Array:
    """*text* of *column*; where it is *far*, as the same day of another era is written. *numbers* are those."""
    found = []
    for number in numbers.to_pylist():
        if number is not None:
            eras, rest = divmod(number, _ERA_DAYS * per_day)
            near = pa.array([rest], numbers.type).cast(column.type).cast(pa.string())[0].as_py()
            found.append(f"{int(near[:4]) + eras * _ERA_YEARS}{near[4:]}")
    return pc.replace_with_mask(text, pc.fill_null(far, False), pa.array(found, pa.string()))


def _times(column: pa.Array) -> pa.Array:
    """A column of times as text; in SQL a day may end at 24:00:00."""
    text = column.cast(pa.string())
    ends = pc.starts_with(text, "<")  # Arrow says that it is out of range
    return pc.if_else(ends, "24:00:00", text) if pc.any(ends).as_py() else text


def _interval(column: pa.Array) -> list[Any]:
    names = ("months", "days", "nanoseconds")
    return [None if v is None else dict(zip(names, v, strict=True)) for v in column.to_pylist()]


def _list(column: pa.Array) -> list[Any]:
    if not (types.is_list(column.type) or types.is_large_list(column.type)):
        column = column.cast(pa.list_(column.type.value_type))
    return [None if at is None else at for at in _cut(column, plain(_inner(column, column.values)))]


def _map(column: pa.Array) -> list[Any]:
    keys, items = (plain(_inner(column, child)) for child in (column.keys, column.items))
    entries = _cut(column, list(zip(keys, items, strict=True)))
    if _is_text(column.type.key_type):
        return [None if at is None else dict(at) for at in entries]
    return [None if at is None else [{"key": k, "value": v} for k, v in at] for at in entries]


def _inner(column: pa.Array, child: pa.Array) -> pa.Array:
    """The part of *child* that the lists of *column*, which may be a slice, lie in."""
    offsets = column.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    return child.slice(first, last - first)


def _cut(column: pa.Array, values: Sequence[Any]) -> list[Any]:
    """*values* cut into the lists of *column*; None where that is null."""
    offsets = column.offsets.to_pylist()
    first = offsets[0]
    valid = column.is_valid().to_pylist()
    return [
        list(values[low - first : high - first]) if there else None
        for there, low, high in zip(valid, offsets, offsets[1:], strict=False)
    ]


def _struct(column: pa.Array) -> list[Any]:
    names = [field.name for field in column.type]
    if not names:
        return [{} if there else None for there in column.is_valid().to_pylist()]
    fields = [plain(child) for child in column.flatten()]
    return [
        dict(zip(names, values, strict=True)) if there else None
        for there, values in zip(column.is_valid().to_pylist(), zip(*fields, strict=True), strict=True)
    ]


def _union(column: pa.Array) -> list[Any]:
    """DuckDB's are sparse: each member has as many values as there are rows."""
    members = [plain(column.field(at)) for at in range(column.type.num_fields)]
    # Not `type_codes`: those of a slice begin where what it is of does.
    codes = pa.Array.from_buffers(pa.int8(), len(column), [None, column.buffers()[1]], offset=column.offset)
    return [members[code][row] for row, code in enumerate(codes.to_pylist())]


def _extension(column: pa.Array) -> list[Any]:
    if column.type.extension_name == "arrow.uuid":
        return [None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()]
    return plain(column.storage)


def _is_text(type_: pa.DataType) -> bool:
    return any(is_(type_) for is_ in (types.is_string, types.is_large_string, types.is_string_view))


def _is_blob(type_: pa.DataType) -> bool:
    some = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(is_(type_) for is_ in some)


def _is_list(type_: pa.DataType) -> bool:
    some = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_(type_) for is_ in some)


def _is_whole_decimal(type_: pa.DataType) -> bool:
    return bool(types.is_decimal(type_)) and bool(type_.scale <= 0)


_BY_TYPE: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]]] = [
    (_is_text, lambda column: list(column.to_pylist())),
    (types.is_boolean, lambda column: list(column.to_pylist())),
    (types.is_integer, _whole),
    (types.is_floating, _float),
    (_is_whole_decimal, _whole),
    (types.is_decimal, _fraction),
    (types.is_timestamp, lambda column: list(_instants(column).to_pylist())),
    (types.is_date, lambda column: list(_dated(column, pa.int32()).to_pylist())),
    (types.is_time, lambda column: list(_times(column).to_pylist())),
    (types.is_interval, _interval),
    (_is_blob, _blob),
    (types.is_map, _map),
    (_is_list, _list),
    (types.is_struct, _struct),
    (types.is_union, _union),
]
