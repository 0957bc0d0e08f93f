"""Making a backup: the store's state, the log up to it, and the manifest that names both.

Invariants
- A manifest is published when all that it names is there: files, and the archive up to its position.
- Until it is marked, it is no backup; killed at any step, the next run finds what is there and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ...schemas.errors import BackupFailed
from ...schemas.position import Position
from ..archive.key import Key
from ..archive.objects import Objects
from . import files
from .catalog import catalog, newest_full
from .lease import Lease
from .manifest import Backup, Type, manifest_name, mark, mark_name, new_id
from .snapshot import Bytes, ChunkLimits, Snapshot, Snapshotter, Source, Unwatched, Watch, patiently, state_of

#: Brings the archive up to a position of these tables.
ArchiveUpTo = Callable[[Position], None]

#: How often a backup that lost its lease begins again.
_TRIES = 3

#: The steps of a backup after its files; tests stop the process at each.
STEPS = ("archived", "published", "marked")


@dataclass(frozen=True)
class Request:
    """What backup to make. *schedule*, *due* and *late*: see :class:`Backup`."""

    type: Type = "full"
    annotations: Mapping[str, str] = field(default_factory=dict)
    schedule: str = ""
    due: str = ""
    late: bool = False


@dataclass
class Backups:
    """Makes backups in *objects*."""

    objects: Objects
    key: Key | None = None
    limits: ChunkLimits = field(default_factory=ChunkLimits)
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None

    def create(self, source: Source, request: Request, archive_up_to: ArchiveUpTo) -> Backup:
        """A backup of *source*, which may be live. An incremental one without a full one that leads to it is made full.

        BackupFailed, BackupBusy, ArchiveUnavailable, ArchiveDamaged; what *archive_up_to* raises.
        """
        for _ in range(_TRIES):
            made = self._try(source, request, archive_up_to)
            if made is not None:
                return made
        raise BackupFailed(f"it was taken for dead {_TRIES} times: it stood still for an hour each time")

    def _try(self, source: Source, request: Request, archive_up_to: ArchiveUpTo) -> Backup | None:
        began_s, now = time.monotonic(), datetime.now(UTC)
        id_ = new_id(now)
        lease = Lease(self.objects, id_)
        try:
            before = self._finished()
            blank = Backup(
                id_,
                request.type,
                now.isoformat(timespec="milliseconds"),
                source.cluster_id,
                source.group,
                "",
                "",
                "",
                (),
            )
            made = self._content(blank, source, before, lease)
            archive_up_to(made.read)
            self.step("archived")
            made = replace(
                made,
                schedule=request.schedule,
                due=request.due,
                late=request.late,
                annotations=dict(request.annotations),
                seconds=round(time.monotonic() - began_s, 3),
            )
            return made if self._publish(made, lease) else None
        finally:
            lease.release()

    def _content(self, blank: Backup, source: Source, before: Sequence[Backup], lease: Lease) -> Backup:
        base = None
        if blank.type == "incr":
            state = patiently(source, state_of)
            base = newest_full(before, source.group, state)
            snapshot = Snapshot(state, (), 0)
        if base is None:
            known = {listed.name: Bytes(listed.size, listed.sha256) for b in before for listed in b.files}
            taker = Snapshotter(self.objects, self.key, self.limits, _Renewing(self.watch, lease), self.step)
            snapshot = taker.take(source, known)
            state = snapshot.state
        return replace(
            blank,
            type="incr" if base else "full",
            base=base.id if base else "",
            position=str(state.read),
            applied=str(state.applied),
            since=str(state.since),
            tables=state.tables,
            files=snapshot.files,
            new_bytes=snapshot.new_bytes,
            key="" if self.key is None else self.key.id,
        )

    def _publish(self, made: Backup, lease: Lease) -> bool:
        """False if files were removed meanwhile, since the lease was lost."""
        if not self.objects.create(manifest_name(made.id), made.encoded()):
            raise BackupFailed(f"{manifest_name(made.id)} is there already")
        self.step("published")
        # From here on the manifest protects its files; what went before, the lease knows.
        lease.ensure()
        if not self._complete(made):
            self.objects.delete(manifest_name(made.id))
            return False
        self.objects.create(mark_name(made.id), mark(made))
        self.step("marked")
        return True

    def _finished(self) -> list[Backup]:
        """The backups that are there, those finished first that a killed process had not. What lacks files is none."""
        there: list[Backup] = []
        for found in catalog(self.objects):
            if found.backup is None or (found.unmarked and not self._complete(found.backup)):
                continue
            if found.unmarked:
                self.objects.create(mark_name(found.id), mark(found.backup))
            there.append(found.backup)
        return there

    def _complete(self, backup: Backup) -> bool:
        """Whether all files of *backup* are there. Asked while a lease is held."""
        sizes = {found.name: found.size for found in self.objects.list(files.FOLDER)}
        return all(sizes.get(listed.name) == listed.size for listed in backup.files)


class _Renewing:
    """Keeps the lease up while the watched work goes on."""

    def __init__(self, watch: Watch, lease: Lease) -> None:
        self._watch, self._lease = watch, lease

    def begin(self, what: str, total: int) -> None:
        self._watch.begin(what, total)

    def advance(self, by: int) -> None:
        self._lease.renew()
        self._watch.advance(by)
