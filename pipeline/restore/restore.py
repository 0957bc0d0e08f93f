"""Carrying a plan out: into a file beside the store, which is proved and then takes its place.

Invariants
- The store's own name never names anything but a whole store: the old one, or the new one.
- A store that is in use is never replaced; one that holds anything only by *force*, and then it stays, under a name
  that says why.
- Beyond the base there is one way to apply records: the replica's own (``consumers/catchup.py``).
- Killed at any step, the next run goes on, or begins again; nothing that it leaves looks like a store.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from ...consumers.apply import BatchLimits
from ...consumers.audit import audit_store
from ...consumers.catchup import apply_until
from ...consumers.contents import Loading
from ...consumers.dbfile import Limits, identity, open_file, stored_tables
from ...consumers.digest import quarantine_digest, table_digest
from ...consumers.reads import positions
from ...consumers.store import Store
from ...schemas.errors import (
    ArchiveUnavailable,
    LogError,
    MerganserError,
    RestoredWrong,
    StoreError,
    StoreFormat,
    StoreInTheWay,
    StoreLocked,
)
from ...schemas.position import Position, TopicPartition
from ..archive.bounded import BoundedLog
from ..archive.key import check_key
from ..backup import files
from ..backup.manifest import Backup, manifest_name
from ..backup.snapshot import Unwatched, Watch
from ..files import sync_folder
from .plan import RestorePlan
from .progressfile import Mark, fingerprint, read_mark, write_mark
from .sources import Origin

#: The steps of a restore; tests stop the process at each.
STEPS = ("loading", "file-loaded", "loaded", "archive-applied", "applied", "verified", "aside", "wal-aside", "in-place")


_APPEARED = "it was made while the restore ran"


@dataclass(frozen=True)
class Restored:
    """What a restore left. *aside* is where the old store is now; *compared* is the backup whose digests the new
    one has too, if one was made at that position."""

    path: Path
    position: Position
    applied: Position
    rows: int
    aside: Path | None
    compared: str


@dataclass
class Restorer:
    """Restores to *path*, which may name a store that is there."""

    origin: Origin
    path: Path
    group: str
    force: bool = False
    limits: Limits | None = None
    batches: BatchLimits | None = None
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None

    def __post_init__(self) -> None:
        self.path = Path(self.path).resolve()
        self.work = self.path.with_name(self.path.name + ".restoring")
        self._mark = self.path.with_name(self.work.name + ".json")
        self._spill = self.path.with_name(self.work.name + ".tmp")  # DuckDB's, which it may leave

    def run(self, plan: RestorePlan) -> Restored:
        """Carry *plan* out. StoreInTheWay, StoreLocked, ArchiveDamaged, WrongKey, RestoredWrong, TableStopped."""
        with self._alone(), _unused(self.path) as there:
            mark = self._begun(plan)
            if mark is not None and self._done(mark):
                if mark.target == str(plan.target):
                    return self._finish(mark)
                mark = None  # that one is over: the store there is like any other
            if there and not self.force and not (mark and self._goes_aside(mark)):
                raise StoreInTheWay(str(self.path), there)
            try:
                if mark is None or not self._goes_on(plan):
                    self._load(plan)
                self._apply(plan)
            except (LogError, ArchiveUnavailable):
                raise  # goes on from here next time
            except MerganserError:
                self._discard()
                raise
            self._verify(plan)
            return self._place(plan, mark)

    # -- what is there -----------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two restores into one file would take each other's apart."""
        if not self.path.parent.is_dir():
            raise StoreFormat(str(self.path), "its folder does not exist", hint=f"mkdir -p {self.path.parent}")
        lock = self.path.with_name(self.work.name + ".lock")
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = lock.stat().st_ino == os.fstat(file.fileno()).st_ino
            except (BlockingIOError, FileNotFoundError):
                mine = False  # held, or just removed by who held it
            if not mine:
                raise StoreLocked(str(self.path), "another restore into it runs")
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def _begun(self, plan: RestorePlan) -> Mark | None:
        """What an earlier run of the same plan has left, if it is to any use."""
        mark = read_mark(self._mark)
        return mark if mark and mark.plan == fingerprint(plan, self.origin.cluster_id, self.group) else None

    def _done(self, mark: Mark) -> bool:
        """True if an earlier run was killed after its last rename."""
        moved = not mark.aside or self.path.with_name(mark.aside).exists()
        return mark.stage == "verified" and not self.work.exists() and self.path.exists() and moved

    def _goes_aside(self, mark: Mark) -> bool:
        """True if an earlier run was about to put the store away that is there now."""
        return bool(mark.aside) and not self.path.with_name(mark.aside).exists()

    def _goes_on(self, plan: RestorePlan) -> bool:
        """True if what was begun leads to *plan*'s target."""
        if not self.work.exists():
            return False
        try:
            with self._store() as store:
                within = all(s.next_offset <= plan.target.get(tp, 0) for tp, s in store.positions().items())
                return within and all(table.stopped is None for table in store.tables().values())
        except (StoreError, duckdb.Error):
            return False

    def _discard(self) -> None:
        for name in (self._mark, self.work, _wal(self.work)):
            name.unlink(missing_ok=True)
        shutil.rmtree(self._spill, ignore_errors=True)

    # -- the new store -----------------------------------------------------------------------

    def _load(self, plan: RestorePlan) -> None:
        """A new file with what the base holds of the plan's tables."""
        self._discard()
        base = plan.base
        if base is not None:
            check_key(manifest_name(base.id), base.key, self.origin.archive.key)
        self.step("loading")
        with Loading(self.work, self.origin.cluster_id, self.group, self.limits) as loading:
            if base is not None:
                self._load_base(loading, base, plan.tables)
        self._write_mark(plan, "loaded")
        self.step("loaded")

    def _load_base(self, loading: Loading, base: Backup, tables: tuple[str, ...]) -> None:
        for table in base.tables:
            if table.topic in tables:
                loading.add_table(table.as_columns)
        wanted = [e for e in base.files if not e.topic or e.topic in tables]
        self.watch.begin("load", sum(entry.rows for entry in wanted))
        key = self.origin.archive.key if base.key else None
        for entry in wanted:
            loading.add(entry.stretch, files.read(self.origin.archive.objects, entry, key))
            self.step("file-loaded")
            self.watch.advance(entry.rows)
        loading.keep_only(tables)
        cursor = loading.cursor()
        read, _ = positions(cursor)
        if read != base.read.of(set(tables)):
            raise RestoredWrong(str(self.work), f"it is at {read}, backup {base.id} at {base.read}")
        _compare(self.work, cursor, base, tables)

    def _apply(self, plan: RestorePlan) -> None:
        """On from the base: over the archive, and over the log itself where the archive ends."""
        with self._store() as store:
            before = {tp: stored.caught_up_ms for tp, stored in store.positions().items()}
            reached = Position({tp: stored.next_offset for tp, stored in store.positions().items()})
            self.watch.begin("apply", sum(reached.behind(plan.target).values()))
            if self._over_archive(plan, reached):
                self._until(store, BoundedLog(self.origin.below, plan.from_archive), plan, plan.from_archive)
                store.caught_up_at(self._times(plan, reached, before))
            self.step("archive-applied")
            if plan.needs_log and self.origin.log is not None:
                self._until(store, BoundedLog(self.origin.log, plan.target), plan, plan.target)
        self.step("applied")

    def _over_archive(self, plan: RestorePlan, reached: Position) -> bool:
        if not reached.reaches(plan.from_archive):
            return True
        if plan.needs_log:
            return False
        # Nothing to read: still, a base of more tables may hold back what these alone need not.
        return plan.base is None or {t.topic for t in plan.base.tables} != set(plan.tables)

    def _until(self, store: Store, log: BoundedLog, plan: RestorePlan, target: Position) -> None:
        at = Position({tp: stored.next_offset for tp, stored in store.positions().items()})

        def told(read: Position) -> None:
            nonlocal at
            self.watch.advance(sum(at.behind(read).values()))
            at = at | read

        apply_until(log, store, list(plan.tables), target, told, self.batches)

    def _times(
        self, plan: RestorePlan, reached: Position, before: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Since when deletes can have been missed (FAILURES 35). Reading the archive to its end is not reading the
        log to its end: what lies after the last record read may be as old as that."""
        times: dict[TopicPartition, int] = {}
        for tp, target in plan.from_archive.items():
            chain = self.origin.below.chain(tp)
            if chain is None or not chain.links or reached.get(tp, 0) >= target:
                times[tp] = before.get(tp, 0)
            elif target >= chain.end and (caught_up := self.origin.archive.caught_up_ms(chain.place)) >= 0:
                times[tp] = caught_up
            else:
                times[tp] = max(0, chain.links[min(chain.at(target - 1), len(chain.links) - 1)].min_ms)
        return times

    @contextmanager
    def _store(self) -> Iterator[Store]:
        store = Store(self.work, self.origin.cluster_id, self.group, self.limits)
        try:
            yield store
        finally:
            store.close()

    # -- proof -------------------------------------------------------------------------------

    def _verify(self, plan: RestorePlan) -> None:
        """The new store is at the target, its account adds up, and its digests are those of a backup there."""
        con = open_file(self.work, self.limits or Limits(), read_only=True)
        try:
            read, applied = positions(con)
            if read != plan.target:
                raise RestoredWrong(str(self.work), f"it is at {read}, the target is {plan.target}")
            for account in audit_store(con, digests=False):
                if account.wrong:
                    raise RestoredWrong(str(self.work), f"the account of {account.table}: {account.wrong[0]}")
            known = self._known_at(plan)
            if known is not None:
                _compare(self.work, con, known, plan.tables)
            self._result = Restored(self.path, read, applied, _rows(con), None, known.id if known else "")
        except RestoredWrong:
            con.close()
            self._discard()
            raise
        finally:
            con.close()

    def _known_at(self, plan: RestorePlan) -> Backup | None:
        """A backup that was made at the target, of a store that held nothing back for other tables' sake."""
        wanted = set(plan.tables)
        for backup in reversed(self.origin.backups):
            topics = {table.topic for table in backup.tables}
            same = topics == wanted or (topics >= wanted and backup.applied == backup.position)
            if same and backup.read.of(wanted) == plan.target and backup.partial == plan.partial:
                return backup
        return None

    # -- taking its place --------------------------------------------------------------------

    def _place(self, plan: RestorePlan, before: Mark | None) -> Restored:
        with self.work.open("rb") as file:
            os.fsync(file.fileno())
        aside = before.aside if before else ""
        if self.path.exists() and not (before and self._goes_aside(before)):
            aside = self._free_name()
        self._write_mark(plan, "verified", aside)
        self.step("verified")
        if self.path.exists():
            if not aside:
                raise StoreInTheWay(str(self.path), _APPEARED)
            self.path.rename(self.path.with_name(aside))
        self.step("aside")
        if aside and _wal(self.path).exists():
            _wal(self.path).rename(_wal(self.path.with_name(aside)))
        _wal(self.path).unlink(missing_ok=True)
        self.step("wal-aside")
        self._rename()
        sync_folder(self.path.parent)
        self.step("in-place")
        return self._finish(Mark("", "verified", str(plan.target), aside))

    def _rename(self) -> None:
        try:
            os.link(self.work, self.path)  # unlike rename, it never replaces what appeared meanwhile
        except FileExistsError:
            raise StoreInTheWay(str(self.path), _APPEARED) from None
        except OSError:  # a file system without hard links: there is no better way than to look
            if self.path.exists():
                raise StoreInTheWay(str(self.path), _APPEARED) from None
            self.work.rename(self.path)
        self.work.unlink(missing_ok=True)

    def _free_name(self) -> str:
        """For the store that is there: a rename would replace one that was put aside in the same second."""
        name = f"{self.path.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        free, number = name, 1
        while self.path.with_name(free).exists():
            number += 1
            free = f"{name}-{number}"
        return free

    def _finish(self, mark: Mark) -> Restored:
        self._mark.unlink(missing_ok=True)
        shutil.rmtree(self._spill, ignore_errors=True)
        result: Restored | None = getattr(self, "_result", None)
        if result is None:
            con = open_file(self.path, self.limits or Limits(), read_only=True)
            try:
                read, applied = positions(con)
                result = Restored(self.path, read, applied, _rows(con), None, "")
            finally:
                con.close()
        aside = self.path.with_name(mark.aside) if mark.aside else None
        return Restored(result.path, result.position, result.applied, result.rows, aside, result.compared)

    def _write_mark(self, plan: RestorePlan, stage: str, aside: str = "") -> None:
        made = fingerprint(plan, self.origin.cluster_id, self.group)
        write_mark(self._mark, Mark(made, stage, str(plan.target), aside))


@contextmanager
def _unused(path: Path) -> Iterator[str]:
    """Why *path* must not simply be replaced; empty if nothing is there. StoreLocked while a process has it, and
    none can have it meanwhile."""
    if not path.exists() or not path.stat().st_size:
        yield ""
        return
    try:
        con = open_file(path, Limits(), read_only=True)
    except StoreFormat:
        yield "it holds something else than a store"
        return
    try:
        yield _what(con, path)
    finally:
        con.close()


def _what(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    try:
        _, group = identity(con, path)
        tables = stored_tables(con)
    except (StoreFormat, duckdb.Error):
        return "it holds something else than a store of this format"
    return f"it is the store of group {group!r}, with {', '.join(tables)}" if tables else ""


def _compare(path: Path, con: duckdb.DuckDBPyConnection, backup: Backup, tables: tuple[str, ...]) -> None:
    """RestoredWrong unless the digests of *tables* are those in *backup*."""
    for table in backup.tables:
        if table.topic not in tables:
            continue
        rows, bad = str(table_digest(con, table.topic)), str(quarantine_digest(con, table.topic))
        if (rows, bad) != (table.digest, table.quarantine):
            why = f"{table.topic} has digest {rows}/{bad}, backup {backup.id} has {table.digest}/{table.quarantine}"
            raise RestoredWrong(str(path), why)


def _rows(con: duckdb.DuckDBPyConnection) -> int:
    return sum(int(table_digest(con, name).rows) for name in stored_tables(con))


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")
