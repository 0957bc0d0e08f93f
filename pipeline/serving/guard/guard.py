"""The guard: the one way from a door to the store of a node.

A replica's store can be read by the process that writes it only, so clients' SQL runs beside the apply loop.
What keeps that safe, in this order:

1. a bound on how long SQL may be, and how deep (``checked.py``), before anything parses it;
2. exactly one statement, of type SELECT or EXPLAIN;
3. the names in it: known functions and, of who may not read all, granted tables (``shape.py``, ``rules.py``);
4. a transaction that is READ ONLY: DuckDB takes ``WITH d AS (DELETE … RETURNING *) SELECT`` for a SELECT;
5. an instance that is locked down: no files, no network, no extensions, no settings (``Store``);
6. bounds on time, memory, rows and bytes, and on how many run, wait and are read at once.

Invariants
- What was checked is what runs: the same text, of one statement.
- No answer keeps the store longer than its query runs at full speed (``answer.py``); and all queries together
  do not put off its checkpoints for ever (``pause.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic

import duckdb
import pyarrow as pa

from ....consumers.dbfile import size_of, wal_of
from ....consumers.reads import Goal
from ....consumers.replica import Replica
from ....schemas.errors import BadQuery, QueryCancelled, TooBusy
from ....schemas.kafka import Deadline
from .answer import Answer, Running, told
from .ask import Ask, ServingLimits
from .catalog import ServedTable, arrow_schema, plain_names, served_tables
from .checked import Checked, Checker
from .describe import Described, describe
from .pause import Pause
from .places import Places
from .rules import grant, shown
from .spool import Room
from .watch import Watch

#: How long the end of a guard waits for queries that cannot be interrupted where they are.
_CLOSING_S = 10.0

#: Rows that DuckDB hands over at once. However wide they are, all of them are in memory, and not in DuckDB's limit.
_BATCH_ROWS = 8_192


@dataclass
class Counts:
    """What happened so far, for metrics. *running*, *waiting* and *open* are of now."""

    asked: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    running: int = 0
    waiting: int = 0
    open: int = 0
    pauses: int = 0
    paused_s: float = 0.0


class Guard:
    """Runs clients' SQL on *replica*, within *limits*. Safe to share between threads; close it before the replica."""

    def __init__(self, replica: Replica, limits: ServingLimits | None = None) -> None:
        self.replica = replica
        self.limits = limits or ServingLimits()
        self._checker = Checker(self.limits)
        pause = Pause(self.limits.wal, self.limits.query_s)
        wal = partial(size_of, wal_of(replica.path))
        self._places = Places(self.limits.running, self.limits.queued, pause, wal)
        self._room = Room(replica.path.parent, self.limits, replica.limits.head_room)
        self._watch = Watch(self.limits.growth)
        self._changed = threading.Condition()
        self._answers: set[Answer] = set()
        self._asking = 0
        self._counts = Counts()
        self._closed = False

    # -- for the doors -----------------------------------------------------------------------

    def ask(self, ask: Ask, *, tables: Collection[str] | None = None, gone: threading.Event | None = None) -> Answer:
        """The answer to *ask*, of who may read *tables* (None: all, ``_merganser`` too). Close it. Once *gone* is set,
        nobody waits for it any more: the query is cancelled.

        BadQuery, NotAllowed, TooBusy, TooLarge, QueryTimeout, QueryCancelled, and the errors of ``Replica.query``.
        """
        began_s = monotonic()
        deadline = Deadline(min(ask.timeout, self.limits.query_s))
        self._enter()
        try:
            answer = self._answer(ask, tables, deadline, gone or threading.Event())
        except BaseException as error:
            turned_away = isinstance(error, (BadQuery, TooBusy))
            self._note(began_s, refused=turned_away, failed=not turned_away)
            raise
        self._note(began_s, answered=True)
        return answer

    def describe(self, ask: Ask, *, tables: Collection[str] | None = None) -> Described:
        """What *ask* would give, and what parameters it has, without running it. The errors of :meth:`ask`."""
        began_s = monotonic()
        deadline = Deadline(min(ask.timeout, self.limits.query_s))
        self._enter()
        try:
            checked = self._checker.check(ask.sql, tables is None)
            goal = self.replica.goal(ask.sql, "eventual", None, None, deadline)
            running = self._run(goal, checked, tables, deadline, threading.Event())
            try:
                return describe(running.cursor, checked.statement, checked.sql)
            except Exception as error:
                raise running.error(error) from error
            finally:
                self._left(running)
        finally:
            self._note(began_s)

    def tables(self, tables: Collection[str] | None = None) -> list[ServedTable]:
        """The tables that may be read, with their columns, those of ``_merganser`` after the others."""
        with self.replica.reading() as cursor:
            found = served_tables(cursor)
        return [table for table in found if tables is None or table.granted(tables)]

    def arrow_schemas(self, tables: Collection[ServedTable]) -> dict[ServedTable, pa.Schema]:
        """The Arrow schema of each of *tables*."""
        with self.replica.reading() as cursor:
            return {table: arrow_schema(cursor, table) for table in tables}

    def counts(self) -> Counts:
        """A copy."""
        with self._changed:
            now = Counts(**vars(self._counts))
            now.open = len(self._answers)
        now.running, now.waiting = self._places.used, self._places.waiting
        now.pauses, now.paused_s = self._places.paused
        return now

    def close(self) -> None:
        """Stop all queries, and refuse new ones."""
        with self._changed:
            self._closed = True
            answers = list(self._answers)
        why = QueryCancelled("since the node stops")
        self._watch.stop(why)
        for answer in answers:
            answer.stop(why)
            answer.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._asking and not self._places.used, _CLOSING_S)
        self._watch.close()
        self._checker.close()

    # -- inside ------------------------------------------------------------------------------

    def _enter(self) -> None:
        with self._changed:
            self._counts.asked += 1
            if self._closed:
                raise QueryCancelled("since the node stops")
            if self._asking + len(self._answers) >= self.limits.answers:
                self._counts.refused += 1
                raise TooBusy(f"{len(self._answers)} answers are being read, {self._asking} asked for")
            self._asking += 1

    def _note(self, began_s: float, answered: bool = False, refused: bool = False, failed: bool = False) -> None:
        with self._changed:
            self._asking -= 1
            self._counts.seconds += monotonic() - began_s
            self._counts.answered += answered
            self._counts.refused += refused
            self._counts.failed += failed
            self._changed.notify_all()

    def _answer(self, ask: Ask, tables: Collection[str] | None, deadline: Deadline, gone: threading.Event) -> Answer:
        checked = self._checker.check(ask.sql, tables is None)
        goal = self.replica.goal(checked.query, ask.level, ask.after, ask.max_staleness, deadline)
        self.replica.reach(goal, deadline)  # who waits for freshness takes nobody's place
        running = self._run(goal, checked, tables, deadline, gone)
        try:
            # What a relation's to_arrow_reader() does, without binding it three times; tests/engine pins it.
            values = ask.params if ask.params is None or isinstance(ask.params, dict) else list(ask.params)
            result = running.cursor._submit(checked.sql, values, "stream", _BATCH_ROWS)
            types = tuple(str(column[1]) for column in result.description)
            reader = result.arrow_reader()
        except Exception as error:
            self._left(running)
            raise running.error(error) from error
        read, applied = running.reading.position, running.reading.applied
        places = (shown(read, tables, ask.after), shown(applied, tables, ask.after))
        answer = Answer(running, reader, types, places, self._room, self.limits, self._left, self._forget)
        with self._changed:
            self._answers.add(answer)
        self._watch.keep(answer)
        answer.begin()
        return answer

    def _run(
        self, goal: Goal, checked: Checked, tables: Collection[str] | None, deadline: Deadline, gone: threading.Event
    ) -> Running:
        """*checked*, about to run: in its place, in a transaction, its tables granted. To be :meth:`_left`."""
        self._places.take(Deadline(min(deadline.left_s, self.limits.queue_s)))
        try:
            with ExitStack() as stack:
                reading = stack.enter_context(self.replica.reading_at(goal, deadline))
                grant(checked.shape, self.replica.path.stem, tables, partial(plain_names, reading.cursor))
                until_s = monotonic() + deadline.left_s
                running = Running(reading, stack.pop_all(), deadline.timeout_s, until_s, gone)
        except duckdb.Error as error:
            self._places.give()
            raise told(error) from error
        except BaseException:
            self._places.give()
            raise
        self._watch.running(running)
        return running

    def _left(self, running: Running) -> None:
        """*running* does not read the store any more."""
        try:
            running.leave()
        finally:
            self._watch.left(running)
            self._places.give()
            with self._changed:
                self._changed.notify_all()

    def _forget(self, answer: Answer) -> None:
        self._watch.drop(answer)
        with self._changed:
            if answer in self._answers:
                self._answers.remove(answer)
                self._counts.rows += answer.rows
                self._counts.bytes += answer.nbytes
                self._changed.notify_all()
