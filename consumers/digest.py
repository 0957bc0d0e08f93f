"""Digests: what a table holds, in a few characters (DESIGN, invariant 3).

The definition, fixed from format 1 on:

- A row is the list of its columns that are not NULL, in the order of their names (by code point), each
  as *name*, *text*; ``_partition``, ``_offset`` and ``_timestamp`` are columns like the others. So a
  column that is NULL throughout changes nothing, nor does the order of columns or of rows.
- Each part is framed, ``<bytes of UTF-8>:<text>``, so that no two rows are written alike.
- The text of a value is DuckDB's own cast, except: floats and doubles are their bits (``-0.0`` is not
  ``0.0``, each NaN is itself); instants and timestamps are whole micro- or nanoseconds since 1970;
  blobs are hex. A list is its elements in order (``-`` for NULL), a map its entries by key, a struct
  its fields by name without the NULL ones.
- A table is its count of rows and the sum, over its rows, of the last 8 bytes of the row's MD5, lowest
  first: equal rows count each time, where XOR would cancel them.

Nothing here depends on a session's settings or on DuckDB's own hash, which may change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb

from ..schemas.table import RESERVED_COLUMNS
from ..schemas.types import quote


class Digest(NamedTuple):
    """``str`` gives ``<rows>-<hex>``."""

    rows: int
    total: int

    def __str__(self) -> str:
        return f"{self.rows}-{self.total:016x}"


def table_digest(cursor: duckdb.DuckDBPyConnection, table: str) -> Digest:
    """The digest of the table of that name, in the state that *cursor* sees."""
    columns = cursor.sql(f"SELECT * FROM {quote(table)} LIMIT 0")
    types = dict(zip(columns.columns, columns.types, strict=True))
    return _digest(cursor, quote(table), _pairs({name: (quote(name), types[name]) for name in types}))


def columns_digest(cursor: duckdb.DuckDBPyConnection, table: str) -> Digest:
    """The digest of the users' columns alone: equal for two tables with the same rows, wherever their records lie."""
    columns = cursor.sql(f"SELECT * FROM {quote(table)} LIMIT 0")
    types = dict(zip(columns.columns, columns.types, strict=True))
    row = _pairs({name: (quote(name), types[name]) for name in types if name not in RESERVED_COLUMNS})
    return _digest(cursor, quote(table), row)


def quarantine_digest(cursor: duckdb.DuckDBPyConnection, table: str) -> Digest:
    """The digest of the records in quarantine: place, time and raw bytes; their reason is our wording."""
    columns = cursor.sql("SELECT * EXCLUDE (topic, reason) FROM _merganser.quarantine LIMIT 0")
    types = dict(zip(columns.columns, columns.types, strict=True))
    row = _pairs({name: (quote(name), types[name]) for name in types})
    topic = table.replace("'", "''")
    return _digest(cursor, f"(SELECT * FROM _merganser.quarantine WHERE topic = '{topic}')", row)


def _digest(cursor: duckdb.DuckDBPyConnection, source: str, row: str) -> Digest:
    found = cursor.execute(f"SELECT count(*), coalesce(sum(md5_number_lower({row})), 0) FROM {source}").fetchall()
    [(rows, total)] = found
    return Digest(int(rows), int(total))


# -- SQL that writes a value as text -----------------------------------------------------------


def _pairs(columns: dict[str, tuple[str, Any]], depth: int = 0) -> str:
    """SQL text of name and value of each column that is not NULL, in the order of names."""
    parts = []
    for name, (expression, type_) in sorted(columns.items()):
        head = f"{len(name.encode())}:{name}".replace("'", "''")
        parts.append(f"coalesce('{head}' || {_written(expression, type_, depth)}, '')")
    return f"concat({', '.join(parts)})" if parts else "''"


def _written(expression: str, type_: Any, depth: int) -> str:
    """SQL text of one value, framed; NULL for NULL."""
    text = _text(expression, type_, depth)
    if type_.id not in ("list", "map", "struct"):
        return _framed(text)
    # Its text by a name, since a frame has it twice: each level of a nested type would double the SQL, and the work.
    name = quote(f"#t{depth}")
    return f"(list_transform([{text}], lambda {name}: {_framed(name)}))[1]"


def _framed(text: str) -> str:
    return f"(strlen({text}) || ':' || {text})"


def _text(expression: str, type_: Any, depth: int = 0) -> str:
    """SQL text for one value; NULL for NULL."""
    match type_.id:
        case "float" | "double":
            return f"CAST(CAST({expression} AS BIT) AS VARCHAR)"
        case "timestamp" | "timestamp with time zone":
            return f"CAST(epoch_us({expression}) AS VARCHAR)"
        case "timestamp_ns":
            return f"CAST(epoch_ns({expression}) AS VARCHAR)"
        case "blob":
            return f"hex({expression})"
        case "list":
            return _list(expression, dict(type_.children)["child"], depth)
        case "map":
            return _map(expression, dict(type_.children)["value"], depth)
        case "struct":
            fields = {name: (f"({expression}).{quote(name)}", child) for name, child in type_.children}
            return f"CASE WHEN {expression} IS NOT NULL THEN {_pairs(fields, depth)} END"
    return f"CAST({expression} AS VARCHAR)"


def _list(expression: str, element: Any, depth: int) -> str:
    item = quote(f"#x{depth}")  # a name that no Avro field can have
    each = f"coalesce({_written(item, element, depth + 1)}, '-')"
    return f"array_to_string(list_transform({expression}, lambda {item}: {each}), '')"


def _map(expression: str, value: Any, depth: int) -> str:
    key = quote(f"#k{depth}")
    found = f"({expression})[{key}]"
    each = f"{_framed(key)} || coalesce({_written(found, value, depth + 1)}, '-')"
    return f"array_to_string(list_transform(list_sort(map_keys({expression})), lambda {key}: {each}), '')"
