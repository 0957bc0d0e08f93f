"""A node: one process that keeps a replica up with the log, serves it, archives the log, and makes backups in time.

Invariants
- The replica goes on whatever becomes of archive and backups: what fails there is told, and tried again.
- No backup is made by schedule before the replica has all that the log had when the node began: it would be of a store
  that is empty, or far behind.
- One backup is made at a time, in time or on request; one that was due and failed is tried again after a while, not
  at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..schemas.errors import BackupFailed, LogError, MerganserError, NotFreshEnough, TooBusy
from ..schemas.kafka import Deadline
from ..schemas.position import Position
from .archive.archive import Archive
from .archive.archiver import Archiver
from .archive.segments import SegmentLimits
from .backup.api import ARCHIVE_TIMEOUT_S, archive_up_to, lacking
from .backup.catalog import catalog
from .backup.create import Backups, Request
from .backup.expire import expire
from .backup.manifest import Backup, Type
from .backup.policy import Policy
from .backup.schedule import Due, Line, due, upcoming
from .config import ArchiveConfig, NodeConfig

if TYPE_CHECKING:
    from ..consumers.replica import Replica
    from .log import Log
    from .serving.doors import Doors

_log = logging.getLogger("merganser.node")

#: How often the schedule is looked at, and how long a failed backup waits.
_LOOK_S = 1.0
_RETRY_S = (30.0, 120.0, 600.0)

#: How long a node that is to stop may wait for the archive still, or for the log.
_PATIENCE_S = 5.0


@dataclass
class Schedule:
    """Makes the backups of one replica when they are due, in a thread, between :meth:`start` and :meth:`stop`."""

    archive: Archive
    replica: Replica
    lines: tuple[Line, ...]
    keep: Policy | None
    archive_up_to: Callable[[Position, float], None]
    """Brings the archive to a position, within so many seconds."""
    tell: Callable[[str], None] = _log.info
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    caught_up: Callable[[], bool] = lambda: True
    """Whether the replica is far enough to be backed up."""
    look_s: float = _LOOK_S
    failed: str = ""
    """Why the last try failed; empty if it did not."""
    newest: Backup | None = None
    """The newest backup of the replica's group, once the catalogue was read."""
    making: threading.Lock = field(default_factory=threading.Lock)
    """Held while a backup is made."""
    _failures: int = 0
    _not_before: datetime | None = None
    _begun: bool = False
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="merganser-backup", daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """End the backup that is being made, if one is."""
        self._stopping.set()

    def stop(self) -> None:
        """No further backup. One that is being made is given up: the next finds what it has uploaded."""
        self.give_up()
        if self._thread is not None:
            self._thread.join()

    def status(self) -> dict[str, Any]:
        """For people and programs who look at the node."""
        following = upcoming(self.lines, self.now())
        return {
            "last": self.newest.id if self.newest is not None else None,
            "last_at": self.newest.created if self.newest is not None else None,
            "next": following[0].isoformat() if following else None,
            "next_type": following[1].type if following else None,
            "waiting_for": None if self._begun else "the replica to catch up",
            "failed": self.failed or None,
        }

    def look(self) -> Backup | None:
        """Make the backup that is due, if one is; what fails is kept in :attr:`failed`."""
        now = self.now()
        self._begun = self._begun or self.caught_up()
        if not self._begun or (self._not_before is not None and now < self._not_before):
            return None
        try:
            wanted = self._due(now)
            made = None if wanted is None else self._make(wanted)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next one is tried, and people are told
            self._note_failure(error, now)
            return None
        if made is not None:
            self._failures, self._not_before, self.failed, self.newest = 0, None, "", made
        return made

    def _due(self, now: datetime) -> Due | None:
        # The catalogue is only read when a line has come to its time since the last look.
        following = upcoming(self.lines, self._looked) if self._looked else None
        if following is not None and following[0] > now:
            return None
        there = [found.backup for found in catalog(self.archive.objects) if found.backup and not found.wrong]
        mine = [backup for backup in there if backup.group == self.replica.group]
        self.newest = max(mine, key=lambda backup: backup.created_at, default=None)
        wanted = due(self.lines, there, self.replica.group, now)
        self._looked = now if wanted is None else None
        return wanted

    _looked: datetime | None = None

    def _make(self, wanted: Due) -> Backup:
        request = Request(wanted.line.type, {}, wanted.line.name, wanted.at.isoformat(), wanted.late)
        maker = Backups(self.archive.objects, self.archive.key, step=self._go_on)
        with self.making:
            made = maker.create(self.replica, request, self._archive)
        late = f", made up for {made.due}" if made.late else ""
        self.tell(f"backup {made.id} made: {made.type}, {made.rows:,} rows, {made.new_bytes:,} new bytes{late}")
        if self.keep is not None:
            gone = [v for v in expire(self.archive.objects, self.keep, self.now()).verdicts if not v.kept]
            if gone:
                self.tell(f"removed {len(gone)} backups that nothing keeps")
        return made

    def on_request(self, type_: Type, notes: Mapping[str, str]) -> Backup:
        """Make a backup now. TooBusy while another is made; the errors of :class:`Backups`."""
        maker = Backups(self.archive.objects, self.archive.key, step=self._go_on)
        if not self.making.acquire(blocking=False):
            raise TooBusy("a backup is being made")
        try:
            made = maker.create(self.replica, Request(type_, notes), self._archive)
        finally:
            self.making.release()
        self.newest = made
        self._failures, self._not_before, self.failed = 0, None, ""  # what was in the way is not: try what is due
        self.tell(f"backup {made.id} made: {made.type}, {made.rows:,} rows, on request")
        return made

    def _archive(self, position: Position) -> None:
        """Wait for the archive, and look now and then whether the node is to stop."""
        deadline = Deadline(ARCHIVE_TIMEOUT_S)
        while True:
            try:
                return self.archive_up_to(position, min(_PATIENCE_S, deadline.left_s))
            except NotFreshEnough:
                self._go_on("waiting")
                if deadline.passed:
                    raise

    def _go_on(self, step: str) -> None:
        if self._stopping.is_set():
            raise BackupFailed(f"the node stops ({step})")

    def _note_failure(self, error: Exception, now: datetime) -> None:
        if self._stopping.is_set():
            return
        pause_s = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures, self._not_before = self._failures + 1, now + timedelta(seconds=pause_s)
        self.failed = str(error) if isinstance(error, MerganserError) else repr(error)
        _log.warning("no backup was made (%s); trying again in %d s", self.failed, pause_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(self.look_s)


class CaughtUp:
    """Whether *replica* has all that *log* had when that was first asked. Tables that cannot go on do not count, nor do
    transactions that were open then."""

    def __init__(self, replica: Replica, log: Log) -> None:
        self._replica, self._log = replica, log
        self._goal: Position | None = None

    def __call__(self) -> bool:
        read, stopped = self._replica.read_position, self._replica.stopped
        if self._goal is None:
            try:
                self._goal = self._log.stable_ends(list(read), _PATIENCE_S)
            except LogError:
                return False
        return not read.behind(self._goal, but=stopped)


class Node:
    """What *config* says beside the replica: archiver and schedule. Use it in a ``with``, inside the replica's."""

    def __init__(
        self,
        config: NodeConfig,
        log: Log,
        replica: Replica,
        archive: Archive | None,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        self._config, self._log, self._replica, self._archive = config, log, replica, archive
        self._tell = tell
        self._stack = ExitStack()
        self.archiver: Archiver | None = None
        self.schedule: Schedule | None = None
        self.doors: Doors | None = None

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            settings = self._config.archive
            if self._archive is not None and settings is not None:
                if settings.run:
                    self.archiver = stack.enter_context(self._archiver(self._archive, settings))
                up_to, config = partial(self._up_to, self._archive), self._config
                self.schedule = Schedule(
                    self._archive, self._replica, config.backups, config.expire, up_to, self._tell,
                    caught_up=CaughtUp(self._replica, self._log),
                )  # fmt: skip
                if config.backups:
                    self.schedule.start()
                stack.callback(self.schedule.stop)
            if self._config.serve.open:
                self.doors = stack.enter_context(self._doors())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.schedule is not None:
            self.schedule.give_up()  # or a door would wait for it
        self._stack.close()

    def status(self) -> dict[str, Any]:
        """Fields for ``replica run --json``."""
        fields: dict[str, Any] = {}
        if self.archiver is not None:
            why = self.archiver.error
            fields["archive"] = {
                "position": str(self.archiver.position),
                "waiting_for": self.archiver.waiting_for,
                "stopped": {table: stopped.why for table, stopped in self.archiver.stopped.items()},
                "failed": None if why is None else str(why),
            }
        if self.schedule is not None and self._config.backups:
            fields["backup"] = self.schedule.status()
        if self.doors is not None:
            fields |= self.doors.status()
        return fields

    def _doors(self) -> Doors:
        from .backup.report import facts
        from .serving.doors import Doors

        schedule = self.schedule

        def backup(type_: str, notes: Mapping[str, str]) -> dict[str, Any]:
            assert schedule is not None
            return facts(schedule.on_request("incr" if type_ == "incr" else "full", notes))

        return Doors(self._config.serve, self._replica, self._log, self.status, backup if schedule else None)

    def _archiver(self, archive: Archive, settings: ArchiveConfig) -> Archiver:
        age = settings.roll_s
        limits = SegmentLimits() if age is None else SegmentLimits(age_s=age)
        return Archiver(self._log, archive, sorted(self._config.tables), limits=limits)

    def _up_to(self, archive: Archive, position: Position, timeout_s: float) -> None:
        """By the node's own archiver, if it runs."""
        if self.archiver is None or self.archiver.error is not None:
            archive_up_to(archive, self._log, self._replica, position, timeout_s)
        elif rest := lacking(archive, self._log, self._replica, position):
            self.archiver.until(rest)
            self.archiver.wait(rest, timeout_s)
