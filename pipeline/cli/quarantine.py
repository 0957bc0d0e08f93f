"""``merganser quarantine``: records that no row could be made of, listed and written again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import BadLine, UsageError, WrongCluster
from .options import (
    DEFAULT_TIMEOUT_S,
    ArchiveUrl,
    AsJson,
    Execute,
    KeyFile,
    RegistryUrl,
    Servers,
    Store,
    Timeout,
    complete_tables,
    open_log,
    option,
)
from .output import count, emit, emit_json, emit_table, number, say

if TYPE_CHECKING:
    from ...consumers.atomic import Place
    from ...consumers.batch import Poison
    from ...schemas.table import Table
    from ...schemas.types import Field
    from ..quarantine.plan import Verdict
    from ..quarantine.retry import Tried

app = typer.Typer(help="Records that no row could be made of.")

AnyTable = Annotated[str | None, option("--table", "Of this table only.", autocompletion=complete_tables)]
OneTable = Annotated[str, option("--table", "The table.", autocompletion=complete_tables)]
Reason = Annotated[str, option("--reason", "Only those whose reason has this text in it.")]
Limit = Annotated[int, option("--limit", "At most so many.", min=1)]
Transform = Annotated[str, option("--transform", "module:function that repairs each record: dict in, row or None out.")]
Repaired = Annotated[
    Path | None,
    option("--repaired", "JSON lines with partition, offset and row: these records only, as rows.", dir_okay=False),
]

#: Decided on together, and in memory: a record is at most a megabyte, mostly far less.
_RETRY_LIMIT = 10_000


Since = Annotated[
    str | None, option("--from", "Only from this place on, as TABLE/PARTITION:OFFSET: where an earlier run ended.")
]


@app.callback()
def _group() -> None:
    """Records that no row could be made of."""


@app.command("list")
def list_(
    store: Store,
    table: AnyTable = None,
    reason: Reason = "",
    limit: Limit = 100,
    json: AsJson = False,
) -> None:
    """The records in quarantine of a store at rest. Where, when, how large, and why; with --json their bytes too."""
    from ...consumers.quarantined import how_many, quarantined
    from ...consumers.storefile import StoreFile

    with StoreFile(store) as found, found.reading() as cursor:
        total = how_many(cursor, table, reason)
        listed = quarantined(cursor, table, reason, limit)
        if json:
            for each in listed:
                emit_json(_fields(each))
        else:
            columns = ["table", "partition", "offset", "timestamp", "bytes", "reason"]
            rows = [
                (e.partition.topic, e.partition.partition, e.offset, _time(e) or "", f"{_size(e):,}", e.reason)
                for e in listed
            ]
            emit_table(columns, rows, numeric=["partition", "offset", "bytes"])
        if not total:
            say("no record in quarantine" if not (table or reason) else "no such record in quarantine")
        if total > limit:
            say(f"{limit:,} of {total:,} records: --limit shows more, --table and --reason choose")


@app.command()
def retry(
    store: Store,
    table: OneTable,
    reason: Reason = "",
    limit: Limit = _RETRY_LIMIT,
    from_: Since = None,
    transform: Transform = "",
    repaired: Repaired = None,
    execute: Execute = False,
    archive: ArchiveUrl = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Write records that are in quarantine into the log again. Says what it would do; --execute does it.

    Only what would be a row by now, or is repaired to be one, is written; once, with its origin in a header; and not
    if the log has a later record of its key. What is in quarantine stays there. With --json each record is a line that,
    its row mended, --repaired takes.
    """
    from ...consumers.storefile import StoreFile
    from ..archive.archive import open_archive
    from ..quarantine.candidates import Candidates
    from ..quarantine.retry import Choice, Retry
    from ..replay.transform import load
    from .bars import Bars

    if transform and repaired is not None:
        raise UsageError("give either --transform or --repaired")
    repair: Any = load(transform) if transform else None
    below = None if archive is None else open_archive(archive, key_file)
    with open_log(bootstrap_servers, registry, timeout) as log, StoreFile(store) as found, found.reading() as cursor:
        if log.cluster_id != found.cluster_id:
            raise WrongCluster(str(found.path), found.cluster_id, log.cluster_id)
        declared = log.table(table)
        rows = None if repaired is None else _rows(repaired, declared)
        candidates = Candidates(declared, log.versions, repair, transform, rows)
        with Bars() as bars:
            mine = Retry(cursor, declared, log, below.under(log) if below else log, candidates, timeout, bars)
            choice = Choice(reason, limit, _place(from_, table), rows)
            tried = mine.execute(choice) if execute else mine.preview(choice)
    _show(declared, tried, execute, json)
    if rows is not None and (unmet := sorted(rows.keys() - {each.candidate.place for each in tried.verdicts})):
        first = f"{unmet[0].partition} at offset {unmet[0].offset}"
        say(f"{count(len(unmet), 'line')} of {repaired} of no record that was looked at, like {first}: left alone")


def _show(declared: Table, tried: Tried, execute: bool, json: bool) -> None:
    from ...schemas.avro import row_type
    from ..quarantine.plan import WORDS

    table = declared.name
    if json:
        fields = row_type(table, declared.latest.schema).fields
        for verdict in tried.verdicts:
            emit_json(_verdict(verdict, fields, execute))
    else:
        lines = [(number(many), WORDS[state]) for state, many in tried.sums.items()]
        if lines:
            emit_table([f"records of {table}", "each of them"], lines, numeric=[f"records of {table}"])
        else:
            say(f"nothing to look at: {table} has no such record in quarantine")
        for verdict in [v for v in tried.verdicts if v.why and v.state != "retried"][:10]:
            place = verdict.candidate.poison
            say(f"{place.partition} at offset {place.offset} {WORDS[verdict.state]}: {verdict.why}")
    if tried.more:
        on = f": --from {tried.rest.partition}:{tried.rest.offset} goes on there" if tried.rest else ""
        say(f"{tried.more:,} more are in quarantine{on}")
    if execute:
        say(f"{count(tried.written, 'record')} written to {table}")
        if tried.token and not json:
            emit(str(tried.token))
    else:
        say("nothing was written: --execute does it")


def _verdict(verdict: Verdict, fields: Sequence[Field], execute: bool) -> dict[str, Any]:
    from ...schemas.jsonrows import row_to_json

    mine = verdict.candidate
    written = execute and verdict.state == "ready"
    return {
        "table": mine.poison.partition.topic,
        "partition": mine.poison.partition.partition,
        "offset": mine.poison.offset,
        "reason": mine.poison.reason,
        "state": "written" if written else verdict.state,
        "why": verdict.why or None,
        "row": None if mine.row is None else row_to_json(mine.row, fields),
    }


def _rows(path: Path, table: Table) -> dict[Place, dict[str, Any]]:
    """The rows of the file, by the places that they are to replace. BadLine."""
    from ...consumers.atomic import Place
    from ...schemas.jsonrows import JsonRows, loads
    from ...schemas.position import TopicPartition
    from .lines import open_lines

    reader, found = JsonRows(table), dict[Place, dict[str, Any]]()
    with open_lines(path) as lines:
        for number, text in lines:
            try:
                given = loads(text)
                row, partition, offset = given["row"], given["partition"], given["offset"]
                place = Place(TopicPartition(table.name, int(partition)), int(offset))
                if row is not None:
                    found[place] = reader.converted(row)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                why = f"no record with partition, offset and row: {error!r}"
                raise BadLine(lines.name, number, why) from error
    return found


def _place(text: str | None, table: str) -> Place | None:
    """The one place that *text* names. UsageError."""
    from ...consumers.atomic import Place
    from ...schemas.position import Position

    if text is None:
        return None
    named = list(Position.parse(text).items())
    if len(named) != 1 or named[0][0].topic != table:
        raise UsageError(f"--from names one place in {table} ({table}/0:17), not {text!r}")
    return Place(*named[0])


def _fields(poison: Poison) -> dict[str, Any]:
    return {
        "table": poison.partition.topic,
        "partition": poison.partition.partition,
        "offset": poison.offset,
        "timestamp": _time(poison),
        "bytes": _size(poison),
        "reason": poison.reason,
        "key": None if poison.key is None else b64encode(poison.key).decode(),
        "value": None if poison.value is None else b64encode(poison.value).decode(),
    }


def _time(poison: Poison) -> str | None:
    time_ms = poison.timestamp_ms
    if time_ms is None:
        return None
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _size(poison: Poison) -> int:
    return len(poison.key or b"") + len(poison.value or b"")
