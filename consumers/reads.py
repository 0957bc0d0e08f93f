"""SQL on a replica: what may run, at which freshness, and what comes back.

Invariants: exactly one SELECT or EXPLAIN runs, in a read-only transaction, so a query never changes
the store; rows and the position that they are of come out of the same transaction.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import duckdb

from ..schemas.errors import BadQuery, ReadError, ReadInterrupted
from ..schemas.position import Position, TopicPartition
from .asked import Params
from .result import Result
from .statements import parsed

_READING = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})

#: DuckDB's words for too few parameters, or too many.
_PARAMETERS = re.compile(r"were not provided for the following|argument/count mismatch|/argument count mismatch")

_DIALECT = 'check the SQL, of DuckDB\'s dialect; a name that is a word of it goes into double quotes: "at", "end"'

_POSITION_SQL = "SELECT topic, partition, next_offset, applied_offset FROM _merganser.positions"


def parse(sql: str) -> duckdb.Statement:
    """*sql*, which is one statement that reads; else BadQuery. The read-only transaction has the last word."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise BadQuery(one_line(error), hint=_DIALECT) from error
    if len(statements) != 1:
        raise BadQuery(f"{len(statements)} statements in one query")
    try:
        kind = statements[0].type
    except ValueError as error:  # of kinds that DuckDB has and its Python client does not know (UPDATE EXTENSIONS)
        raise BadQuery("not a query") from error
    if kind == duckdb.StatementType.MULTI:  # DuckDB makes two of it: one that looks which values there are
        raise BadQuery("PIVOT without its values is not one query", hint="name them: PIVOT t ON column IN (1, 2) …")
    if kind not in _READING:
        raise BadQuery(f"{kind.name} is not a query")
    return statements[0]


class Goal(NamedTuple):
    """What a read has to reach: *applied* by the applied position, *read* by the read one. *level* names it."""

    level: str
    applied: Position
    read: Position


class Reading(NamedTuple):
    """A cursor inside one read-only transaction, and the positions of the state that it sees."""

    cursor: duckdb.DuckDBPyConnection
    position: Position
    applied: Position


def run(reading: Reading, query: duckdb.Statement, params: Params) -> Result:
    """The rows of *query*. BadQuery, ReadError."""
    try:
        relation = reading.cursor.sql(query, params=params)
        types = [str(t) for t in relation.types]
        table = relation.to_arrow_table()
    except duckdb.FatalException:
        raise
    except duckdb.Error as error:
        raise query_error(error) from error
    return Result(table, types, reading.position, reading.applied)


def query_error(error: duckdb.Error) -> ReadError | BadQuery:
    """What a query raises for DuckDB's *error*, which is no fatal one."""
    if isinstance(error, duckdb.InterruptException):
        return ReadError("the query was interrupted, since the replica needed the store for itself: run it again")
    why = one_line(error)
    if _PARAMETERS.search(why):
        return BadQuery(why, hint="give one value for each `?` or `$name` of the SQL, and no other")
    return BadQuery(why, hint="check table and column names; the SQL is DuckDB's dialect")


def positions(cursor: duckdb.DuckDBPyConnection) -> tuple[Position, Position]:
    """The read position of the store that *cursor* is of, and the applied one."""
    rows = cursor.execute(parsed(_POSITION_SQL)).fetchall()
    partitions = [TopicPartition(topic, partition) for topic, partition, _, _ in rows]
    read = Position(dict(zip(partitions, (row[2] for row in rows), strict=True)))
    return read, Position(dict(zip(partitions, (row[3] for row in rows), strict=True)))


def read_error(path: Path, error: duckdb.Error | OSError) -> ReadError | None:
    """What a long read of the store at *path* raises for *error*; None if that is not the store's."""
    # Arrow tells of an interrupted query by an OSError, and has DuckDB's words in it.
    if isinstance(error, duckdb.InterruptException) or (isinstance(error, OSError) and "INTERRUPT" in str(error)):
        return ReadInterrupted(str(path))
    return ReadError(f"store {path}: {one_line(error)}") if isinstance(error, duckdb.Error) else None


def one_line(error: BaseException) -> str:
    """DuckDB's message without the picture of the statement below it."""
    return str(error).split("\n\n")[0].replace("\n", " ").strip()
