"""``merganser query``: SQL on a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DEFAULT_TIMEOUT_S, Format, Level, RegistryUrl, Servers, Store, Timeout, open_log, option
from .output import count, emit, emit_table, plain, say

if TYPE_CHECKING:
    from ...consumers.result import Result
    from ...consumers.storefile import StoreFile

Sql = Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, in DuckDB's dialect.")]
LevelOption = Annotated[
    Level,
    option(
        "--level", "eventual: as the store is. strong: with every write acknowledged. bounded: see --max-staleness."
    ),
]
MaxStaleness = Annotated[
    float | None, option("--max-staleness", "Seconds: nothing acknowledged longer ago is missing (level bounded).")
]
After = Annotated[str | None, option("--after", "A token, as put prints it: the answer includes that write.")]
FormatOption = Annotated[Format, option("--format", "json is one object a row; arrow is an IPC stream.")]


def register(app: typer.Typer) -> None:
    app.command()(query)


def query(
    sql: Sql,
    store: Store,
    level: LevelOption = "eventual",
    after: After = None,
    max_staleness: MaxStaleness = None,
    format: FormatOption = "table",
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Run one SELECT on a store that no process has open.

    As it is, unless --level strong or bounded, or --after, ask for more: then the store follows the log until it is
    fresh enough, and answers. A running replica's file cannot be read by another process.
    """
    from ...consumers.reads import check_level, parse
    from ...consumers.storefile import StoreFile
    from ...schemas.position import Position

    level = check_level(level, max_staleness)
    parse(sql)
    token = Position.parse(after) if after else None
    with StoreFile(store) as at_rest:
        if level not in ("strong", "bounded") and not token:
            result = at_rest.query(sql)
            _WRITERS[format](result)
            return
        group, tables = at_rest.group, _whole_tables(at_rest)
    from ...consumers.replica import Replica

    with open_log(bootstrap_servers, registry, timeout) as log, Replica(store, log, group, tables) as replica:
        result = replica.query(sql, level=level, after=token, max_staleness=max_staleness, timeout=timeout)
    _WRITERS[format](result)


def _whole_tables(store: StoreFile) -> list[str]:
    """The store's tables, if it holds all of each: to follow the others would not be this command's to decide."""
    from ...schemas.errors import ReadError

    held = [tp.topic for tp in store.position]
    for name, table in store.tables().items():
        if held.count(name) != table.partitions:
            error = ReadError(
                f"store {store.path} holds {held.count(name)} of {table.partitions} partitions of {name!r}"
            )
            error.hint = "a share of a split group is followed by `merganser replica run --split` only"
            raise error
    return list(store.tables())


# -- formats -----------------------------------------------------------------------------------


def _table(result: Result) -> None:
    numeric = [name for name, kind in zip(result.columns, result.arrow().schema.types, strict=True) if _number(kind)]
    emit_table(result.columns, result.rows(), numeric)
    say(f"{count(len(result), 'row')} at {result.position or 'no position'}")


def _number(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _json(result: Result) -> None:
    columns = result.columns
    for row in result.rows():
        fields = {name: plain(value) for name, value in zip(columns, row, strict=True)}
        emit(json.dumps(fields, ensure_ascii=False))


def _csv(result: Result) -> None:
    """Text is quoted and NULL is not, so that the two differ."""
    emit(",".join(map(_quoted, result.columns)))
    for row in result.rows():
        emit(",".join(_cell(plain(value)) for value in row))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _quoted(value)
    text = json.dumps(value, ensure_ascii=False)
    return _quoted(text) if isinstance(value, (dict, list)) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _arrow(result: Result) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(sys.stdout.buffer, result.arrow().schema) as stream:
        stream.write_table(result.arrow())


_WRITERS: dict[str, Callable[[Result], None]] = {"table": _table, "json": _json, "csv": _csv, "arrow": _arrow}
