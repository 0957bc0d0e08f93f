"""``merganser archive``: copy the log to an object store, and look the copy over."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import ArchiveDamaged, MerganserError, TableStopped, WrongArchive
from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    Every,
    KeyFile,
    RegistryUrl,
    Servers,
    ServersAtHand,
    TheArchive,
    Timeout,
    UntilEnd,
    comma_separated,
    open_log,
    option,
)
from .output import count, emit, emit_json, emit_table, number, say
from .watching import JsonLines, PlainLines, Screen, StatusLine, until_stopped, warnings, watch

if TYPE_CHECKING:
    from ..archive.archive import Archive
    from ..archive.check import Report
    from ..log import Log

app = typer.Typer(help="The archive: a lossless copy of the log in an object store.")

Tables = Annotated[str, option("--tables", "Tables to archive, comma-separated; `all` is what the log has, or gets.")]
Group = Annotated[str, option("--group", "Kafka group id under which lag tools see it.")]
AcceptGap = Annotated[
    bool, option("--accept-gap", "Where the log has lost records that were not archived: say so in the archive, go on.")
]
Roll = Annotated[float, option("--roll", "Seconds until a record is archived, at most.", min=0.1)]
Quick = Annotated[bool, option("--quick", "Without reading the data files: names and sizes of them only.")]
Sweep = Annotated[bool, option("--sweep", "Remove what runs have left behind that were killed, or overtaken.")]

#: What `check` counts; offsets are none.
_COUNTS = frozenset(["segments", "rows", "bytes", "erased"])


@app.callback()
def _group() -> None:
    """The archive: a lossless copy of the log in an object store."""


@app.command()
def run(
    archive: TheArchive,
    tables: Tables = "all",
    group: Group = "merganser-archive",
    until_end: UntilEnd = False,
    roll: Roll = 60.0,
    accept_gap: AcceptGap = False,
    every: Every = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Copy tables to the archive until Ctrl-C or SIGTERM.

    Each record is there once, however often it is started or killed. Several may run at a time. With --key-file new
    segments are encrypted. Ends with exit 1 if no table can go on.
    """
    from ..archive.archive import Archive
    from ..archive.archiver import Archiver
    from ..archive.segments import SegmentLimits

    names = None if tables.strip() == "all" else comma_separated(tables)
    place, limits = Archive(archive, key_file), SegmentLimits(age_s=roll)
    screen: Screen = JsonLines() if json else StatusLine() if sys.stdout.isatty() else PlainLines()
    with until_stopped(), open_log(bootstrap_servers, registry, timeout) as log:
        with screen, warnings(screen, "merganser.archive"):
            archiver = Archiver(log, place, names, group=group, limits=limits, accept_gap=accept_gap)
            end = log.ends(archiver.position) if until_end else None
            if end is not None:
                archiver.until(end)
            with archiver:
                watch(archiver, log, screen, every, end, "archived")
            _raise_stopped(archiver.stopped, archiver.error)


def _raise_stopped(stopped: dict[str, TableStopped], error: BaseException | None) -> None:
    """A table that stopped makes a run that came to its end a failed one."""
    if isinstance(error, MerganserError):
        raise error
    for why in stopped.values():
        raise why


@app.command()
def check(
    archive: TheArchive,
    quick: Quick = False,
    sweep: Sweep = False,
    key_file: KeyFile = None,
    bootstrap_servers: ServersAtHand = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Read the whole archive, and name what is wrong with it.

    What is missing, changed, renamed, doubled or unknown is a line; exit 1 if anything is. With a log at hand
    (--bootstrap-servers, or the local broker if it runs) also what its retention threatens.
    """
    from ..archive.archive import Archive
    from ..archive.check import check as look
    from ..archive.check import sweep as remove

    place = Archive(archive, key_file)
    with log_at_hand(place, bootstrap_servers, registry, timeout) as log, _bar() as tell:
        report = look(place, log, quick, tell)
        swept = remove(place, report) if sweep else []
    if json:
        emit_json({**report.fields(), "swept": swept})
    else:
        _show(report, swept, quick)
    if report.findings:
        raise typer.Exit(1)


@contextmanager
def log_at_hand(archive: Archive, servers: str | None, registry: str | None, timeout_s: float) -> Iterator[Log | None]:
    """The log, if it is named, or the local broker runs and has to do with *archive*; that can be checked where no
    Kafka is."""
    from ..broker import LocalBroker

    named = servers or os.environ.get("MERGANSER_BOOTSTRAP_SERVERS") or LocalBroker().status().running
    if not named:
        yield None
        return
    with open_log(servers, registry, timeout_s) as log:
        yield log if servers or _may_be_of(archive, log) else None


def _may_be_of(archive: Archive, log: Log) -> bool:
    try:
        return archive.cluster_id() in (None, log.cluster_id)
    except (ArchiveDamaged, WrongArchive):
        return True  # who looks the archive over tells of it


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """How much of the data is read, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda read, of: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from .output import console

    columns = ("checking", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), transient=True) as progress:
        task = progress.add_task("checking", total=None)
        yield lambda read, of: progress.update(task, completed=read, total=of)


def _coverage(facts: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    return [number(facts[name]) if name in _COUNTS else facts[name] for name in names]


def _show(report: Report, swept: list[str], quick: bool) -> None:
    names = ["table", "partition", "first", "next", "segments", "rows", "bytes"]
    if any(each.erased for each in report.coverage):
        names.append("erased")
    rows = [_coverage(each.fields(), names) for each in report.coverage]
    if rows:
        emit_table(names, rows, numeric=names[1:])
    for note in report.notes:
        say(f"note: {note}")
    for name in swept:
        say(f"removed: {name}")
    for finding in report.findings:
        say(f"error: {finding}")
    read = "names and sizes only" if quick else f"{report.read_bytes:,} bytes of data read"
    asked = "" if report.log_asked else "; no log at hand, its retention was not looked at"
    verdict = count(len(report.findings), "finding") if report.findings else "sound"
    emit(f"{verdict}: {count(report.files, 'file')}, {read}{asked}")
