"""Carrying a replay out: into a store of its own beside the store, from there into a shadow, and, if asked, into place.

Invariants
- There is one way to apply records: the replica's own (``consumers/catchup.py``), over a log cut at the target.
- The store belongs to the replay while it runs. Its tables change in the swap alone, which is one transaction.
- Killed at any step, the table is the old one or the new one. The next run goes on with what was applied beside the
  store, and makes the shadow anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.apply import BatchLimits, Settled
from ...consumers.audit import audit_store
from ...consumers.catchup import apply_until
from ...consumers.checks import Held
from ...consumers.contents import Stretch, chunks, columns_of
from ...consumers.dbfile import Limits, held_partitions, stored_tables
from ...consumers.derived import Derived, derived_tables
from ...consumers.digest import table_digest
from ...consumers.reads import positions
from ...consumers.shadow import PLACE, Shadows, sql_tables
from ...consumers.shadow import STEPS as SHADOW_STEPS
from ...consumers.store import Store
from ...schemas.errors import ReplayedWrong, StoreError, TableStopped, UsageError
from ...schemas.position import Position, TopicPartition
from ..backup.snapshot import Unwatched, Watch
from . import sources
from .plan import Facts, ReplayPlan, Wish
from .together import MoreTables, WatchedLog
from .transform import Function, Transform, load

#: The steps of a replay; tests stop the process at each.
STEPS = ("seeded", "applied", *SHADOW_STEPS, "cleaned")

_PLACED = tuple(name for name, _ in PLACE)


def facts_of(con: duckdb.DuckDBPyConnection) -> Facts:
    """What planning has to know of the open store."""
    return Facts(held_partitions(con), stored_tables(con), derived_tables(con), tuple(sql_tables(con)))


@dataclass(frozen=True)
class Replayed:
    """What a replay left. *before* and *digest* are of the table, in the store and as replayed: equal if nothing
    was wrong with it; *before* is empty if it could not be read, or is no replica."""

    plan: ReplayPlan
    rows: int
    digest: str
    before: str
    read: Position
    seconds: float

    @property
    def offsets(self) -> int:
        return sum(self.plan.begin.of({tp.topic for tp in self.read}).behind(self.read).values())

    def fields(self) -> dict[str, Any]:
        rate = round(self.offsets / self.seconds) if self.seconds else 0
        facts = {"rows": self.rows, "digest": self.digest, "digest_before": self.before or None}
        return {**self.plan.fields(), **facts, "read": str(self.read), "seconds": round(self.seconds, 3), "rate": rate}


@dataclass
class Replayer:
    """Replays tables of the store at *path*, which no process has open. *source* is the log, or the archive."""

    path: Path
    source: sources.Source
    limits: Limits | None = None
    batches: BatchLimits | None = None
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None

    def __post_init__(self) -> None:
        self.path = Path(self.path).resolve()
        self.side = self.path.with_name(self.path.name + ".replaying")

    def run(self, wish: Wish) -> Replayed:
        """Carry *wish* out. StoreLocked, TableStopped, TransformFailed, ReplayedWrong; UsageError before anything
        is written."""
        function = load(wish.transform) if wish.transform else None
        with Shadows(self.path, self.limits, self.step) as shadows:
            facts = facts_of(shadows.con)
            plan, begin = sources.plan(wish, facts, self.source, shadows.cluster_id, str(self.path))
            began_s = time.monotonic()
            with self._applied(plan, begin, shadows, facts) as (beside, read), beside.reading(1) as side:
                took_s = time.monotonic() - began_s
                self._check(side, plan, read)
                begun = {tp: replace(each, next=each.first) for tp, each in begin.items() if tp.topic == wish.table}
                [topic_id] = {each.topic_id for each in begun.values()}
                until = plan.of_table(plan.target)
                shadow = Derived(wish.into, wish.table, topic_id, plan.since, until, wish.transform, begun=begun)
                shadow = self._fill(shadows, shadow, plan, side, function)
                digest = str(table_digest(shadows.con, wish.into))
                if not function and not plan.since and digest != str(table_digest(side, wish.table)):
                    raise ReplayedWrong(str(self.path), f"{wish.into} has digest {digest}, what was replayed another")
                before = _digest_before(shadows.con, wish.table, facts)
                if plan.becomes == "replica":
                    shadows.swap_replica(shadow, side)
                elif plan.becomes == "derived":
                    shadows.swap_derived(shadow)
        self._clean()
        self.step("cleaned")
        return Replayed(plan, shadow.rows, digest, before, read, took_s)

    # -- the store beside -------------------------------------------------------------------------

    @contextmanager
    def _applied(
        self, plan: ReplayPlan, begin: Mapping[TopicPartition, Held], shadows: Shadows, facts: Facts
    ) -> Iterator[tuple[Store, Position]]:
        """A store beside, and its position: the target, of the table and of those that its transactions wrote to."""
        everything, tables = {tp.topic for tp in begin}, {plan.table}
        # Where the store is, what it has settled is settled: it may not follow all parts of a transaction any more.
        settled: Settled = shadows.settled if plan.target == facts.position else lambda lacking: set()
        store = self._left_over(shadows)
        try:
            found = {tp.topic for tp in store.begun()} & everything
            if plan.table in found:  # an earlier run for it, which was killed, has found these to belong together
                tables = found
            if self.source.log.table(plan.table).compacted:
                tables = everything  # the records that name a transaction's tables may be gone
            while True:
                mine = {tp: each for tp, each in begin.items() if tp.topic in tables}
                part = sources.capped(plan, tables)
                if not _leads_to(store, part, mine):
                    store = self._anew(store, shadows)
                sources.check_reach(self.source, part.begin, part.target)
                try:
                    self._apply(store, part, mine, everything - tables, settled)
                    break
                except MoreTables as more:
                    tables = tables | more.tables
                except TableStopped:
                    store.close()
                    self._clean()  # what is wrong with the log may be mended by the next run
                    raise
            yield store, plan.target.of(tables)
        finally:
            store.close()

    def _apply(
        self,
        store: Store,
        plan: ReplayPlan,
        begin: Mapping[TopicPartition, Held],
        others: set[str],
        settled: Settled,
    ) -> None:
        """Bring *store* to the target. MoreTables if transactions have written to some of *others*."""
        begun = store.begun()
        if not begun:
            store.begin_as(begin)
        self.step("seeded")
        at = Position({tp: begun[tp].next if begun else each.first for tp, each in begin.items()})
        self.watch.begin("apply", sum(at.behind(plan.target).values()))

        def told(read: Position) -> None:
            nonlocal at
            self.watch.advance(sum(at.behind(read).values()))
            at = at | read

        log = WatchedLog(self.source.log, plan.target, others)
        tables = sorted({tp.topic for tp in plan.target})
        apply_until(log, store, tables, plan.target, told, self.batches, work="replay", settled=settled)
        self.step("applied")

    def _left_over(self, shadows: Shadows) -> Store:
        """The store that a killed run has left beside; an empty one if there is none, or it is none."""
        try:
            return Store(self.side, shadows.cluster_id, shadows.group, self.limits)
        except (StoreError, UsageError, duckdb.Error):
            self._clean()
            return Store(self.side, shadows.cluster_id, shadows.group, self.limits)

    def _anew(self, store: Store, shadows: Shadows) -> Store:
        store.close()
        self._clean()
        return self._left_over(shadows)

    def _clean(self) -> None:
        for name in (self.side, self.side.with_name(self.side.name + ".wal")):
            name.unlink(missing_ok=True)
        shutil.rmtree(self.side.with_name(self.side.name + ".tmp"), ignore_errors=True)  # DuckDB's

    # -- the shadow -------------------------------------------------------------------------------

    def _check(self, side: duckdb.DuckDBPyConnection, plan: ReplayPlan, target: Position) -> None:
        """What was applied is at the target, and adds up."""
        read, _ = positions(side)
        if {tp: read.get(tp) for tp in target} != target:
            raise ReplayedWrong(str(self.path), f"it is at {read}, the target is {target}")
        wrong = [line for account in audit_store(side, digests=False) for line in account.wrong]
        if wrong:
            raise ReplayedWrong(str(self.path), f"the account of {plan.table}: {wrong[0]}")

    def _fill(
        self,
        shadows: Shadows,
        shadow: Derived,
        plan: ReplayPlan,
        side: duckdb.DuckDBPyConnection,
        function: Function | None,
    ) -> Derived:
        """Make *shadow* of what is beside."""
        [columns] = columns_of(side, [plan.table])
        types = dict(columns.columns)
        own = [(name, type_) for name, type_ in columns.columns if name not in _PLACED]
        transform = function and Transform(shadow.transform, function, plan.table, dict(own))
        rows = 0
        shadows.begin(shadow, () if transform else own)
        [(count,)] = side.execute(f"SELECT count(*) FROM {Stretch(plan.table, False, None).sql}").fetchall()
        self.watch.begin("shadow", count)
        for tp in sorted(plan.of_table(plan.target)):
            for chunk in chunks(side, Stretch(plan.table, False, tp)):
                self.watch.advance(chunk.rows.num_rows)
                made: pa.Table | None = _since(chunk.rows, plan.since.get(tp, 0))
                if transform and made is not None:
                    made = transform.apply(made)
                if made is not None:
                    shadows.add(shadow.name, made, transform.types if transform else types)
                    rows += made.num_rows
        shadow = replace(shadow, rows=rows, whole=True)
        shadows.finish(shadow)
        return shadow


def _leads_to(store: Store, plan: ReplayPlan, begin: Mapping[TopicPartition, Held]) -> bool:
    """True if *store* is empty, or was begun as this replay has to be, and is not beyond its target."""
    there = store.begun()
    within = all(each.next <= plan.target.get(tp, 0) for tp, each in there.items())
    same = {tp: replace(each, next=0) for tp, each in there.items()}
    mine = {tp: replace(each, next=0) for tp, each in begin.items()}
    return not there or (within and same == mine and all(t.stopped is None for t in store.tables().values()))


def _since(rows: pa.Table, offset: int) -> pa.Table | None:
    """Those of *rows* whose records lie at *offset* or beyond; None if there are none."""
    if offset:
        rows = rows.filter(pc.greater_equal(rows["_offset"], offset))
    return rows if rows.num_rows else None


def _digest_before(con: duckdb.DuckDBPyConnection, table: str, facts: Facts) -> str:
    """The digest of the table that is there; empty if it is no replica, or cannot be read."""
    if table not in facts.tables:
        return ""
    try:
        return str(table_digest(con, table))
    except duckdb.Error:
        return ""
