"""What there is to be read in a served store: tables, columns, keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from ....consumers.dbfile import stored_tables
from ....consumers.statements import run
from ....schemas.types import quote

#: The schemas of DuckDB that hold tables of ours.
MAIN, SYSTEM = "main", "_merganser"

_COLUMNS_SQL = """
SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns()
WHERE database_name = current_database() AND NOT internal AND schema_name IN ('main', '_merganser')
ORDER BY schema_name DESC, table_name, column_index
"""

#: What a name without a schema may mean: DuckDB looks in these two, and has views of its own there.
_NAMES_SQL = """
SELECT table_name FROM duckdb_tables() WHERE schema_name IN ('main', 'pg_catalog')
UNION SELECT view_name FROM duckdb_views() WHERE schema_name IN ('main', 'pg_catalog')
"""


@dataclass(frozen=True)
class ServedTable:
    """A table of *schema* ``main`` or ``_merganser``: *columns* with their SQL types, *key* columns if any."""

    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As a grant names it: ``orders``, ``_merganser.positions``."""
        return self.name if self.schema == MAIN else f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"

    def granted(self, tables: Collection[str]) -> bool:
        return self.full_name.casefold() in {name.casefold() for name in tables}


def served_tables(cursor: duckdb.DuckDBPyConnection) -> list[ServedTable]:
    """The tables in the state that *cursor* sees, ours of ``_merganser`` last."""
    keys = {name: table.key for name, table in stored_tables(cursor).items()}
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for schema, table, column, type_ in run(cursor, _COLUMNS_SQL):
        found.setdefault((schema, table), []).append((column, type_))
    return [
        ServedTable(schema, name, tuple(columns), keys.get(name, ()) if schema == MAIN else ())
        for (schema, name), columns in found.items()
    ]


def plain_names(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables and views, DuckDB's own too, that a name without a schema finds in the state that *cursor* sees."""
    return [name for (name,) in run(cursor, _NAMES_SQL)]


def arrow_schema(cursor: duckdb.DuckDBPyConnection, table: ServedTable) -> pa.Schema:
    """The schema of *table*, as a query of it gives."""
    with cursor.sql(f"SELECT * FROM {table.quoted} LIMIT 0").to_arrow_reader() as reader:
        return reader.schema
