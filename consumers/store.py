"""The replica's DuckDB file: its tables, and ``_merganser``, which says how far they are.

Invariants
- Rows, quarantine, accounts and positions change in one DuckDB transaction or not at all (FAILURES 29).
- No primary keys and no indexes (FAILURES 25). A schema change is ALTER TABLE alone in its transaction,
  then a checkpoint, then rows.
- One process and one Store object own the file. One thread writes; readers have cursors of their own.
- A write that fails leaves its outcome to the file: close, open, and read the position (FAILURES 27).
- Readers cannot keep the writer from its memory or its disk: before it fails for want of either it has
  tried alone.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb

from ..schemas.errors import StoreFailed, StoreFull, UsageError, WrongCluster
from ..schemas.position import Position, TopicPartition
from ..schemas.table import Table
from ..schemas.types import quote
from . import ledger
from .atomic import Entry
from .batch import Batch, SchemaChange, Stage, TableRows
from .checks import Held, Seen, Stored
from .conditions import Operation, decide
from .dbfile import (
    FORMAT,
    PARTITIONED,
    SYSTEM_TABLES,
    Limits,
    StoredTable,
    check_room,
    claim,
    failed,
    held_partitions,
    identity,
    open_file,
    release,
    stored_tables,
)
from .derived import Derived, derived_tables
from .gate import Gate
from .reads import one_line
from .rows import row_versions, write_rows
from .statements import count, run, transaction

_log = logging.getLogger("merganser.apply")

#: The steps of an apply, in order; tests stop the process at each.
STEPS = (
    "altering",
    "altered",
    "alter-committed",
    "alter-checkpointed",
    "begun",
    "deleted",
    "inserted",
    "quarantined",
    "held",
    "moved",
    "committed",
)

#: Readers who are in the writer's way (they have its memory, or its disk) get so long to end by themselves.
_SQUEEZED_S = 0.2

#: After so many operations, those that no record can ask for any more are dropped.
_FORGET_EVERY = 50_000

_FORGET_SUPERSEDED_SQL = """
UPDATE _merganser.tables SET superseded = superseded + ? -
    coalesce((SELECT puts FROM _merganser.positions AS p WHERE p.topic = ? AND p.partition = ?), 0)
WHERE topic = ?
"""


class Store:
    """One open replica file.

    StoreLocked if another process, or another Store of this one, has it; StoreFormat if it is no
    store of this format; WrongCluster if it follows another cluster or group.
    """

    def __init__(
        self,
        path: str | Path,
        cluster_id: str,
        group: str,
        limits: Limits | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.path = Path(path).resolve()
        self.limits = limits or Limits()
        self.group = group
        self._step = on_step
        self._gate = Gate()
        self._remembered = 0
        self._in_doubt = False
        claim(self.path)
        try:
            self._open(cluster_id, group)
        except BaseException as error:
            release(self.path)
            if isinstance(error, duckdb.Error):
                raise failed(self.path, error) from error
            raise

    # -- opening and closing -----------------------------------------------------------------

    def _open(self, cluster_id: str, group: str) -> None:
        self._identity = (cluster_id, group)
        if self.path.parent.is_dir() and not self.path.exists():
            check_room(self.path, self.limits, 0)
        self._con = open_file(self.path, self.limits)
        try:
            self._con.sql("SET GLOBAL enable_external_access = false")
            self._con.sql("SET GLOBAL lock_configuration = true")
            self._prepare(cluster_id, group)
            # Cursors for readers come from this one, which nothing else uses.
            self._root = self._con.cursor()
        except BaseException:
            self._con.close()
            raise

    def _prepare(self, cluster_id: str, group: str) -> None:
        """Make the system tables in a new file; refuse a file that is not ours."""
        names = {(s, t) for s, t in run(self._con, "SELECT schema_name, table_name FROM duckdb_tables()")}
        if not names:
            with transaction(self._con):
                self._con.execute(SYSTEM_TABLES).fetchall()
                run(self._con, "INSERT INTO _merganser.store VALUES (?, ?, ?)", [FORMAT, cluster_id, group])
            return
        stored_cluster, stored_group = identity(self._con, self.path)
        if stored_cluster != cluster_id:
            raise WrongCluster(str(self.path), stored_cluster, cluster_id)
        if stored_group != group:
            why = f"store {self.path} belongs to group {stored_group!r}, not {group!r}"
            raise UsageError(why).hinted(f"--group {stored_group}, or another --store")

    def probe(self) -> None:
        """A FatalException if DuckDB has given the open file up, which a reader's query may have brought about."""
        run(self._con, "SELECT 1")

    def reopen(self) -> None:
        """Close and open the file, so that DuckDB says what was committed. Reads in flight fail."""
        with self._gate.closed(grace_s=0):
            self._in_doubt = False
            self._con.close()
            self._root.close()
            try:
                self._open(*self._identity)
            except duckdb.Error as error:
                self._gate.end("the store failed, and could not be opened again")
                raise failed(self.path, error) from error

    def close(self) -> None:
        """Checkpoint what there is and release the file. Later reads fail, those in flight too."""
        self._gate.end("the replica is closed")
        try:
            with self._gate.closed(grace_s=1):
                self._root.close()
                self._con.close()
        finally:
            release(self.path)

    # -- what is in it -----------------------------------------------------------------------

    def tables(self) -> dict[str, StoredTable]:
        return stored_tables(self._con)

    def positions(self) -> dict[TopicPartition, Stored]:
        rows = run(
            self._con,
            "SELECT topic, partition, p.topic_id, t.partitions, next_offset, caught_up_ms, late_from, late_below,"
            " applied_offset, last_offset, digest, leader_epoch"
            " FROM _merganser.positions AS p JOIN _merganser.tables AS t USING (topic)",
        )
        return {
            TopicPartition(topic, p): Stored(
                id_,
                count,
                next_,
                caught_up,
                range(low, high),
                applied,
                None if last is None else Seen(last, digest, epoch),
            )
            for topic, p, id_, count, next_, caught_up, low, high, applied, last, digest, epoch in rows
        }

    def derived(self) -> dict[str, Derived]:
        """The tables in it that are no replicas."""
        return derived_tables(self._con)

    def held(self, partitions: Collection[TopicPartition]) -> list[Entry]:
        """The records of *partitions* that are held back, by place; what their keys say is not in the store."""
        return ledger.held(self._con, partitions)

    def settled(self, transactions: Collection[str]) -> set[str]:
        """Those of *transactions* that the store remembers to have decided on."""
        return ledger.decided(self._con, transactions)

    # -- changes -----------------------------------------------------------------------------

    def add_table(self, table: Table, columns: Sequence[tuple[str, str]], schema_version: int) -> None:
        """Make the SQL table of *table* with *columns* (name, SQL type); a no-op if the store has it."""
        stored = self.tables()
        if table.name in stored:
            return
        for other in stored:
            if other.lower() == table.name.lower():
                raise UsageError(f"tables {other!r} and {table.name!r} differ in case only: SQL cannot tell them apart")
        definitions = [f"{quote(name)} {sql}" for name, sql in columns]
        definitions += ["_partition INTEGER", "_offset BIGINT", "_timestamp TIMESTAMP WITH TIME ZONE"]
        with self._changing():
            run(self._con, f"CREATE TABLE {quote(table.name)} ({', '.join(definitions)})")
            self._con.execute(
                "INSERT INTO _merganser.tables VALUES (?, ?, ?, ?, ?, ?, 0, NULL)",
                [table.name, table.topic_id, table.partitions, list(table.key), table.key_encoding, schema_version],
            ).fetchall()
        self._checkpoint()

    def add_partitions(self, table: Table, starts: Position, late: Position) -> None:
        """Begin to follow partitions of *table*, each at its offset in *starts*. Below *late*: see :meth:`rejoin`."""
        self.begin_as({tp: Held(table.topic_id, n, n, range(n, late.get(tp, 0))) for tp, n in starts.items()})

    def begin_as(self, held: Mapping[TopicPartition, Held]) -> None:
        """Begin to follow partitions where another store began, whatever it has read since."""
        now = _now_ms()
        rows = [
            [*tp, each.topic_id, each.first, each.first, now, each.first, each.late.start, each.late.stop]
            for tp, each in held.items()
        ]
        with self._changing():
            sql = "INSERT INTO _merganser.positions VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL, 0, 0, 0, ?, ?, 0, 0, ?, ?)"
            self._con.executemany(sql, rows).fetchall()

    def begun(self) -> dict[TopicPartition, Held]:
        """Where each partition began, whether its table is made yet or not."""
        return held_partitions(self._con)

    def rejoin(self, late: Position) -> None:
        """These partitions were not read while others were: of a transaction with a record from here up to
        *late*, the rest may have been read before."""
        with self._changing():
            for tp, offset in late.items():
                sql = "UPDATE _merganser.positions SET late_from = next_offset, late_below = ?"
                run(self._con, f"{sql} WHERE topic = ? AND partition = ?", [offset, *tp])

    def drop_partitions(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget *partitions*: their rows, positions and all that is kept of them, in one transaction."""
        with self._transaction():
            for topic, partition in partitions:
                # What its puts superseded goes with it, so that the table's account still adds up.
                live = count(self._con, f"DELETE FROM {quote(topic)} WHERE _partition = {partition}")
                self._con.execute(_FORGET_SUPERSEDED_SQL, [live, topic, partition, topic]).fetchall()
                for system in PARTITIONED:
                    self._con.execute(
                        f"DELETE FROM _merganser.{system} WHERE topic = ? AND partition = ?", [topic, partition]
                    ).fetchall()

    def mark_stopped(self, table: str, why: str | None) -> None:
        """Write down why *table* does not go on; None when it does again."""
        with self._changing():
            self._con.execute("UPDATE _merganser.tables SET stopped = ? WHERE topic = ?", [why, table]).fetchall()

    def caught_up(self, partitions: Sequence[TopicPartition]) -> None:
        """Note that the store stands at the end of *partitions* now, though nothing came. Where the disk has no room
        the note waits: a replica without news goes on answering."""
        try:
            check_room(self.path, self.limits, 0)
        except StoreFull:
            return
        now = _now_ms()
        with self._transaction():
            for topic, partition in partitions:
                self._con.execute(
                    "UPDATE _merganser.positions SET caught_up_ms = ? WHERE topic = ? AND partition = ?",
                    [now, topic, partition],
                ).fetchall()

    def caught_up_at(self, times_ms: Mapping[TopicPartition, int]) -> None:
        """Note that the store stands where each partition ended at that time, whenever it came there."""
        with self._transaction():
            for tp, at_ms in times_ms.items():
                sql = "UPDATE _merganser.positions SET caught_up_ms = ? WHERE topic = ? AND partition = ?"
                run(self._con, sql, [at_ms, *tp])

    def apply(self, batch: Batch, confirm: Callable[[], object] = lambda: None) -> None:
        """Change everything that *batch* says, or nothing: what *confirm* raises prevents it. It is called
        before a schema changes and before the commit, so that what it waits for goes on meanwhile.

        StoreFull before anything is written if the disk has no room; any duckdb.Error leaves the
        outcome unknown: :meth:`reopen` and read :meth:`positions`.
        """
        self._make_room(batch.nbytes)
        if batch.changes:
            confirm()
        for change in batch.changes:
            self._change_schema(change)
        moves, operations = {tp: replace(move) for tp, move in batch.moves.items()}, list(batch.operations)
        try:
            self._write(batch, confirm)
        except duckdb.OutOfMemoryException as error:
            if self._in_doubt:
                raise
            _log.warning("no memory for a batch beside the readers (%s); interrupting them", one_line(error))
            # It was rolled back, so it can be tried again; what it noted in the batch is undone.
            batch.moves.update(moves)
            batch.operations[:] = operations
            with self._gate.closed(grace_s=_SQUEEZED_S):
                self._write(batch, confirm)

    def _write(self, batch: Batch, confirm: Callable[[], object]) -> None:
        plain = [None if stage.units else [part.rows() for part in stage.tables] for stage in batch.stages]
        with self._transaction():
            self._step("begun")
            for stage, tables in zip(batch.stages, plain, strict=True):
                for rows in self._judged(stage, batch) if tables is None else tables:
                    write_rows(self._con, rows, self._step)
            ledger.quarantine(self._con, batch.poison)
            self._step("quarantined")
            ledger.hold(self._con, batch.held)
            ledger.release(self._con, batch.released)
            self._remember(batch.operations)
            self._step("held")
            self._move(batch)
            confirm()
            self._step("moved")
        self._step("committed")

    def _judged(self, stage: Stage, batch: Batch) -> list[TableRows]:
        """The rows of *stage*, those left out that its conditions and operation ids forbid. What that
        comes to is noted in *batch*, and written down."""
        entries = [entry for unit in stage.units for entry in unit.entries]
        known = ledger.known(self._con, entries)
        known += [op for op in batch.operations if op.kind == "op"]  # of the stages before: not written down yet
        verdicts = decide(stage.units, row_versions(self._con, stage), known, stage.bad)
        without: dict[str, list[int]] = defaultdict(list)
        for verdict in verdicts:
            batch.operations += verdict.operations
            if not verdict.applies:
                for entry in verdict.unit.rows:
                    without[entry.place.partition.topic].append(stage.numbers[entry.place])
                    if entry.place not in stage.bad:
                        batch.moves[entry.place.partition].take_off(entry.value is None, verdict.repeats)
        ledger.reject(self._con, verdicts, stage.bad)
        return [part.rows(without.get(part.table, ())) for part in stage.tables]

    def _remember(self, operations: Sequence[Operation]) -> None:
        ledger.remember(self._con, operations)
        self._remembered += len(operations)
        if self._remembered >= _FORGET_EVERY:
            ledger.forget(self._con)
            self._remembered = 0

    def _move(self, batch: Batch) -> None:
        moved = ledger.move(self._con, batch.moves, _now_ms())
        if moved != len(batch.moves):
            raise StoreFailed(str(self.path), f"{len(batch.moves)} partitions to move, {moved} in the store")

    def _change_schema(self, change: SchemaChange) -> None:
        """ALTER alone, then a checkpoint. No new reads meanwhile; old ones are interrupted in the end.

        One open read would make the checkpoint fail, and rows after an ALTER without one are what
        DuckDB has lost before (FAILURES 25).
        """
        with self._gate.closed(grace_s=self.limits.open_reads_s):
            self._step("altering")
            with self._transaction():
                for step in change.steps:
                    run(self._con, step.sql(quote(change.table)))
                self._step("altered")
                self._con.execute(
                    "UPDATE _merganser.tables SET schema_version = ? WHERE topic = ?", [change.version, change.table]
                ).fetchall()
            self._step("alter-committed")
            self._checkpoint()
            self._step("alter-checkpointed")

    # -- reading -----------------------------------------------------------------------------

    @contextmanager
    def reading(self, timeout_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of a reader's own, which sees one committed state per transaction.

        Waits only while a schema change or a reopen is under way, for *timeout_s* at most.
        """
        with self._gate.entered(timeout_s) as gate:
            cursor = self._root.cursor()
            gate.add(cursor)
            try:
                yield cursor
            finally:
                gate.discard(cursor)
                cursor.close()

    # -- inside ------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction(self._con):
            yield
            self._in_doubt = True
        self._in_doubt = False

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A transaction beside the batches, which look for room themselves. StoreFull."""
        self._make_room(0)
        with self._transaction():
            yield

    def _checkpoint(self) -> None:
        run(self._con, "CHECKPOINT")

    def _make_room(self, nbytes: int) -> None:
        """StoreFull, unless it is the readers who take the room: their spilled queries are interrupted."""
        try:
            check_room(self.path, self.limits, nbytes)
        except StoreFull:
            with self._gate.closed(grace_s=_SQUEEZED_S):
                check_room(self.path, self.limits, nbytes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
