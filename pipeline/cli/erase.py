"""``merganser archive erase``: all records of one key out of an archive and its backups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    Execute,
    KeyFile,
    RegistryUrl,
    ServersAtHand,
    TableName,
    TheArchive,
    Timeout,
    option,
)
from .output import count, emit, emit_json, emit_table, say
from .rows import Key

if TYPE_CHECKING:
    from ..erase.report import Done, ErasePlan

Scratch = Annotated[
    Path | None, option("--scratch", "Folder for the stores that restore points are proved in.", file_okay=False)
]


def register(app: typer.Typer) -> None:
    app.command()(erase)


def erase(
    table: TableName,
    key: Key,
    archive: TheArchive,
    execute: Execute = False,
    scratch: Scratch = None,
    key_file: KeyFile = None,
    bootstrap_servers: ServersAtHand = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Erase the history of one key from an archive and its backups.

    For those who must, of a keyed table. The row has to be deleted, and the archive has to have that delete. Says
    what it would do, unless --execute. Killed in the middle, run it again. What Kafka and replicas still have is
    not touched: docs/backup.md.
    """
    from ..archive.archive import open_archive
    from ..erase.erase import Eraser
    from .archive import log_at_hand
    from .bars import Bars

    place = open_archive(archive, key_file)
    with log_at_hand(place, bootstrap_servers, registry, timeout) as log, Bars() as bars:
        eraser = Eraser(place, table, key, log, scratch, watch=bars)
        plan = eraser.plan()
        done = eraser.run() if execute else None
    if json:
        emit_json({**plan.fields(), "executed": done is not None, "erased": None if done is None else done.fields()})
    else:
        _show(plan, done)
    if done is not None and done.unproved:
        raise typer.Exit(1)


def _show(plan: ErasePlan, done: Done | None) -> None:
    if plan.nothing:
        emit("nothing of this key is in the archive, nor in its backups; check how it is spelt")
        _show_swept(done)
        return
    names = ["table", "topic_id", "partition", "records", "stand_ins", "segments"]
    parts = [part.fields() for part in plan.parts if part.hits or part.unfinished]
    if parts:
        emit_table(names, ([each[name] for name in names] for each in parts), numeric=names[2:])
    for each in parts:
        if each["unfinished"]:
            say(f"note: partition {each['partition']}: an erasure was not finished, and will be")
    for holder in plan.backups:
        held = f"{count(holder.rows, 'row')}, {holder.quarantined:,} in quarantine, {holder.pending:,} held back"
        say(f"backup {holder.id}: {held}, {count(holder.files, 'file')} to make anew")
    if plan.points:
        say(f"{count(len(plan.points), 'incremental backup')} to restore to, for new digests")
    _tell_of_the_log(plan)
    if bad := sum(each["bad"] for each in parts):
        say(f"note: {count(bad, 'record')} of it may be in quarantine: live stores, and their next backups, keep that")
    if done is None:
        say("nothing was done: --execute does it")
        return
    _show_swept(done)
    for id_, why in done.unproved:
        say(f"error: backup {id_} keeps the digests that it had: {why}")
    made = f"{count(len(done.backups) + len(done.points), 'backup')} made anew"
    emit(f"erased {count(done.records, 'record')} ({done.stand_ins:,} stood in for), {made}: erasure {done.id}")


def _show_swept(done: Done | None) -> None:
    if done is not None and done.swept:
        say(f"{count(done.swept, 'file')} removed that no backup names")


def _tell_of_the_log(plan: ErasePlan) -> None:
    asked = [part.in_log for part in plan.parts if part.in_log is not None]
    if not asked:
        say("note: no log at hand: what it still has of the key was not looked at")
    elif sum(asked):
        still = f"the log's retention has not passed {count(sum(asked), 'record')} of the key yet"
        say(f"note: {still}: they go by compaction, by retention, or with the topic")
