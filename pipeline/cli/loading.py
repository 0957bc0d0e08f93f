"""``merganser import`` and ``merganser export``: files into tables, and tables into files."""

from __future__ import annotations

import datetime as dt
import json as jsonlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    RegistryUrl,
    Servers,
    Store,
    TableName,
    Timeout,
    comma_separated,
    complete_tables,
    one_a_line,
    open_log,
    option,
)
from .output import count, emit, emit_json, emit_table, say

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ...schemas.table import Table
    from ..loading.inputs import Input
    from ..loading.ledger import Entry
    from ..loading.load import Imported, ImportOptions
    from ..log import Log

ImportFormat = Literal["csv", "tsv", "parquet", "json"]
ExportFormat = Literal["csv", "parquet", "json"]

OptionalTable = Annotated[str | None, typer.Argument(metavar="TABLE", help="A table.", autocompletion=complete_tables)]
Files = Annotated[
    list[str] | None, typer.Argument(metavar="FILE...", help="Paths, globs, or URLs (s3://, gs://, az://); - is stdin.")
]
FormatIn = Annotated[
    ImportFormat | None, option("--format", "What the files are, where their names do not tell. json is JSON lines.")
]
Delimiter = Annotated[str | None, option("--delimiter", "Between the fields of a CSV file; else read off its header.")]
Null = Annotated[str, option("--null", "The text that stands for no value in a CSV file, where it has no quotes.")]
Columns = Annotated[
    list[str] | None,
    option("--columns", "OLD=NEW renames a column of the file, OLD= leaves it out. May be given several times."),
]
Dedupe = Annotated[bool, option("--dedupe", "Write only the last row of each key in a file.")]
Sort = Annotated[str | None, option("--sort", "Write the rows of a file in the order of this column.")]
MaxBad = Annotated[int, option("--max-bad", "Go on without up to so many bad lines of a file (default 0).", min=0)]
RejectsFile = Annotated[
    Path | None, option("--rejects", "Where bad lines are kept, with their reasons (default: beside the file).")
]
Again = Annotated[bool, option("--again", "Load a file once more that was imported before.")]
Propose = Annotated[bool, option("--propose", "Print an Avro schema that the file fits, and do no more.")]
Create = Annotated[bool, option("--create", "Make the table, by the proposed schema, if it is not there.")]
Key = Annotated[str | None, option("--key", "Key columns of a table that --create makes, comma-separated.")]
List = Annotated[bool, option("--list", "Show what was imported, of all tables or of TABLE.")]

To = Annotated[str | None, option("--to", "Path or object store URL of the file (default: TABLE.FORMAT here).")]
FormatOut = Annotated[ExportFormat | None, option("--format", "Default: by the name in --to; csv without one.")]
AtLeast = Annotated[str | None, option("--at-least", "A token: fail unless the store has applied it.")]
Force = Annotated[bool, option("--force", "Replace the file if it is there.")]


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command()(export)


def import_(
    table: OptionalTable = None,
    files: Files = None,
    format: FormatIn = None,
    delimiter: Delimiter = None,
    null: Null = "",
    columns: Columns = None,
    dedupe: Dedupe = False,
    sort: Sort = None,
    max_bad: MaxBad = 0,
    rejects: RejectsFile = None,
    again: Again = False,
    propose: Propose = False,
    create: Create = False,
    key: Key = None,
    list_: List = False,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Load files into a table: CSV, TSV, Parquet, JSON lines. Each may be packed by gzip or zstd. Prints a token.

    A file is loaded once, by what is in it and not by its name: the same command again adds nothing, and after a
    kill it goes on where it was. Rows become visible chunk by chunk.

    A bad line ends the import before anything of its chunk is written, unless --max-bad allows for some.
    """
    from ...schemas.errors import UsageError
    from ..loading.load import ImportOptions

    if list_:
        with open_log(bootstrap_servers, registry, timeout) as log:
            _list(log, table, timeout, json)
        return
    if table is None or not files:
        raise UsageError("say which TABLE, and which FILE to import into it")
    if rejects is not None and len(files) > 1:
        raise UsageError("--rejects names one file, and there are several to import: leave it out, or take one by one")
    renames = _renames(one_a_line("MERGANSER_COLUMNS", columns))
    options = ImportOptions(_character(delimiter), null, renames, dedupe, sort, max_bad, rejects, again)
    keys = comma_separated(key)
    if propose:
        _propose(table, files[0], format, options, keys)
        return
    with open_log(bootstrap_servers, registry, timeout) as log:
        _import(log, table, files, format, options, keys if create else None, timeout, json)


def export(
    table: TableName,
    store: Store,
    to: To = None,
    format: FormatOut = None,
    at_least: AtLeast = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write a table of a store at rest into a file. The rows are those at the store's position.

    Beside the file comes FILE.manifest.json, with position, rows, digests and SHA-256. What is exported can be
    imported again, and is the same then.
    """
    from ...consumers.storefile import StoreFile
    from ...schemas.position import Position
    from ..loading.export import export_table

    token = Position.parse(at_least) if at_least else None
    file_format = format or _format_of(to)
    place = to or f"{table}.{file_format}"
    with StoreFile(store) as at_rest, _bar("rows") as bar:
        task = bar.task("writing", None)
        done = export_table(
            at_rest, table, place, file_format, at_least=token, force=force, progress=partial(bar.past, task)
        )
    if json:
        emit_json({**jsonlib.loads(done.manifest()), "to": place})
        return
    say(f"{count(done.rows, 'row')} of {table} written to {place}, sha256 {done.sha256}")
    say(f"digest {done.digest}, of the columns alone {done.columns_digest}")
    emit(done.position)


# -- import ------------------------------------------------------------------------------------


def _import(
    log: Log,
    table: str,
    files: list[str],
    format: str | None,
    options: ImportOptions,
    create: list[str] | None,
    timeout: float,
    json: bool,
) -> None:
    from ..loading.inputs import names, open_input
    from ..loading.load import import_file

    found = None if create is not None else _declared(log, table)
    token = None
    for name in names(files):
        with _bar("bytes") as bar:
            look = bar.task("reading", None)
            with open_input(name, format, partial(bar.past, look)) as file:
                bar.end(look)
                if found is None:
                    found = _made(log, table, file, options, create or [])
                task = bar.task("writing", file.size)
                done = import_file(log, found, file, options, progress=partial(bar.past, task), timeout_s=timeout)
        _told(log, found, done, json)
        token = done.token
    if token is not None and not json:
        emit(str(token))


def _declared(log: Log, table: str) -> Table:
    from ...schemas.errors import UnknownTable

    try:
        return log.table(table)
    except UnknownTable as error:
        error.hint = "`merganser table list` shows the tables; --create makes one, by a schema that the file fits"
        raise


def _made(log: Log, table: str, file: Input, options: ImportOptions, key: list[str]) -> Table:
    """The table; made for *file*, unless it is there."""
    from ...schemas.errors import TableExists, UnknownTable
    from ..loading.propose import propose

    try:
        found = log.table(table)
    except UnknownTable:
        schema = propose(file, options, table, key)
        say(f"table {table}: made with {', '.join(f['name'] for f in schema['fields'])}")
        return log.create_table(table, schema, key)
    if key and tuple(key) != found.key:
        raise TableExists(table, f"its key is {', '.join(found.key) or 'none'}, not {', '.join(key)}")
    return found


def _propose(table: str, pattern: str, format: str | None, options: ImportOptions, key: list[str]) -> None:
    from ..loading.inputs import names, open_input
    from ..loading.propose import propose

    with open_input(names([pattern])[0], format) as file:
        emit(jsonlib.dumps(propose(file, options, table, key), indent=2, ensure_ascii=False))


def _told(log: Log, table: Table, done: Imported, json: bool) -> None:
    entry = done.entry
    if json:
        rejects = str(done.rejects) if done.rejects else None
        facts = {**_fields(entry), "state": done.state, "written": done.written}
        emit_json({**facts, "rejects": rejects, "token": str(done.token)})
        return
    if done.state == "already":
        say(f"{entry.file}: imported before, {count(entry.rows, 'row')}; nothing to do")
        return
    all_of = f" (it has {count(entry.rows, 'row')} of it now)" if done.state == "continued" else ""
    bad = f"; {count(entry.bad, 'bad line')} in {done.rejects}" if done.rejects else ""
    say(f"{entry.file}: {count(done.written, 'row')} written to {table.name}{all_of}{bad}")


def _list(log: Log, table: str | None, timeout: float, json: bool) -> None:
    from ..loading.ledger import read_ledger

    found = [e for e in read_ledger(log, timeout) if table is None or e.table == table]
    ids = log.identify({e.table for e in found})
    found.sort(key=lambda e: (e.table, e.when_ms))
    if json:
        for entry in found:
            emit_json({**_fields(entry), "when": _moment(entry.when_ms), "state": _state(entry, ids)})
    elif not found:
        say("nothing was imported yet")
    else:
        rows = [(e.table, e.file, f"{e.rows:,}", _state(e, ids), _moment(e.when_ms), e.sha256[:12]) for e in found]
        emit_table(["table", "file", "rows", "state", "last chunk", "sha256"], rows, numeric=["rows"])


def _there(entry: Entry, ids: Mapping[str, Any]) -> bool:
    return entry.table in ids and bool(ids[entry.table].topic_id == entry.topic_id)


def _state(entry: Entry, ids: Mapping[str, Any]) -> str:
    """A table that is gone, or was made anew, has nothing of the file."""
    if not _there(entry, ids):
        return "table gone"
    if entry.doubt:
        return f"in doubt, {entry.chunks} chunks"
    return "whole" if entry.done else f"begun, {entry.chunks} chunks"


def _moment(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(entry: Entry) -> dict[str, Any]:
    from ...schemas.headers import kafkas_spelling

    return {
        "table": entry.table,
        "file": entry.file,
        "sha256": entry.sha256,
        "generation": entry.generation,
        "rows": entry.rows,
        "bad": entry.bad,
        "chunks": entry.chunks,
        "done": entry.done,
        "options": dict(entry.options),
        "topic_id": kafkas_spelling(entry.topic_id),
    }


def _renames(given: list[str] | None) -> dict[str, str]:
    from ...schemas.errors import UsageError

    renames: dict[str, str] = {}
    for text in given or []:
        parts = text.split(",")
        for part in parts if all("=" in p for p in parts) else [text]:
            old, equals, new = part.rpartition("=")
            if not equals or not old:
                raise UsageError(f"--columns {part!r}: OLD=NEW renames a column, OLD= leaves it out")
            renames[old] = new
    return renames


def _character(text: str | None) -> str | None:
    return {"\\t": "\t", "tab": "\t"}.get(text, text) if text is not None else None


def _format_of(to: str | None) -> ExportFormat:
    from ...schemas.errors import BadInput, UsageError
    from ..loading.inputs import format_of

    if to is None:
        return "csv"
    try:
        found = format_of(to)
    except BadInput as error:
        error.hint = "--format csv, parquet or json says so"
        raise
    if found == "tsv":
        raise UsageError("no export has tabs: --format csv, parquet or json")
    return found


# -- progress ----------------------------------------------------------------------------------


class _Bar:
    """Nothing to see: stderr is no terminal."""

    def task(self, what: str, total: int | None) -> Any:
        return None

    def past(self, task: Any, amount: int) -> None:
        pass

    def end(self, task: Any) -> None:
        pass


class _RichBar(_Bar):
    def __init__(self, unit: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from .output import console

        amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        columns = (TextColumn("{task.description:>8}"), BarColumn(), amount, TimeElapsedColumn())
        self.progress = Progress(*columns, console=console(err=True))

    def task(self, what: str, total: int | None) -> TaskID:
        return self.progress.add_task(what, total=total)

    def past(self, task: TaskID, amount: int) -> None:
        self.progress.advance(task, amount)

    def end(self, task: TaskID) -> None:
        """What it came to is all there was."""
        self.progress.update(task, total=self.progress.tasks[task].completed)


@contextmanager
def _bar(unit: str) -> Iterator[_Bar]:
    if not sys.stderr.isatty():
        yield _Bar()
        return
    bar = _RichBar(unit)
    with bar.progress:
        yield bar
