"""Running the store's own SQL: parsed once, results read to the end, Arrow tables as views.

DuckDB parses a short statement for as long as it runs it, and an unfinished result blocks the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa

Connection = duckdb.DuckDBPyConnection


@lru_cache(maxsize=256)
def parsed(sql: str) -> duckdb.Statement:
    """The one statement of *sql*, for those that come again and again."""
    [statement] = duckdb.extract_statements(sql)
    return statement


def run(con: Connection, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows that *sql* gives."""
    return con.execute(parsed(sql), params).fetchall()


def count(con: Connection, sql: str, params: Sequence[object] = ()) -> int:
    """The one number that *sql* gives: how many rows it changed."""
    [(number,)] = run(con, sql, params)
    return int(number)


@contextmanager
def transaction(con: Connection) -> Iterator[None]:
    """What is done inside is committed in the end; if it fails, nothing of it was done. Of a commit that fails only
    the file knows."""
    con.begin()
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # the first error says more; what cannot roll back is opened again
            con.rollback()
        raise
    con.commit()


@contextmanager
def view(con: Connection, name: str, table: pa.Table | None) -> Iterator[None]:
    """Lets statements read *table*, if there is one, as the view *name*."""
    if table is None:
        yield
        return
    con.register(name, table)
    try:
        yield
    except duckdb.Error:
        with suppress(duckdb.Error):  # in an aborted transaction this fails too, and says less
            con.unregister(name)
        raise
    con.unregister(name)


def insert(con: Connection, table: str, schema: pa.Schema, rows: Sequence[Sequence[object]]) -> None:
    """Insert *rows*, in the columns of *schema*, which are those of *table*."""
    if rows:
        columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
        with view(con, "#new", pa.table(columns, schema=schema)):
            run(con, f'INSERT INTO {table} SELECT * FROM "#new"')
