"""The users' tables: rows in, rows out by key, and the versions that conditions ask for.

An upsert is a delete by key and an insert, of the last record per key (FAILURES 28).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow as pa

from ..schemas.types import quote
from .batch import Stage, TableKeys, TableRows
from .conditions import Key, asked_for
from .statements import Connection, count, run, view


def write_rows(con: Connection, rows: TableRows, step: Callable[[str], None]) -> None:
    """Bring the table to what *rows* say; *step* is told of each step."""
    superseded = rows.superseded
    with view(con, "#rows", rows.rows), view(con, "#gone", rows.gone):
        if rows.key:
            superseded += _delete(con, "#rows", rows.rows, rows) + _delete(con, "#gone", rows.gone, rows)
        step("deleted")
        if rows.rows is not None:
            run(con, f'INSERT INTO {quote(rows.table)} BY NAME SELECT * FROM "#rows"')
        step("inserted")
    if superseded:
        sql = "UPDATE _merganser.tables SET superseded = superseded + ? WHERE topic = ?"
        run(con, sql, [superseded, rows.table])


def row_versions(con: Connection, stage: Stage) -> dict[Key, int]:
    """The ``_offset`` of each row that is there now, of the keys that the conditions of *stage* ask for."""
    asked: dict[str, dict[int, Key]] = defaultdict(dict)
    for entry in asked_for(stage.units):
        if entry.key_values is not None and entry.place not in stage.bad:
            partition = entry.place.partition
            asked[partition.topic][stage.numbers[entry.place]] = (partition, entry.key_values)
    found: dict[Key, int] = {}
    for part in stage.tables:
        if part.key and part.table in asked:
            key_of = asked[part.table]
            offsets = offsets_of(con, part.table, part.keys(key_of))
            found |= {key_of[number]: offset for number, offset in offsets.items()}
    return found


def offsets_of(con: Connection, table: str, keys: TableKeys) -> dict[int, int]:
    """The ``_offset`` of the row of each of *keys*, by its number; those without a row are absent."""
    with view(con, "#asked", keys.rows):
        match = _matching(keys.key, keys.rows)
        return dict(
            run(con, f'SELECT r."{keys.number}", t._offset FROM "#asked" AS r JOIN {quote(table)} AS t ON {match}')
        )


def _delete(con: Connection, name: str, keys: pa.Table | None, rows: TableRows) -> int:
    """Delete the rows that have a key in the view *name*, which shows *keys*; returns how many."""
    if keys is None:
        return 0
    return count(con, f'DELETE FROM {quote(rows.table)} AS t USING "{name}" AS r WHERE {_matching(rows.key, keys)}')


def _matching(columns: Sequence[str], keys: pa.Table) -> str:
    """SQL that joins t with r, which shows *keys*. Keys of foreign tables may be null, and null is a key like any."""
    return " AND ".join(
        f"t.{quote(column)} {'IS NOT DISTINCT FROM' if keys[column].null_count else '='} r.{quote(column)}"
        for column in columns
    )
