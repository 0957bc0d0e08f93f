"""Loading a snapshot, and looking at all that a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from merganser.consumers.contents import Loading
from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.objects import Objects
from merganser.pipeline.backup import files
from merganser.pipeline.backup.snapshot import Snapshot

Dump = dict[str, list[tuple[Any, ...]]]


def dump(cursor: duckdb.DuckDBPyConnection, tables: list[str] | None = None) -> Dump:
    """Every row of every table, in order; columns by name."""
    sql = "SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL"
    held: Dump = {}
    for schema, table in cursor.execute(sql).fetchall():
        name = table if schema == "main" else f"{schema}.{table}"
        if tables is None or name in tables:
            found = cursor.execute(f'SELECT CAST(COLUMNS(*) AS VARCHAR) FROM "{schema}"."{table}"')
            order = sorted(range(len(found.description)), key=lambda i: found.description[i][0])
            held[name] = sorted((tuple(row[i] for i in order) for row in found.fetchall()), key=str)
    return held


def load(snapshot: Snapshot, objects: Objects, key: Key | None, path: Path) -> Dump:
    """What a store holds that *snapshot* was loaded into."""
    with Loading(path, "fake-cluster", "g") as loading:
        for table in snapshot.state.tables:
            loading.add_table(table.as_columns)
        for entry in snapshot.files:
            loading.add(entry.stretch, files.read(objects, entry, key))
        return dump(loading.cursor())
