"""Confluent-framed Avro, by fastavro."""

from __future__ import annotations

import io
from typing import Any

import fastavro


def framed(id_: int, schema: dict[str, Any], row: dict[str, Any]) -> bytes:
    """A value or key: byte 0, the schema id, the row."""
    out = io.BytesIO()
    out.write(b"\x00" + id_.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(schema)), row)
    return out.getvalue()
