"""Backups and restores as programs, commands and nodes ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...consumers.dbfile import stored_tables
from ...consumers.storefile import StoreFile
from ...schemas.errors import BackupFailed, UsageError, WrongArchive
from ...schemas.position import Position
from ..archive.archive import Archive
from ..archive.archiver import Archiver
from ..archive.log import ArchiveLog
from ..restore.restore import Restored, Restorer
from ..restore.sources import Origin, Wish
from .create import Backups, Request
from .manifest import Backup, Type
from .snapshot import Source, Unwatched, Watch

if TYPE_CHECKING:
    from ...consumers.dbfile import Limits
    from ...consumers.replica import Replica
    from ..log import Log

#: How long a backup waits for the archive to come up to it.
ARCHIVE_TIMEOUT_S = 3600.0


def backup(
    archive: Archive,
    replica: Replica | StoreFile,
    log: Log,
    *,
    type: Type = "full",
    annotations: Mapping[str, str] | None = None,
    timeout: float = ARCHIVE_TIMEOUT_S,
    watch: Watch | None = None,
) -> Backup:
    """Back *replica* up, at one position, while it goes on; or a store at rest. *archive* is brought up to that
    position from *log* by the way, in *timeout* seconds at most.

    ``full``: all that it holds; what did not change since an earlier backup is named, not copied. ``incr``: a
    restore point after the newest full one. BackupFailed, BackupBusy, ArchiveUnavailable, NotFreshEnough.
    """
    if type not in ("full", "incr"):
        raise UsageError(f"a backup is of type full or incr, not {type!r}")
    if replica.cluster_id != log.cluster_id:
        raise WrongArchive(archive.url, f"the store follows cluster {replica.cluster_id}, this is {log.cluster_id}")
    archive.claim(log.cluster_id)
    maker = Backups(archive.objects, archive.key, watch=watch or Unwatched())
    source: Source = replica
    request = Request(type, annotations or {})
    return maker.create(source, request, lambda at: archive_up_to(archive, log, source, at, timeout))


def archive_up_to(archive: Archive, log: Log, source: Source, position: Position, timeout_s: float) -> None:
    """Archive all below *position*, where *source* is, in a moment if an archiver keeps up already. BackupFailed."""
    rest = lacking(archive, log, source, position)
    if rest:
        with Archiver(log, archive, sorted({tp.topic for tp in rest}), until=rest) as archiver:
            archiver.wait(rest, timeout_s)


def lacking(archive: Archive, log: Log, source: Source, position: Position) -> Position:
    """That of *position* which the archive does not reach, of the very topics that *source* holds. BackupFailed where
    it never will: the log has another topic of that name by now, or none."""
    with source.reading() as cursor:
        ids = {name: table.topic_id for name, table in stored_tables(cursor).items()}
    ends = ArchiveLog(archive, ids).ends(list(position))
    rest = Position({tp: offset for tp, offset in position.items() if ends.get(tp, -1) < offset})
    found = log.identify({tp.topic for tp in rest})
    for tp, offset in sorted(rest.items()):
        if tp.topic not in found or found[tp.topic].topic_id != ids.get(tp.topic):
            why = f"table {tp.topic!r}: the log does not have its topic any more, which is archived up to"
            failed = BackupFailed(f"{why} {tp}:{max(0, ends.get(tp, 0))}, and the store is at {offset}")
            failed.hint = "`merganser export` saves the rows; a store without that table can be backed up"
            raise failed
    return rest


def restore(
    archive: Archive,
    store: str | Path,
    *,
    to: str | Position = "latest",
    log: Log | None = None,
    tables: Sequence[str] = (),
    group: str | None = None,
    base: str | None = None,
    force: bool = False,
    limits: Limits | None = None,
) -> Restored:
    """Make *store* what a replica of *tables* held at *to*: ``latest``, a position, or a time with its zone.

    From the newest backup at or before it, the archive after that, and *log* where the archive ends. A Replica of
    that store then follows the log from there. *group* is the backup's unless said. *force* replaces a store that
    is there, and keeps it beside. NotRestorable, StoreInTheWay, StoreLocked, ArchiveDamaged, WrongKey.
    """
    origin = Origin(archive, log)
    plan = origin.plan(Wish(str(to), tuple(tables), base, group=group))
    return Restorer(origin, Path(store), group_of(plan.base, group), force, limits).run(plan)


def group_of(base: Backup | None, group: str | None) -> str:
    """The group that a restored store is of. UsageError if nothing says it."""
    if group is None and base is None:
        error = UsageError("no backup is begun with, so the group of the new store is not known")
        error.hint = "--group NAME (group=) says it; `merganser backup list --archive URL` shows what there is"
        raise error
    return group or (base.group if base is not None else "")
