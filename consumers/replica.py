"""Replica: a store, the loop that keeps it up with the log, and reads at the freshness asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from ..schemas.avro import key_fields
from ..schemas.errors import (
    LogTruncated,
    LogUnavailable,
    MerganserError,
    NotFreshEnough,
    NotHeld,
    StoreError,
    TableStopped,
    TopicRecreated,
    UnknownTable,
    UsageError,
)
from ..schemas.kafka import Deadline, OneProcess
from ..schemas.position import Position, TopicPartition
from .apply import Applier, BatchLimits
from .asked import Level, Params, check_level, check_params
from .dbfile import Limits, stored_tables
from .derived import derived_tables, same_name
from .follow import Follow
from .log import Log, check_group
from .lookup import row_of
from .meter import Times
from .outcome import Outcome, Written, question, settle
from .progress import Progress
from .reads import Goal, Reading, parse, positions, query_error, read_error, run
from .result import Result
from .staleness import Samples
from .statements import parsed
from .store import Store

_log = logging.getLogger(__name__)

#: How long a read that is late already looks for the reason.
_ASK_S = 1.0

#: Between two looks at a log that ends before what is applied.
_AGAIN_S = 0.05

#: Why tables stop whose positions are of a log that is no longer there.
_ANOTHER_LOG = (TopicRecreated, LogTruncated)

_FAILED = "the store failed and is being reopened: run the query again"


class Replica:
    """Tables of the log, kept exactly once in the DuckDB file *path*, applied in the background.

    *tables* are followed whole, unless *split*: then the members of *group* divide their partitions.
    *accept_partial* allows a first start above offset 0, where older rows are no longer in the log.

    Reads are safe from any thread, and wait for no apply; in asyncio call them through
    ``asyncio.to_thread``. Not across a fork: open one in each process, each with a file of its own.

    StoreLocked, StoreFormat, WrongCluster, UnknownTable, UnsupportedFormat, LogUnavailable, or a
    TableStopped if none of the tables can go on.
    """

    def __init__(
        self,
        path: str | Path,
        log: Log,
        group: str,
        tables: Sequence[str],
        *,
        split: bool = False,
        accept_partial: bool = False,
        limits: Limits | None = None,
        batches: BatchLimits | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        if isinstance(tables, str) or not tables:
            raise UsageError("tables is a list of one table name or more")
        check_group(group)
        self._log = log
        if not Path(path).exists():
            for table in tables:
                log.table(table)  # refused before there is a file
        self._process = OneProcess("this replica")
        self._progress = Progress()
        self._samples = Samples()
        self._store = Store(path, log.cluster_id, group, limits, on_step)
        try:
            self.unfollowed = tuple(sorted(set(self._store.tables()) - set(tables)))
            """Tables that the store holds beside *tables*: their rows stay as they are."""
            if self.unfollowed:
                beside = ", ".join(self.unfollowed)
                _log.warning("the store holds %s too, not followed: rows there stay as they are", beside)
            follow = Follow(log, self._store, list(dict.fromkeys(tables)), accept_partial)
            reader = log.reader(group)
            self._applier = Applier(log, self._store, follow, reader, self._progress, batches or BatchLimits())
            try:
                self._applier.start(split)
            except BaseException:
                reader.close()
                raise
        except BaseException:
            self._store.close()
            raise
        self._follow = follow
        self._closed = False
        self.path, self.cluster_id, self.group = self._store.path, log.cluster_id, group
        self.split = split
        self.limits = self._store.limits

    # -- reads -------------------------------------------------------------------------------

    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        level: Level = "eventual",
        after: Position | str | None = None,
        max_staleness: float | None = None,
        timeout: float = 30.0,
    ) -> Result:
        """The rows of one SELECT, of one committed state; ``result.position`` says which.

        *level*: ``eventual`` reads what is here, ``session`` what any earlier query here has shown at
        least, ``bounded`` lacks nothing that was acknowledged more than *max_staleness* seconds before,
        ``strong`` has every write acknowledged before the call. *after* is a token (``producer.flush()``,
        ``tx.position``): the state includes that write. All wait *timeout* seconds at most, and up to a second
        more to find out what they hang on.

        BadQuery, NotFreshEnough, NotHeld, TableStopped.
        """
        check_params(params)
        statement = parse(sql)
        deadline = Deadline(timeout)
        goal = self.goal(sql, level, after, max_staleness, deadline)
        try:
            with self.reading_at(goal, deadline) as reading:
                return run(reading, statement, params)
        except duckdb.FatalException as error:
            self.suspect()
            raise StoreError(_FAILED) from error
        except duckdb.Error as error:  # before the query itself began
            raise query_error(error) from error

    def get(
        self,
        table: str,
        key: Mapping[str, Any],
        *,
        level: Level = "eventual",
        after: Position | str | None = None,
        max_staleness: float | None = None,
        timeout: float = 30.0,
    ) -> dict[str, Any] | None:
        """The row of *key* with ``_partition``, ``_offset`` and ``_timestamp``; None if there is none.

        Arguments and errors as in :meth:`query`; TableStopped of a table that had stopped when this replica began.
        """
        known = self._follow.known.get(table)
        if known is None:
            if table in self._progress.stopped:  # at the start already, so that nothing is known of its key
                raise self._progress.stopped[table]
            raise UnknownTable(table, hint="this replica follows " + ", ".join(sorted(self._follow.tables)))
        if not known.keyed:
            raise UsageError(f"table {table!r} has no key; use query")
        sql, params = row_of(table, key, {f.name: f.type.sql for f in key_fields(known)})
        result = self.query(sql, params, level=level, after=after, max_staleness=max_staleness, timeout=timeout)
        rows = result.rows()
        return dict(zip(result.columns, rows[0], strict=True)) if rows else None

    @contextmanager
    def reading(self, timeout: float = 30.0) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside one read-only transaction: all it reads is of one state.

        While it is open the store's WAL grows. ReadInterrupted when a change of a schema cannot wait any longer.
        """
        self._process.check()
        with self._store.reading(timeout) as cursor:
            try:
                cursor.execute(parsed("BEGIN TRANSACTION READ ONLY")).fetchall()
                yield cursor
            except duckdb.FatalException as error:
                self.suspect()
                raise StoreError(_FAILED) from error
            except (duckdb.Error, OSError) as error:
                mine = read_error(self.path, error)
                if mine is None:
                    raise
                raise mine from error

    def suspect(self) -> None:
        """A query met a fatal error: have the apply loop look at the store, and open it anew if it has to."""
        self._applier.suspect()

    # -- the steps of a query, for who serves them ---------------------------------------------

    def goal(
        self,
        sql: str,
        level: Level,
        after: Position | str | None,
        max_staleness: float | None,
        deadline: Deadline,
    ) -> Goal:
        """What a read of *sql*, as fresh as is said, has to reach. The log is asked where it must be."""
        self._process.check()
        level = check_level(level, max_staleness)
        token = self._token(after)
        floor, target = self._progress.floor, token
        if level == "strong":
            target = target | self._sample(self._needed(sql, deadline), deadline)
        elif max_staleness is not None:
            target = target | self._recent_ends(self._needed(sql, deadline), max_staleness, deadline)
        return Goal("after" if level == "eventual" and token else level, target, floor)

    def reach(self, goal: Goal, deadline: Deadline) -> None:
        """Wait until *goal* is reached; the errors of :meth:`query`."""
        self._wait(goal.applied, deadline, goal.level, goal.read)

    @contextmanager
    def reading_at(self, goal: Goal, deadline: Deadline) -> Iterator[Reading]:
        """A cursor inside a read-only transaction on a state that reaches *goal*; may be left in another thread."""
        while True:
            self.reach(goal, deadline)
            with self._store.reading(deadline.left_s) as cursor:
                cursor.execute(parsed("BEGIN TRANSACTION READ ONLY")).fetchall()
                reading = Reading(cursor, *positions(cursor))
                # Between the wait and the read a rebalance, or a reopen, may have taken partitions back.
                if reading.applied.reaches(goal.applied) and reading.position.reaches(goal.read):
                    self._progress.served(reading.position)
                    yield reading
                    return
            if deadline.passed:
                raise NotFreshEnough(goal.level, deadline.timeout_s, "the store went back while it was read")

    def outcome(self, of: object, timeout: float = 30.0) -> Outcome:
        """What became *of* a transaction, an id of a transaction or an operation, or a write.

        Waits until this replica is far enough to know, *timeout* seconds at most; ``in-doubt`` if it is
        not by then. NotHeld if it does not follow what was written to, UsageError if *of* is none of these,
        or a write that was not acknowledged.
        """
        self._process.check()
        asked, deadline = question(of), Deadline(timeout)
        with self._store.reading(deadline.left_s) as cursor:
            known = settle(cursor, asked, caught_up=False)
        if known is not None:
            return known
        try:
            target = self._token(asked.position)
            if not target:  # an id alone says nothing of where: what was acknowledged by now decides, in all tables
                for stopped in self._progress.stopped.values():
                    raise stopped
                target = self._sample(list(self._progress.read), deadline)
            self._wait(target, deadline, "outcome")
        except (NotFreshEnough, LogUnavailable, TableStopped) as error:
            return Outcome("in-doubt", str(error))
        with self._store.reading(max(1.0, deadline.left_s)) as cursor:
            return settle(cursor, asked, caught_up=True) or Outcome("in-doubt")

    @property
    def position(self) -> Position:
        """How far the log is applied: a token below it is reached. It stops before the first record whose
        transaction is not whole yet."""
        return self._progress.applied

    @property
    def read_position(self) -> Position:
        """Below it every record is accounted for, those that are held back too: what results carry."""
        return self._progress.read

    @property
    def commits(self) -> Times:
        """How long the commits of the apply loop took so far."""
        return self._applier.commits.times

    @property
    def error(self) -> BaseException | None:
        """What ended the apply loop, None while it runs."""
        return self._progress.error

    @property
    def stopped(self) -> dict[str, TableStopped]:
        """The tables that cannot go on, and why."""
        return self._progress.stopped

    @property
    def waiting_for(self) -> str | None:
        """What holds the apply loop up for now, in a line; None when nothing does."""
        return self._progress.held_up_by

    def wait(self, target: Position | str, timeout: float = 30.0) -> None:
        """Until *target* is applied; the errors of :meth:`query`."""
        self._wait(self._token(target), Deadline(timeout), "after")

    # -- inside ------------------------------------------------------------------------------

    def _token(self, after: object) -> Position:
        """The position that *after* is, or spells. UsageError if it is none; TableStopped if it is of a table whose log
        is another one now: which of the two a token is of cannot be told."""
        if isinstance(after, str):
            after = Position.parse(after)
        if after is None:
            return Position()
        if not isinstance(after, Mapping):
            way = "give its .position" if isinstance(after, Written) else "flush() and .position give one"
            raise UsageError(f"{after!r} is no token: {way}")
        token = Position(after)
        for stopped in self._progress.stopped.values():
            if isinstance(stopped, _ANOTHER_LOG) and token.of({stopped.table}):
                raise stopped
        return token

    def _needed(self, sql: str, deadline: Deadline) -> list[TopicPartition]:
        """The partitions whose end a strong read of *sql* waits for: all, unless it names tables only.

        NotHeld if it reads a table that the store has and this replica does not follow.
        """
        with self._store.reading(deadline.left_s) as cursor:
            try:
                names = cursor.get_table_names(sql)
            except duckdb.Error:
                names = set()  # the query itself will say what is wrong with it
            stored = {name.casefold(): name for name in stored_tables(cursor)}
            others = [name for name in names if name.casefold() not in stored]
            derived = derived_tables(cursor) if others else {}
            frozen = next(filter(None, (same_name(name, derived) for name in others)), None)
            if frozen is not None:
                raise NotHeld(f"table {frozen!r}, which is derived and not kept up")
            names = {stored.get(name.casefold(), name) for name in names}  # SQL's names do not differ by case
            unfollowed = names & set(stored.values()) - self._follow.names
        if unfollowed:
            raise NotHeld(f"table {min(unfollowed)!r}")
        held = self._progress.read
        return [tp for tp in held if tp.topic in names] if names and names <= self._follow.names else list(held)

    def _wait(self, target: Position, deadline: Deadline, level: str, floor: Position | None = None) -> None:
        """Until *target* is applied, and *floor* read. When that takes too long, what it hangs on is told."""
        try:
            self._progress.wait(target, deadline.left_s, level, floor)
        except NotFreshEnough as late:
            try:
                behind = self._progress.read.behind(target)
                hanging = self._log.open_transactions(list(behind), _ASK_S) if behind else []
            except LogUnavailable:
                hanging = []
            if not hanging:
                raise
            told = "; ".join(map(str, hanging))
            raise NotFreshEnough(late.level, deadline.timeout_s, f"{late.behind}; {told}", lacks=late.lacks) from None

    def _sample(self, partitions: Collection[TopicPartition], deadline: Deadline, level: str = "strong") -> Position:
        """The log's ends, asked for now. TableStopped if they say nothing of what the store has."""
        while True:
            self._refuse_stopped(partitions)
            at_s, applied = time.monotonic(), self._progress.applied
            ends = self._log.ends(partitions, deadline.left_s)
            before = [tp for tp in partitions if ends.get(tp, 0) < applied.get(tp, 0)]
            if not before:
                self._samples.note(at_s, ends)
                return ends
            # Not the log that was applied, or an answer of long ago: the loop finds out which.
            self._applier.look_soon()
            if deadline.passed:
                why = f"the log says that {before[0]} ends at {ends.get(before[0], 0)}, below what is applied"
                raise NotFreshEnough(level, deadline.timeout_s, why)
            time.sleep(min(_AGAIN_S, deadline.left_s))

    def _refuse_stopped(self, partitions: Collection[TopicPartition]) -> None:
        """TableStopped if one of *partitions* is not followed any more: that it lacks nothing cannot be proven, even
        if the log's end is not beyond it."""
        stopped = self._progress.stopped
        for tp in partitions if stopped else ():
            if tp.topic in stopped:
                raise stopped[tp.topic]

    def _recent_ends(
        self, partitions: Collection[TopicPartition], max_staleness: float, deadline: Deadline
    ) -> Position:
        """Ends sampled at most *max_staleness* seconds before this call, or in it, which are applied."""
        self._refuse_stopped(partitions)
        since_s = time.monotonic() - max_staleness
        ends = self._samples.proof(partitions, self._progress.applied, since_s)
        if ends is None:
            ends = self._sample(partitions, deadline, "bounded")
            self._wait(ends, deadline, "bounded")
        return ends

    def close(self) -> None:
        """Stop applying and close the file. What was not applied yet is read again next time."""
        if self._closed:
            return
        self._closed = True
        self._applier.stop()
        self._progress.fail(MerganserError("the replica is closed"))
        self._store.close()

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
