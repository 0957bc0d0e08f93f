"""``merganser put`` and ``merganser delete``: rows into the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DEFAULT_TIMEOUT_S, AsJson, RegistryUrl, Servers, TableName, Timeout, open_log, option
from .output import count, emit, emit_json, say

if TYPE_CHECKING:
    from ...schemas.position import Position

File = Annotated[Path | None, typer.Argument(metavar="FILE", help="JSON lines. Without it, or with -: stdin.")]
Key = Annotated[list[str], typer.Argument(metavar="KEY...", help="order_id=7, or 7, or a JSON object.")]
Whole = Annotated[bool, option("--transaction", "All of it becomes visible together, or nothing does.")]
Op = Annotated[str | None, option("--op", "Operation id of the transaction: run twice, it is applied once.")]


def register(app: typer.Typer) -> None:
    app.command()(put)
    app.command()(delete)


def put(
    table: TableName,
    file: File = None,
    transaction: Whole = False,
    op: Op = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Write rows: JSON objects, one a line. Prints the token of the last one.

    With --transaction a reader sees all rows or none. They are kept in memory until all are read: at most
    100,000 rows or 32 MB.

    All lines are checked before the first row is written, so a bad line, which is named, means that
    nothing was. For that stdin is kept first, on disk (TMPDIR) beyond 32 MB.

    JSON lacks some types: give dates, times and timestamps as ISO 8601 text, bytes as base64, decimals
    as numbers or text (no digit is lost), uuids as text.
    """
    from ...schemas.encode import RowEncoder
    from ...schemas.jsonrows import JsonRows
    from .lines import Progress, check_rows, open_lines, write_rows

    _check_op(op, transaction)
    with open_log(bootstrap_servers, registry, timeout) as log:
        found = log.table(table)
        reader, encoder = JsonRows(found), RowEncoder(found)

        def check(row: dict[str, Any]) -> None:
            encoder.value(row)
            if found.key:
                encoder.key(row)

        with open_lines(file) as lines, Progress(lines.size) as progress, log.producer() as producer:
            tx = None
            if transaction:
                with producer.transaction(op) as tx:
                    whole = tx
                    check_rows(lines, reader, lambda row: whole.put(table, row), progress)  # which keeps them
            else:
                check_rows(lines, reader, check, progress)
                write_rows(lines, reader, lambda row: producer.put(table, row), progress)
            token = producer.flush()
    _written(table, lines.rows, "put", token, json, tx.id if tx else None)


def delete(
    table: TableName,
    key: Key,
    transaction: Whole = False,
    op: Op = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Delete rows of a keyed table by their key. Prints the token.

    COLUMN=VALUE for each key column is one key. A single key column needs no name: `delete orders 7 8`
    deletes two rows. A JSON object is one key too. Text needs no quotes, except inside JSON.
    """
    from ...schemas.encode import RowEncoder
    from ...schemas.errors import UsageError
    from ...schemas.jsonrows import JsonRows

    _check_op(op, transaction)
    with open_log(bootstrap_servers, registry, timeout) as log:
        found = log.table(table)
        if not found.key:
            raise UsageError(f"table {table!r} has no key, so its rows cannot be deleted")
        keys, encoder = JsonRows(found).key(key), RowEncoder(found)
        for each in keys:
            encoder.key(each, exact=True)  # all are good, or none is sent
        with log.producer() as producer:
            tx = None
            if transaction:
                with producer.transaction(op) as tx:
                    for each in keys:
                        tx.delete(table, each)
            else:
                for each in keys:
                    producer.delete(table, each)
            token = producer.flush()
    _written(table, len(keys), "delete", token, json, tx.id if tx else None)


def _check_op(op: str | None, transaction: bool) -> None:
    from ...schemas.errors import UsageError

    if op is not None and not transaction:
        raise UsageError("--op is the id of a transaction: give --transaction too")


def _written(table: str, rows: int, what: str, token: Position, json: bool, tx: str | None) -> None:
    if json:
        done = {"table": table, "rows": rows, "operation": what, "token": str(token)}
        emit_json(done if tx is None else {**done, "transaction": tx})
        return
    say(f"{count(rows, what)} written to {table}" + (f" in transaction {tx}" if tx else ""))
    if token:
        emit(str(token))
