"""Avro schemas: read, judged, and refused by name.

Invariants: a schema that passes here has an SQL type for each field, and a default that fits
wherever it has one; nothing else in this package meets a schema that did not pass. The user's own
schema is never rewritten: documentation, aliases and unknown attributes travel to the registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fastavro

from .defaults import encode_default
from .errors import BadKeyColumns, BadSchema
from .table import RESERVED_COLUMNS, AvroSchema, Table
from .types import MAX_PRECISION, Field, Kind, Type

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Named types may be used many times, so a short schema can describe a huge tree.
_MAX_NODES = 10_000

_PRIMITIVES: dict[str, Kind] = {
    "boolean": "boolean",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
    "string": "string",
    "bytes": "bytes",
}

#: A logical type on any other base is ignored, as the Avro specification asks.
_LOGICAL: dict[tuple[str, str], Kind] = {
    ("int", "date"): "date",
    ("int", "time-millis"): "time-millis",
    ("long", "time-micros"): "time-micros",
    ("long", "timestamp-millis"): "timestamp-millis",
    ("long", "timestamp-micros"): "timestamp-micros",
    ("long", "timestamp-nanos"): "timestamp-nanos",
    ("long", "local-timestamp-millis"): "local-timestamp-millis",
    ("long", "local-timestamp-micros"): "local-timestamp-micros",
    ("long", "local-timestamp-nanos"): "local-timestamp-nanos",
    ("string", "uuid"): "uuid",
    ("fixed", "uuid"): "uuid",
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
}

_KEY_KINDS = frozenset(
    ["boolean", "int", "long", "string", "bytes", "fixed", "enum", "uuid", "date", "decimal"]
    + [k for k in _LOGICAL.values() if k.startswith(("time", "local"))]
)


def parse_schema(table: str, schema: AvroSchema) -> dict[str, Any]:
    """The user's own schema as a dict, once every part of it has an SQL type; else BadSchema."""
    row_type(table, schema)
    loaded = _load(table, schema)
    return dict(loaded)


def row_type(table: str, schema: AvroSchema) -> Type:
    """The record type that *schema* describes; BadSchema if a replica cannot keep it."""
    parsed, named = _parsed(table, _load(table, schema))
    row = _Walk(table, named).type("", parsed, ())
    _check_columns(table, row)
    return row


def key_schema(table: str, schema: AvroSchema, key: Sequence[str]) -> dict[str, Any]:
    """The schema of Avro keys: a record of the columns *key*, typed as in the value."""
    columns = {f.name: f for f in row_type(table, schema).fields}
    for name in key:
        if name not in columns:
            raise BadKeyColumns(table, name, "the schema has no such column")
        if columns[name].type.nullable:
            raise BadKeyColumns(table, name, "it may be null")
        if columns[name].type.kind not in _KEY_KINDS:
            raise BadKeyColumns(table, name, f"{columns[name].type.kind} cannot be a key")
    loaded = _load(table, schema)
    return {
        "type": "record",
        "name": f"{loaded['name'].rpartition('.')[2]}_key",
        "fields": _key_fields(_parsed(table, loaded), key),
    }


def _key_fields(parsed: tuple[Any, Mapping[str, Any]], key: Sequence[str]) -> list[dict[str, Any]]:
    """The fields of a key, each named type written out where it comes first: the value may define it elsewhere."""
    record, named = parsed
    types = {f["name"]: f["type"] for f in record["fields"]}
    made, defined = [], set()
    for name in key:
        type_ = types[name]
        full = str(type_.get("name") if isinstance(type_, Mapping) else type_)
        if full in named:
            type_ = full if full in defined else named[full]
            defined.add(full)
        made.append({"name": name, "type": type_})
    return made


def key_fields(table: Table) -> tuple[Field, ...]:
    """The key columns of *table* as its keys carry them."""
    if not table.key:
        return ()
    if table.key_encoding != "avro":
        return (Field(table.key[0], Type(table.key_encoding)),)
    if table.key_schema is None:
        raise ValueError(f"table {table.name!r} has Avro keys and no key schema")
    return row_type(table.name, table.key_schema.schema).fields


def check_key(table: Table) -> None:
    """BadKeyColumns if rows of *table* could not be told apart by its key in one way only.

    Floats have two zeros, nested types no order; and a key column that values carry too must be of
    one type in both (int and long are one), or key and value could never be compared. The first version of both
    is judged; later ones of values that differ are refused, each by itself (`layout`).
    """
    values = {f.name: f.type for f in row_type(table.name, table.values[0].schema).fields}
    for f in key_fields(table):
        if f.type.kind not in _KEY_KINDS:
            raise BadKeyColumns(table.name, f.name, f"{f.type.kind} cannot be a key")
        value = values.get(f.name)
        if value is not None and not comparable(value, f.type):
            raise BadKeyColumns(table.name, f.name, f"it is {f.type.sql} in keys, {value.sql} in values")


def comparable(a: Type, b: Type) -> bool:
    """True if key columns of these types can be compared, exactly."""
    return _compared_as(a) == _compared_as(b)


def _compared_as(type_: Type) -> tuple[str, int, int]:
    kind = {"int": "long", "enum": "string", "fixed": "bytes"}.get(type_.kind, type_.kind)
    return kind.replace("-millis", "-micros"), type_.precision, type_.scale


def _load(table: str, schema: AvroSchema) -> Mapping[str, Any]:
    loaded: Any = schema
    if isinstance(schema, str):
        try:
            loaded = json.loads(schema)
        except ValueError as e:
            raise BadSchema(table, "", f"not JSON: {e}") from e
    if not isinstance(loaded, Mapping) or loaded.get("type") != "record":
        raise BadSchema(table, "", "the top level must be a record")
    return loaded


def _parsed(table: str, loaded: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The schema with full names everywhere, and the types that it names."""
    named: dict[str, Any] = {}
    try:
        return fastavro.parse_schema(dict(loaded), named), named
    except Exception as e:  # fastavro meets bad JSON with whatever its code trips over
        raise BadSchema(table, "", f"not a valid Avro schema: {e}") from e


def _check_columns(table: str, row: Type) -> None:
    for column in row.fields:
        if column.name.lower() in RESERVED_COLUMNS:
            raise BadSchema(table, column.name, "a replica uses this name itself")


class _Walk:
    """One pass over a parsed schema, from Avro's JSON to a Type."""

    def __init__(self, table: str, named: Mapping[str, Any]) -> None:
        self._table = table
        self._named = named
        self._nodes = 0

    def type(self, where: str, schema: Any, open_names: tuple[str, ...]) -> Type:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self._bad(where, f"more than {_MAX_NODES} types once its named types are written out")
        if isinstance(schema, list):
            return self._union(where, schema, open_names)
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return Type(_PRIMITIVES[schema])
            if schema == "null":
                raise self._bad(where, "null alone holds no value")
            if schema in open_names:
                raise self._bad(where, f"the record {schema} contains itself; a column is a finite type")
            return self.type(where, self._named[schema], open_names)
        return self._complex(where, schema, open_names)

    def _union(self, where: str, branches: list[Any], open_names: tuple[str, ...]) -> Type:
        values = [b for b in branches if b != "null"]
        if len(values) != 1 or len(branches) != 2:
            raise self._bad(where, "of the unions only [null, T] has an SQL type that every reader takes")
        return replace(self.type(where, values[0], open_names), null_branch=branches.index("null"))

    def _complex(self, where: str, schema: Mapping[str, Any], open_names: tuple[str, ...]) -> Type:
        base = schema["type"]
        if isinstance(base, (list, Mapping)) or base in self._named:
            return self.type(where, base, open_names)
        logical = str(schema.get("logicalType", ""))
        if logical == "duration":
            raise self._bad(where, "duration has no SQL type that every reader takes")
        kind = _LOGICAL.get((base, logical))
        if kind == "decimal":
            return self._decimal(where, schema)
        if kind == "uuid" and base == "fixed" and schema["size"] != 16:
            kind = None
        if base == "fixed":
            if schema["size"] < 1:
                raise self._bad(where, "a fixed of no bytes holds no value")
            return Type(kind or "fixed", size=schema["size"], **_names(schema))
        if base in _PRIMITIVES:
            return Type(kind or _PRIMITIVES[base])
        match base:
            case "enum":
                default = schema.get("default")
                return Type("enum", symbols=tuple(schema["symbols"]), enum_default=default, **_names(schema))
            case "array":
                return Type("array", item=self.type(f"{where}[]", schema["items"], open_names))
            case "map":
                return Type("map", item=self.type(f"{where}[]", schema["values"], open_names))
            case "record":
                fields = self._fields(where, schema, (*open_names, schema["name"]))
                return Type("record", fields=fields, **_names(schema))
        raise self._bad(where, f"{base!r} has no SQL type")

    def _decimal(self, where: str, schema: Mapping[str, Any]) -> Type:
        precision, scale = schema.get("precision"), schema.get("scale", 0)
        if not isinstance(precision, int) or not 1 <= precision <= MAX_PRECISION:
            raise self._bad(where, f"a decimal needs a precision of 1 to {MAX_PRECISION}, not {precision!r}")
        if not isinstance(scale, int) or not 0 <= scale <= precision:
            raise self._bad(where, f"a decimal needs a scale of 0 to its precision {precision}, not {scale!r}")
        size = schema["size"] if schema["type"] == "fixed" else None
        if size is not None and 10**precision > 1 << (8 * size - 1):
            raise self._bad(where, f"{precision} digits do not fit into {size} bytes")
        return Type("decimal", size=size, precision=precision, scale=scale, **_names(schema))

    def _fields(self, where: str, schema: Mapping[str, Any], open_names: tuple[str, ...]) -> tuple[Field, ...]:
        fields: dict[str, Field] = {}
        for f in schema["fields"]:
            place = f"{where}.{f['name']}" if where else str(f["name"])
            if not _NAME.fullmatch(f["name"]):
                raise self._bad(place, "a name has letters, digits and _ only, and no digit first")
            if f["name"].lower() in fields:
                raise self._bad(place, "SQL does not tell names apart by case, and another one differs by case only")
            fields[f["name"].lower()] = self._field(place, f, open_names)
        if not fields:
            raise self._bad(where, "a record without fields has no SQL type")
        return tuple(fields.values())

    def _field(self, place: str, f: Mapping[str, Any], open_names: tuple[str, ...]) -> Field:
        type_ = self.type(place, f["type"], open_names)
        aliases = tuple(f.get("aliases", ()))
        if "default" not in f:
            return Field(f["name"], type_, aliases)
        try:
            encode_default(type_, f["default"])
        except (ValueError, TypeError, LookupError) as e:
            raise self._bad(place, f"the default {f['default']!r} does not fit: {e}") from None
        return Field(f["name"], type_, aliases, True, f["default"])

    def _bad(self, where: str, why: str) -> BadSchema:
        return BadSchema(self._table, where, why)


def _names(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": schema.get("name", ""), "aliases": tuple(schema.get("aliases", ()))}
