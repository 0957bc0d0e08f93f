"""Is the replica what the CSV files say? Row by row, by a DuckDB that knows nothing of Merganser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ...schemas.types import quote
from .data import Data
from .tables import TABLES, DemoTable


@dataclass(frozen=True)
class Comparison:
    """One table: rows on both sides, and those that only one side has (doubled ones included)."""

    table: str
    in_csv: int
    in_replica: int
    missing: int
    extra: int

    @property
    def held(self) -> bool:
        return self.in_csv == self.in_replica and not self.missing and not self.extra


def compare(data: Data, store: Path, names: Mapping[str, str]) -> list[Comparison]:
    """Every table of the store at rest with its file; aircraft with a window over the flights' file."""
    con = duckdb.connect(config={"threads": 2})
    try:
        con.sql("SET TimeZone = 'UTC'")
        data.load(con)
        con.sql(f"ATTACH '{str(store).replace(chr(39), chr(39) * 2)}' AS replica (READ_ONLY)")
        return [_compare(con, table, names[table.name]) for table in TABLES]
    finally:
        con.close()


def _compare(con: duckdb.DuckDBPyConnection, table: DemoTable, topic: str) -> Comparison:
    columns = ", ".join(map(quote, table.columns))
    rows = _DIFFERENCE_SQL.format(columns=columns, csv=f"csv.{table.name}", replica=f"replica.main.{quote(topic)}")
    [found] = con.execute(rows).fetchall()
    return Comparison(table.name, *map(int, found))


#: EXCEPT ALL both ways in one pass, NULLs alike: each row that differs in anything is missing or extra.
_DIFFERENCE_SQL = """
SELECT coalesce(sum(theirs), 0), coalesce(sum(ours), 0),
       coalesce(sum(greatest(theirs - ours, 0)), 0), coalesce(sum(greatest(ours - theirs, 0)), 0)
FROM (
    SELECT {columns}, count(*) FILTER (side = 'csv') AS theirs, count(*) FILTER (side = 'replica') AS ours
    FROM (
        SELECT 'csv' AS side, {columns} FROM {csv} UNION ALL SELECT 'replica', {columns} FROM {replica}
    ) GROUP BY {columns}
)
"""
