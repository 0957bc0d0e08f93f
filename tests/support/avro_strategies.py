"""Random Avro schemas, and rows that fit them, in the form that users write."""

from __future__ import annotations

import datetime as dt
import string
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from merganser.schemas.types import NANOS

#: Nested schemas take hypothesis a while to draw; what is slow is the drawing, not the code.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just("é" * 70)
BINARY = st.binary(max_size=12)
FLOAT32 = st.floats(width=32)
INSTANTS = st.datetimes(timezones=st.just(dt.UTC))
LOCALS = st.datetimes()


def _to_millis(value: Any) -> Any:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


#: Avro type → what users write for it.
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("boolean", st.booleans()),
    ("int", INT32),
    ("long", INT64 | st.integers(-70, 70)),
    ("float", FLOAT32),
    ("double", st.floats()),
    ("string", TEXT),
    ("bytes", BINARY),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    ({"type": "int", "logicalType": "time-millis"}, st.times().map(_to_millis)),
    ({"type": "long", "logicalType": "time-micros"}, st.times()),
    ({"type": "long", "logicalType": "timestamp-millis"}, INSTANTS.map(_to_millis)),
    ({"type": "long", "logicalType": "timestamp-micros"}, INSTANTS),
    ({"type": "long", "logicalType": "timestamp-nanos"}, st.integers(*NANOS)),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, LOCALS.map(_to_millis)),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, LOCALS),
    ({"type": "long", "logicalType": "local-timestamp-nanos"}, st.integers(*NANOS)),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    ({"type": "fixed", "name": "?", "size": 16, "logicalType": "uuid"}, st.uuids()),
    ({"type": "fixed", "name": "?", "size": 4}, st.binary(min_size=4, max_size=4)),
    ({"type": "fixed", "name": "?", "size": 20}, st.binary(min_size=20, max_size=20)),
    ({"type": "fixed", "name": "?", "size": 5}, st.binary(min_size=5, max_size=5)),
    ({"type": "enum", "name": "?", "symbols": list(string.ascii_uppercase)}, st.sampled_from(string.ascii_uppercase)),
    (
        {"type": "enum", "name": "?", "symbols": [f"S{i}" for i in range(100)]},
        st.integers(0, 99).map(lambda i: f"S{i}"),
    ),
]


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda i: Decimal((i < 0, tuple(map(int, str(abs(i)))), -scale)))


for _precision, _scale, _size in [(1, 0, None), (9, 2, None), (38, 10, None), (38, 38, None), (18, 4, 8), (38, 0, 16)]:
    _base: dict[str, Any] = {"type": "bytes"} if _size is None else {"type": "fixed", "name": "?", "size": _size}
    SCALARS.append(
        (_base | {"logicalType": "decimal", "precision": _precision, "scale": _scale}, _decimals(_precision, _scale))
    )

NAMES = st.lists(
    st.text(string.ascii_lowercase + "_", min_size=1, max_size=5).filter(lambda s: not s.startswith("_")),
    min_size=1,
    max_size=5,
    unique=True,
)


@st.composite
def avro_types(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """An Avro type and what users write for it."""
    shape = draw(st.sampled_from(["scalar"] * 5 + (["null", "array", "map", "record"] if depth else ["null"])))
    if shape == "scalar":
        return draw(st.sampled_from(SCALARS))
    if shape == "record":
        return draw(records(depth - 1))
    inner, values = draw(avro_types(depth - 1 if shape != "null" else 0) if shape != "null" else bare_types(depth))
    if shape == "null":
        first = draw(st.booleans())
        return (["null", inner] if first else [inner, "null"]), st.none() | values
    if shape == "array":
        return {"type": "array", "items": inner}, st.lists(values, max_size=4)
    return {"type": "map", "values": inner}, st.dictionaries(TEXT, values, max_size=4)


@st.composite
def bare_types(draw: st.DrawFn, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
    """An Avro type that is no union."""
    return draw(avro_types(depth).filter(lambda t: not isinstance(t[0], list)))


@st.composite
def records(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    fields = {name: draw(avro_types(depth)) for name in draw(NAMES)}
    schema = {"type": "record", "name": "?", "fields": [{"name": n, "type": t} for n, (t, _) in fields.items()]}
    return schema, st.fixed_dictionaries({name: values for name, (_, values) in fields.items()})


def named(schema: Any) -> Any:
    """The same schema with a name of its own for each named type."""
    count = iter(range(10**6))

    def walk(part: Any) -> Any:
        if isinstance(part, list):
            return [walk(p) for p in part]
        if not isinstance(part, dict):
            return part
        done = {k: walk(v) if k in ("type", "items", "values") else v for k, v in part.items()}
        if "name" in part and part["name"] == "?":
            done["name"] = f"n{next(count)}"
        if "fields" in part:
            done["fields"] = [{**f, "type": walk(f["type"])} for f in part["fields"]]
        return done

    return walk(schema)


@st.composite
def schemas_and_rows(draw: st.DrawFn, max_rows: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A table's schema and rows that fit it."""
    schema, values = draw(records())
    return named(schema), draw(st.lists(values, min_size=1, max_size=max_rows))


def bits(value: float) -> bytes:
    """A float as bits: NaN equals itself and 0.0 is not -0.0."""
    return struct.pack("<d", value)


def rows_of(table: pa.Table) -> Any:
    """The rows of an Arrow table, comparable, nanoseconds as numbers: Python has no type for them."""
    numbers = {pa.timestamp("ns"): pa.int64()}
    schema = pa.schema([(f.name, mapped(f.type, numbers)) for f in table.schema])
    return comparable(table.cast(schema).to_pylist())


def mapped(type_: pa.DataType, other: dict[pa.DataType, pa.DataType]) -> pa.DataType:
    """*type_* with some types in it replaced by others."""
    if type_ in other:
        return other[type_]
    if pa.types.is_struct(type_):
        return pa.struct([(f.name, mapped(f.type, other)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, mapped(type_.item_type, other))
    return pa.list_(mapped(type_.value_type, other)) if pa.types.is_list(type_) else type_


def comparable(value: Any) -> Any:
    """*value* in a form in which equal means the same, floats by their bits and NaN all one."""
    if isinstance(value, float):
        return "nan" if value != value else bits(value)
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [comparable(v) for v in value]
    if isinstance(value, bool):
        return ("bool", value)
    return value
