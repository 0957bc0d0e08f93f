"""``merganser backup``: make backups of a store, list, prove and remove them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...schemas.errors import MerganserError, ServiceError, UsageError
from ..backup.report import facts
from .nodes import Authority, MaybeStore, Url, UserName, one_of, open_client
from .options import (
    DEFAULT_TIMEOUT_S,
    ArchiveUrl,
    AsJson,
    DryRun,
    KeyFile,
    RegistryUrl,
    Servers,
    TheArchive,
    Timeout,
    one_a_line,
    open_log,
    option,
)
from .output import count, emit, emit_json, emit_table, number, say

if TYPE_CHECKING:
    from ..archive.archive import Archive
    from ..backup.catalog import Found
    from ..backup.drill import Drilled
    from ..backup.manifest import Type
    from ..backup.verify import Report

app = typer.Typer(help="Backups: what a store holds, beside the archive of its log.")

BackupType = Annotated[
    Literal["full", "incr"], option("--type", "full: all that the store holds. incr: a restore point after the last.")
]
Annotations = Annotated[
    list[str] | None, option("--annotate", "A note to keep with it, NAME=VALUE; may be given several times.")
]
BackupId = Annotated[str | None, typer.Argument(metavar="[ID]", help="A backup, or how its id begins; else all.")]
Drill = Annotated[bool, option("--drill", "Also restore each into a scratch store, and compare digests.")]
Scratch = Annotated[Path | None, option("--scratch", "Folder for the drill's stores.", file_okay=False)]
KeepFull = Annotated[int | None, option("--keep-full", "Full backups to keep of each group, the newest.")]
KeepDays = Annotated[float | None, option("--keep-days", "Keep what was made in the last so many days.")]
Forget = Annotated[str | None, option("--forget", "Id of a damaged backup, to take away what is left of it.")]


@app.callback()
def _group() -> None:
    """Backups: what a store holds, beside the archive of its log."""


@app.command()
def create(
    store: MaybeStore = None,
    archive: ArchiveUrl = None,
    type_: BackupType = "full",
    annotate: Annotations = None,
    key_file: KeyFile = None,
    url: Url = None,
    user: UserName = None,
    ca: Authority = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Back up a store at rest, or have a node back up its own (--url).

    The log is archived up to the backup's position first. A node puts the backup into the archive of its
    merganser.toml. For operators.
    """
    one_of(store, url)
    notes = parse_notes(one_a_line("MERGANSER_ANNOTATE", annotate))
    if url:
        if archive is not None or key_file is not None:
            raise UsageError("with --url the node's own archive is used: leave --archive and --key-file out")
        made = _by_node(url, user, ca, type_, notes, timeout)
    else:
        if store is None or archive is None:
            raise UsageError("Missing option '--archive': where the backup goes")
        where = (bootstrap_servers, registry, timeout)
        made = _of_store(store, archive, type_, notes, key_file, *where)
    if json:
        emit_json(made)
        return
    if made["type"] != type_:
        say("no full backup leads to this store as it is: this one is full")
    emit(made["id"])
    say(f"{made['type']}, {count(made['rows'], 'row')}, {made['new_bytes']:,} new bytes, at {made['position']}")


def _of_store(
    store: Path,
    archive: str,
    type_: Type,
    notes: dict[str, str],
    key_file: Path | None,
    bootstrap_servers: str | None,
    registry: str | None,
    timeout: float,
) -> dict[str, Any]:
    from ...consumers.storefile import StoreFile
    from ..archive.archive import Archive
    from ..backup.api import backup
    from .bars import Bars

    with StoreFile(store) as source, open_log(bootstrap_servers, registry, timeout) as log, Bars() as bars:
        return facts(backup(Archive(archive, key_file), source, log, type=type_, annotations=notes, watch=bars))


def _by_node(
    url: str, user: str | None, ca: Path | None, type_: Type, notes: dict[str, str], timeout: float
) -> dict[str, Any]:
    """Ask the node at *url* for a backup, and wait for it. The node goes on if this is interrupted."""
    with open_client(url, user, ca) as client:
        job = client.ask("POST", "/backups", {"type": type_, "annotations": notes}, timeout=timeout)
        pause_s = 0.05
        while job["state"] == "running":
            time.sleep(pause_s)
            pause_s = min(2.0, pause_s * 1.5)
            job = client.ask("GET", f"/backups/{job['job']}", timeout=timeout)
    if job["failed"] is not None:
        failed = ServiceError(job["failed"]["error"])
        failed.hint = job["failed"]["hint"]
        raise failed
    made: dict[str, Any] = job["result"]
    return made


@app.command(name="list")
def list_(archive: TheArchive, key_file: KeyFile = None, json: AsJson = False) -> None:
    """Every backup of an archive, oldest first. Also what is wrong with it at first sight."""
    from ..archive.archive import open_archive
    from ..backup.catalog import catalog

    found = catalog(open_archive(archive, key_file).objects)
    if json:
        for each in found:
            emit_json(facts(each.backup, each) if each.backup else {"id": each.id, "wrong": each.wrong})
        return
    names = ["backup", "type", "group", "rows", "bytes", "new", "state", "notes"]
    emit_table(names, (_row(each) for each in found), numeric=("rows", "bytes", "new"))


@app.command()
def verify(
    archive: TheArchive,
    backup: BackupId = None,
    drill: Drill = False,
    scratch: Scratch = None,
    key_file: KeyFile = None,
    json: AsJson = False,
) -> None:
    """Read every byte of the backups again, and of the archive under them. Exit 1 if anything is wrong."""
    from ..archive.archive import open_archive
    from ..backup.catalog import catalog, find
    from ..backup.verify import verify as read_again
    from .bars import Bars

    place = open_archive(archive, key_file)
    with Bars() as bars:
        found = catalog(place.objects)
        if backup is not None:
            id_ = find(place.objects, backup).id
            found = [each for each in found if each.id == id_]
        report = read_again(place, found, bars, everything=backup is None)
        drills = _drills(place, found, scratch, bars) if drill else []
    _tell(report, drills, json)
    if report.findings or any(each.wrong for each in drills):
        raise BackupsDamaged(place.url, len(report.findings) + sum(bool(each.wrong) for each in drills))


@app.command()
def expire(
    archive: TheArchive,
    keep_full: KeepFull = None,
    keep_days: KeepDays = None,
    dry_run: DryRun = False,
    forget: Forget = None,
    key_file: KeyFile = None,
    json: AsJson = False,
) -> None:
    """Remove backups that neither option keeps.

    Never what a kept one needs, nor the newest full one of a group. Files that no backup names any more go too. The
    archive of the log stays.
    """
    from ..archive.archive import open_archive
    from ..backup import expire as expiry
    from ..backup.policy import Policy
    from ..backup.verify import verify as read_again

    place, now = open_archive(archive, key_file), datetime.now(UTC)
    if forget is not None:
        if keep_full is not None or keep_days is not None or dry_run:
            raise UsageError("--forget stands alone")
        expiry.forget(place.objects, forget, lambda each: bool(read_again(place, [each], everything=False).findings))
        emit_json({"forgotten": forget}) if json else emit(f"forgotten {forget}")
        return
    policy = Policy(keep_full, keep_days)
    done = expiry.preview(place.objects, policy, now) if dry_run else expiry.expire(place.objects, policy, now)
    if json:
        for verdict in done.verdicts:
            emit_json({"id": verdict.backup.id, "kept": verdict.kept, "why": verdict.why})
        emit_json({"files": len(done.files), "bytes": done.bytes, "waiting": done.waiting, "dry_run": dry_run})
        return
    rows = ((v.backup.id, v.backup.type, "keep" if v.kept else "remove", v.why) for v in done.verdicts)
    emit_table(["backup", "type", "", "why"], rows)
    gone, files = sum(not v.kept for v in done.verdicts), count(len(done.files), "file")
    say(f"{count(gone, 'backup')}, {files}, {done.bytes:,} bytes {'would be ' if dry_run else ''}removed")
    if done.waiting:
        say("files stay until the next time: a backup is being made")


class BackupsDamaged(MerganserError):
    """What `backup verify` found."""

    def __init__(self, url: str, findings: int) -> None:
        super().__init__(f"archive {url}: {count(findings, 'thing')} wrong with its backups")
        mend = "put files back from a copy, or remove those of backups: the next full one writes what it needs anew"
        self.hint = f"{mend}; `backup expire --forget ID` gives a damaged backup up"


def parse_notes(texts: list[str] | None) -> dict[str, str]:
    """NAME=VALUE each. UsageError."""
    notes: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name.strip()):
            raise UsageError(f"--annotate {text!r} is not NAME=VALUE")
        notes[name.strip()] = value
    return notes


def _row(found: Found) -> tuple[Any, ...]:
    backup = found.backup
    if backup is None:
        return (found.id, "", "", "", "", "", found.wrong, "")
    notes = [f"{name}={value}" for name, value in backup.annotations.items()]
    notes += [f"made up for {backup.due}"] if backup.late else []
    facts = (backup.type, backup.group, *map(number, (backup.rows, backup.size, backup.new_bytes)))
    return (found.id, *facts, found.wrong or "whole", ", ".join(notes))


def _drills(archive: Archive, found: list[Found], scratch: Path | None, bars: Any) -> list[Drilled]:
    from ..backup.drill import drill

    return [drill(archive, each.backup, scratch, bars) for each in found if each.backup and not each.wrong]


def _tell(report: Report, drills: list[Drilled], json: bool) -> None:
    if json:
        emit_json(
            {
                "backups": report.backups,
                "files": report.files,
                "bytes": report.bytes,
                "findings": [finding._asdict() for finding in report.findings],
                "loose_files": list(report.loose),
                "drills": [each._asdict() for each in drills],
            }
        )
        return
    for finding in report.findings:
        emit(
            f"{finding.file}: {finding.why}" + (f" (needed by {', '.join(finding.backups)})" if finding.backups else "")
        )
    for each in drills:
        emit(f"drill of {each.backup}: {each.wrong or f'{each.rows:,} rows, every digest as it was backed up'}")
    bad = len(report.findings) + sum(bool(each.wrong) for each in drills)
    verdict = count(bad, "finding") if bad else "sound"
    say(f"{verdict}: {count(report.backups, 'backup')}, {count(report.files, 'file')}, {report.bytes:,} bytes read")
    if report.loose:
        say(f"{count(len(report.loose), 'file')} named by no backup; `backup expire` removes them")
