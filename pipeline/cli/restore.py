"""``merganser restore``: a store as it was at a position, or at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    Base,
    DryRun,
    KeyFile,
    RegistryUrl,
    ServersAtHand,
    SomeTables,
    Store,
    TheArchive,
    Timeout,
    To,
    comma_separated,
    open_log_above,
    option,
)
from .output import count, emit, emit_json, say

Group = Annotated[str | None, option("--group", "Group of the new store, and whose tables. Without it: the backup's.")]
Force = Annotated[bool, option("--force", "Replace a store that is there; it is kept beside the new one.")]


def register(app: typer.Typer) -> None:
    app.command()(restore)


def restore(
    archive: TheArchive,
    store: Store,
    to: To = "latest",
    tables: SomeTables = None,
    base: Base = None,
    group: Group = None,
    force: Force = False,
    dry_run: DryRun = False,
    key_file: KeyFile = None,
    bootstrap_servers: ServersAtHand = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Make a store what its tables were at a position or a time.

    It comes from a backup, the archive after it, and Kafka if it answers. Time is the log's own: all records before
    the first one of that time. `replica run` then follows from there.
    """
    from ..archive.archive import open_archive
    from ..backup.api import group_of
    from ..restore.restore import Restorer
    from ..restore.sources import Origin, Wish
    from .bars import Bars

    place = open_archive(archive, key_file)
    log = open_log_above(place, bootstrap_servers, registry, timeout)
    try:
        origin = Origin(place, log)
        plan = origin.plan(Wish(to, tuple(comma_separated(tables)), base, group=group))
        its_group = group_of(plan.base, group)
        if dry_run:
            emit_json(plan.fields()) if json else emit("\n".join(plan.lines()))
            return
        with Bars() as bars:
            done = Restorer(origin, Path(store), its_group, force, watch=bars).run(plan)
    finally:
        if log is not None:
            log.close()
    if json:
        aside = None if done.aside is None else str(done.aside)
        result = {"store": str(done.path), "position": str(done.position), "rows": done.rows, "aside": aside}
        emit_json({**plan.fields(), **result, "compared": done.compared or None})
        return
    emit(f"{done.path}: {count(done.rows, 'row')} at {done.position}")
    for note in plan.notes():
        say(note)
    if done.compared:
        say(f"digests are those of backup {done.compared}")
    if done.aside is not None:
        say(f"the store that was there is now {done.aside}")
