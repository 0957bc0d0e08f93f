"""The Arrow type of each column: what goes into DuckDB by ``INSERT … SELECT``.

Invariant: kinds that share an SQL type share the Arrow type too, so that two versions of a schema
meet in one column; a uuid alone has two (text, and 16 bytes), and those never share a column.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from .types import Type

_ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
    "enum": pa.string(),
    "date": pa.date32(),
    "time-millis": pa.time64("us"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("us", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns"),
    "local-timestamp-millis": pa.timestamp("us"),
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-nanos": pa.timestamp("ns"),
}


def arrow_type(type_: Type) -> pa.DataType:
    """The Arrow type that *type_* decodes to."""
    match type_.kind:
        case "uuid":
            return pa.string() if type_.size is None else pa.binary(16)
        case "decimal":
            return pa.decimal128(type_.precision, type_.scale)
        case "array":
            return pa.list_(arrow_type(type_.element))
        case "map":
            return pa.map_(pa.string(), arrow_type(type_.element))
        case "record":
            return pa.struct([(f.name, arrow_type(f.type)) for f in type_.fields])
    return _ARROW[type_.kind]


def arrow_schema(row: Type) -> pa.Schema:
    """The Arrow schema of a record's columns. All are nullable: a store keeps what a record carries."""
    return pa.schema([(f.name, arrow_type(f.type)) for f in row.fields])


def with_leaves(type_: pa.DataType, of: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """*type_* with what *of* makes of each type in it that has no others inside; lists are of one kind then."""
    types = pa.types
    if types.is_struct(type_):
        return pa.struct([field.with_type(with_leaves(field.type, of)) for field in type_])
    if types.is_map(type_):
        return pa.map_(type_.key_type, type_.item_field.with_type(with_leaves(type_.item_type, of)))
    if types.is_list(type_) or types.is_large_list(type_):
        return pa.list_(type_.value_field.with_type(with_leaves(type_.value_type, of)))
    if types.is_fixed_size_list(type_):
        return pa.list_(type_.value_field.with_type(with_leaves(type_.value_type, of)), type_.list_size)
    return of(type_)
