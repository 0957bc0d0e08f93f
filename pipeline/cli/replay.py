"""``merganser replay``: a table made anew out of the log, beside the old one or in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...schemas.errors import UnknownTable, UsageError
from .options import (
    DEFAULT_TIMEOUT_S,
    ArchiveUrl,
    AsJson,
    Execute,
    KeyFile,
    RegistryUrl,
    Servers,
    Store,
    TableName,
    Timeout,
    open_log,
    open_log_above,
    option,
)
from .output import count, emit, emit_json, say

if TYPE_CHECKING:
    from ..archive.archive import Archive
    from ..log import Log
    from ..replay.plan import Wish
    from ..replay.sources import Source

Into = Annotated[str, option("--into", "Name of the shadow: a new table in the store.")]
Since = Annotated[str, option("--from", "Only rows whose records lie here or beyond: an offset, a position or a time.")]
To = Annotated[
    str,
    option("--to", "store (where the store is), latest, an offset, a position (orders/0:120,orders/1:98) or a time."),
]
Transform = Annotated[
    str, option("--transform", "module:function that each row goes through: dict in; dict, list of dicts or None out.")
]
Swap = Annotated[bool, option("--swap", "Put the shadow in the place of the table.")]
Drop = Annotated[bool, option("--drop", "Remove TABLE, a shadow or a derived table, from the store.")]


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    table: TableName,
    store: Store,
    into: Into = "",
    from_: Since = "beginning",
    to: To = "store",
    transform: Transform = "",
    swap: Swap = False,
    drop: Drop = False,
    execute: Execute = False,
    archive: ArchiveUrl = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Make a table of a store at rest anew out of the log. Says what it would do; --execute does it.

    Without --from, --to and --transform, a table that was swapped is what the log says, and a replica as before: the
    way back from a damaged one. Any other is derived: frozen, and left out of audit, digests and backups.
    """
    if drop:
        if into or swap or transform:
            raise UsageError("--drop removes TABLE, and nothing else: leave --into, --swap and --transform out")
        _drop(table, store, execute, json)
        return
    if not into:
        raise UsageError("Missing option '--into': the shadow needs a name")
    from ..archive.archive import open_archive
    from ..replay.plan import Wish

    wish = Wish(table, into, from_, to, transform, swap)
    below = None if archive is None else open_archive(archive, key_file)
    log = (
        open_log(bootstrap_servers, registry, timeout)
        if below is None
        else open_log_above(below, bootstrap_servers, registry, timeout)
    )
    try:
        if execute:
            _execute(wish, store, below, log, json)
        else:
            _preview(wish, store, below, log, json)
    finally:
        if log is not None:
            log.close()


def _preview(wish: Wish, store: Path, below: Archive | None, log: Log | None, json: bool) -> None:
    from ...consumers.storefile import StoreFile
    from ..replay import sources
    from ..replay.replay import facts_of
    from ..replay.transform import load

    if wish.transform:
        load(wish.transform)
    with StoreFile(store) as found, found.reading() as cursor:
        facts = facts_of(cursor)
        source = sources.source_of(below, log, wish.table, facts.topic_ids)
        plan, _ = sources.plan(wish, facts, source, found.cluster_id, str(found.path))
    if json:
        emit_json({**plan.fields(), "executed": False})
        return
    emit("\n".join(plan.lines()))
    say("nothing was written: --execute does it")


def _execute(wish: Wish, store: Path, below: Archive | None, log: Log | None, json: bool) -> None:
    from ..replay.replay import Replayer
    from .bars import Bars

    with Bars() as bars:
        done = Replayer(store, _source(wish, store, below, log), watch=bars).run(wish)
    if json:
        emit_json({**done.fields(), "executed": True})
        return
    plan = done.plan
    emit(f"{wish.into}: {count(done.rows, 'row')} of {plan.of_table(plan.target)}")
    say(f"{count(done.offsets, 'offset')} in {done.seconds:.1f} s, {done.offsets / (done.seconds or 1):,.0f}/s")
    if plan.becomes == "replica":
        other = f"it held something else, {done.before.partition('-')[0] or 'unreadable'} rows"
        same = "it held the same" if done.before == done.digest else other
        say(f"{wish.table} is what the log says up to {plan.of_table(plan.target)} ({same})")
    elif plan.becomes == "derived":
        say(f"{wish.table} is derived now: the log is not applied to it any more")


def _source(wish: Wish, store: Path, below: Archive | None, log: Log | None) -> Source:
    from ...consumers.storefile import StoreFile
    from ..replay import sources
    from ..replay.replay import facts_of

    with StoreFile(store) as found, found.reading() as cursor:
        ids = facts_of(cursor).topic_ids
    return sources.source_of(below, log, wish.table, ids)


def _drop(table: str, store: Path, execute: bool, json: bool) -> None:
    from ...consumers.shadow import Shadows
    from ...consumers.storefile import StoreFile

    with StoreFile(store) as found:
        derived = found.derived()
    mine = derived.get(table)
    if mine is None:
        names = ", ".join(derived) or "none"
        raise UnknownTable(table, hint=f"--drop removes shadows and derived tables only; the store has {names}")
    if execute:
        with Shadows(store) as shadows:
            shadows.drop(table)
    if json:
        emit_json({"table": table, "rows": mine.rows, "dropped": execute})
        return
    what = f"{table}, {count(mine.rows, 'row')} {mine.made_of}"
    emit(f"removed {what}" if execute else f"would remove {what}")
    if not execute:
        say("nothing was written: --execute does it")
