"""Tables and files of the loading tests."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merganser.pipeline.loading.encoding import Encoded, Encoding
from merganser.pipeline.loading.inputs import Input, open_input
from merganser.pipeline.loading.load import ImportOptions, open_source
from merganser.schemas.avro import key_schema
from merganser.schemas.table import SchemaVersion, Table

Field = tuple[str, Any] | tuple[str, Any, dict[str, Any]]


def record(*fields: Field, **more: Any) -> dict[str, Any]:
    made = [{"name": f[0], "type": f[1], **(f[2] if len(f) > 2 else {})} for f in fields]
    return {"type": "record", "name": "t", "fields": made, **more}


def table(schema: Mapping[str, Any], key: Sequence[str] = ()) -> Table:
    key_version = SchemaVersion("t-key", 1, 8, key_schema("t", schema, key)) if key else None
    return Table("t", "topic-id", 4, (SchemaVersion("t-value", 1, 7, schema),), tuple(key), "avro", key_version)


def encoded(
    data: bytes,
    declared: Table,
    format_: str = "csv",
    options: ImportOptions | None = None,
    *,
    by_columns: bool = True,
    sort: str | None = None,
) -> list[Encoded]:
    """The rows of a file with these bytes."""
    options = options or ImportOptions()
    file = Input("file", Path("file"), format_, None, len(data), "", ())  # type: ignore[arg-type]
    source, _ = open_source(file, io.BytesIO(data), options, declared)
    return list(Encoding(declared, 1_000_000, sort, by_columns=by_columns).encode(source.pieces()))


def values(parts: Sequence[Encoded]) -> list[bytes]:
    return [value for part in parts for value in part.values]


def bad(parts: Sequence[Encoded]) -> list[tuple[int, str]]:
    return [(each.line, each.why) for part in parts for each in part.bad]


def scanned(path: Path, format_: str | None = None) -> Input:
    with open_input(str(path), format_) as file:
        return file
