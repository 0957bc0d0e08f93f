"""A replica of a table that is keyed by one column of any type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import merganser as mg
from merganser.schemas.avro import key_schema
from merganser.schemas.encode import RowEncoder
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


@contextmanager
def having(tmp_path: Path, type_: Any, keys: list[Any], log: FakeLog | None = None) -> Iterator[mg.Replica]:
    """A replica of a table with a row of each of *keys*, numbered as ``n``."""
    fields = [{"name": "k", "type": type_}, {"name": "n", "type": "long"}]
    schema = {"type": "record", "name": "row", "fields": fields}
    required = {**schema, "fields": [{"name": "k", "type": type_[1] if isinstance(type_, list) else type_}, fields[1]]}
    columns = key_schema("t", required, ["k"])
    columns["fields"][0]["type"] = type_
    key = SchemaVersion(key_subject("t"), 1, 2, columns)
    table = Table("t", "id-t", 1, (SchemaVersion(value_subject("t"), 1, 1, schema),), ("k",), "avro", key)
    log, encoder = log or FakeLog(), RowEncoder(table)
    log.add(table)
    for n, k in enumerate(keys):
        log.put("t", 0, encoder.key({"k": k}), encoder.value({"k": k, "n": n}))
    with mg.Replica(tmp_path / "r.duckdb", log, "g", ["t"], limits=STORE_LIMITS) as replica:
        assert replica.query("SELECT count(*) FROM t", level="strong").rows() == [(len(keys),)]
        yield replica
