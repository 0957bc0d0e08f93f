"""Small tables for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merganser.schemas.avro import key_schema
from merganser.schemas.table import SchemaVersion, Table

ID = 7
PREFIX = b"\0\0\0\0\x07"


def version(schema: Any, number: int = 1, id: int = ID) -> SchemaVersion:
    return SchemaVersion("t-value", number, id, schema)


def table(schema: Any, key: Sequence[str] = ()) -> Table:
    key_version = SchemaVersion("t-key", 1, 8, key_schema("t", schema, key)) if key else None
    return Table("t", "topic-id", 1, (version(schema),), tuple(key), "avro", key_version)


def record(*fields: Any) -> dict[str, Any]:
    """A record schema; a field is ``(name, type)`` or ``(name, type, {"default": …})``."""
    made = [{"name": f[0], "type": f[1], **(f[2] if len(f) > 2 else {})} for f in fields]
    return {"type": "record", "name": "t", "fields": made}
