"""``merganser query``: SQL on a store at rest, or on a node that runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import UsageError
from .nodes import Authority, MaybeStore, Url, UserName, one_of, open_client
from .options import DEFAULT_TIMEOUT_S, Format, Level, RegistryUrl, Servers, Timeout, open_log, option
from .output import count, emit, emit_table, plain, say

if TYPE_CHECKING:
    from ...consumers.result import Result
    from ...consumers.storefile import StoreFile

_LONGEST_SQL = 1_000_000

Sql = Annotated[
    str | None, typer.Argument(metavar="[SQL]", help="One SELECT, in DuckDB's dialect. Without it: a prompt, or stdin.")
]
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


@dataclass(frozen=True)
class Fresh:
    """How fresh answers have to be."""

    level: Level = "eventual"
    after: str | None = None
    max_staleness: float | None = None


def register(app: typer.Typer) -> None:
    app.command()(query)


def query(
    sql: Sql = None,
    store: MaybeStore = None,
    url: Url = None,
    user: UserName = None,
    ca: Authority = None,
    level: LevelOption = "eventual",
    after: After = None,
    max_staleness: MaxStaleness = None,
    format: FormatOption = "table",
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Run one SELECT on a node (--url) or a store at rest.

    A store answers as it is, unless --level strong or bounded, or --after, ask for more: then it follows the log until
    it is fresh enough. A running replica's file cannot be read by another process. Without SQL a prompt is opened.
    """
    one_of(store, url)
    if sql is None:
        sql = _from_stdin()
    fresh, show = Fresh(level, after, max_staleness), _WRITERS[format]
    if sql is None:
        if format == "arrow":
            raise UsageError("a prompt shows answers as text: --format arrow goes with SQL")
        _prompt(store, url, user, ca, fresh, timeout, show)
    elif store is not None:
        show(_of_store(sql, store, fresh, bootstrap_servers, registry, timeout))
    else:
        with open_client(str(url), user, ca) as client:
            result = client.query(sql, **asdict(fresh), timeout=timeout)
        show(result)


def _from_stdin() -> str | None:
    """What was piped in; None if a person sits there."""
    if sys.stdin.isatty():
        return None
    text = sys.stdin.read(_LONGEST_SQL + 1)
    if not text.strip() or len(text) > _LONGEST_SQL:
        raise UsageError(
            "there is no SQL: neither an argument, nor on stdin" if not text.strip() else "stdin is too long"
        )
    return text


def _prompt(
    store: Path | None,
    url: str | None,
    user: str | None,
    ca: Path | None,
    fresh: Fresh,
    timeout: float,
    show: Callable[[Result], None],
) -> None:
    from .shell import Shell, of_client, of_store

    if store is not None:
        from ...consumers.storefile import StoreFile

        if fresh != Fresh():
            raise UsageError(
                "a prompt shows a store as it is: --level, --after and --max-staleness go with SQL, or --url"
            )
        with StoreFile(store) as at_rest:
            Shell(of_store(at_rest), show).run()
    else:
        with open_client(str(url), user, ca) as client:
            Shell(of_client(client, fresh, timeout), show).run()


def _of_store(
    sql: str, store: Path, fresh: Fresh, bootstrap_servers: str | None, registry: str | None, timeout: float
) -> Result:
    """From the store as it is, or once it has followed the log for as long as *fresh* asks."""
    from ...consumers.asked import check_level
    from ...consumers.reads import parse
    from ...consumers.storefile import StoreFile
    from ...schemas.position import Position

    level = check_level(fresh.level, fresh.max_staleness)
    parse(sql)
    token = Position.parse(fresh.after) if fresh.after else None
    with StoreFile(store) as at_rest:
        if level not in ("strong", "bounded") and not token:
            return at_rest.query(sql)
        group, tables = at_rest.group, _whole_tables(at_rest)
    from ...consumers.replica import Replica

    with open_log(bootstrap_servers, registry, timeout) as log, Replica(store, log, group, tables) as replica:
        return replica.query(sql, level=level, after=token, max_staleness=fresh.max_staleness, timeout=timeout)


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
    emit_table(result.columns, _rows(result), numeric)
    say(f"{count(len(result), 'row')} at {result.position or 'no position'}")


def _rows(result: Result) -> list[tuple[Any, ...]]:
    """The rows; as over HTTP: times in nanoseconds, which Python's own would cut, dates that it has not, intervals."""
    return list(zip(*(_column(result, at) for at in range(len(result.columns))), strict=True))


def _column(result: Result, at: int) -> list[Any]:
    import pyarrow.types as types

    from ..serving.http.forms import plain as as_json

    column = result.arrow().column(at)
    if not types.is_interval(column.type) and not (types.is_timestamp(column.type) and column.type.unit == "ns"):
        with suppress(OverflowError):
            return result.column(at)
    return [value for chunk in column.chunks for value in as_json(chunk)]


def _number(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _json(result: Result) -> None:
    from ...consumers.result import apart

    columns = apart(result.columns)
    for row in _rows(result):
        fields = {name: plain(value) for name, value in zip(columns, row, strict=True)}
        emit(json.dumps(fields, ensure_ascii=False))


def _csv(result: Result) -> None:
    """Text is quoted and NULL is not, so that the two differ."""
    emit(",".join(map(_quoted, result.columns)))
    for row in _rows(result):
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
