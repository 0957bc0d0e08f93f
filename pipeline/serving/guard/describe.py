"""What a statement would give, and which parameters it has, without running it."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from ....schemas.types import quote
from .ask import Parameter


@dataclass(frozen=True)
class Described:
    """*schema* of the rows that a statement gives, *types* of its columns in SQL, and its *parameters* in order.

    Where the SQL leaves the type of a column to a parameter, it is what NULL in its place gives.
    """

    schema: pa.Schema
    types: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    parameter_schema: pa.Schema
    """As clients want it: a type that the SQL leaves open is text, which DuckDB casts to what it needs."""


def describe(cursor: duckdb.DuckDBPyConnection, statement: duckdb.Statement, sql: str) -> Described:
    """*sql*, which *statement* is all of, as *cursor* would run it."""
    names = sorted(statement.named_parameters, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
    named = bool(names) and not names[0].isdecimal()
    nothing = dict.fromkeys(names) if named else [None] * len(names)
    relation = cursor.sql(statement, params=nothing or None)
    types = tuple(str(type_) for type_ in relation.types)
    with relation.limit(0).to_arrow_reader() as reader:
        schema = reader.schema
    parameters = _parameters(cursor, sql, names) if names else ()
    return Described(schema, types, parameters, _schema(cursor, parameters))


def _parameters(cursor: duckdb.DuckDBPyConnection, sql: str, names: list[str]) -> tuple[Parameter, ...]:
    # The client's own way to bind without running; tests/engine pins it.
    _, _, bound, *_ = cursor._bind(sql)
    types = {name: str(type_) for name, type_ in bound}
    return tuple(Parameter(name, "" if types[name] in ("UNKNOWN", '"NULL"') else types[name]) for name in names)


def _schema(cursor: duckdb.DuckDBPyConnection, parameters: tuple[Parameter, ...]) -> pa.Schema:
    if not parameters:
        return pa.schema([])
    values = ", ".join(f"CAST(NULL AS {p.type or 'VARCHAR'}) AS {quote(p.name)}" for p in parameters)
    with cursor.sql(f"SELECT {values} LIMIT 0").to_arrow_reader() as reader:
        return reader.schema
