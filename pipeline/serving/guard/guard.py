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
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import NamedTuple

import duckdb
import pyarrow as pa

from ....consumers.dbfile import size_of, wal_of
from ....consumers.reads import Goal
from ....consumers.replica import Replica
from ....schemas.errors import BadQuery, MerganserError, QueryCancelled, TooBusy
from ....schemas.kafka import Deadline
from .answer import Answer, Running, fatal, told
from .ask import Ask, ServingLimits
from .catalog import ServedTable, arrow_schema, plain_names, served_tables
from .checked import Checked, Checker
from .describe import Described, describe
from .pause import Pause
from .places import Places
from .rules import grant, sendable
from .spool import Room
from .telling import heard, shown, waited_for
from .watch import Watch

#: How long the end of a guard waits for queries that cannot be interrupted where they are.
_CLOSING_S = 10.0

#: One of so many answers is kept for others than the user who has the rest.
_KEPT_FOR_OTHERS = 4

#: Rows that DuckDB hands over at once. However wide they are, all of them are in memory, and not in DuckDB's limit.
_BATCH_ROWS = 8_192


class Who(NamedTuple):
    """Who asks: *user* by name, None where nobody has one; *tables* that may be read, None for all."""

    user: str | None
    tables: Collection[str] | None


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
        self._asking: Counter[str | None] = Counter()
        self._counts = Counts()
        self._closed = False

    # -- for the doors -----------------------------------------------------------------------

    def ask(
        self,
        ask: Ask,
        *,
        tables: Collection[str] | None = None,
        gone: threading.Event | None = None,
        user: str | None = None,
    ) -> Answer:
        """The answer to *ask*, of *user*, who may read *tables* (None: all, ``_merganser`` too). Close it. Once *gone*
        is set, nobody waits for it any more: the query is cancelled. Users who are named share what there is.

        BadQuery, NotAllowed, TooBusy, TooLarge, QueryTimeout, QueryCancelled, and the errors of ``Replica.query``.
        """
        began_s = monotonic()
        deadline = Deadline(min(ask.timeout, self.limits.query_s))
        self._enter(user)
        try:
            answer = self._answer(ask, Who(user, tables), deadline, gone or threading.Event())
        except BaseException as error:
            turned_away = isinstance(error, (BadQuery, TooBusy))
            self._note(user, began_s, refused=turned_away, failed=not turned_away)
            if isinstance(error, MerganserError):
                raise heard(error, tables) from error.__cause__
            raise
        self._note(user, began_s, answered=True)
        return answer

    def describe(self, ask: Ask, *, tables: Collection[str] | None = None, user: str | None = None) -> Described:
        """What *ask* would give, and what parameters it has, without running it. The errors of :meth:`ask`."""
        began_s = monotonic()
        deadline = Deadline(min(ask.timeout, self.limits.query_s))
        self._enter(user)
        try:
            checked = self._checked(ask, tables)
            goal = self.replica.goal(ask.sql, "eventual", None, None, deadline)
            running = self._run(goal, checked, Who(user, tables), deadline, threading.Event())
            try:
                described = describe(running.cursor, checked.statement, checked.sql)
                sendable(zip(described.schema.names, described.types, strict=True))
                return described
            except Exception as error:
                raise running.error(error) from error
            finally:
                self._left(running)
        except MerganserError as error:
            raise heard(error, tables) from error.__cause__
        finally:
            self._note(user, began_s)

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
            self._changed.wait_for(lambda: not self._asking.total() and not self._places.used, _CLOSING_S)
        self._watch.close()
        self._checker.close()

    # -- inside ------------------------------------------------------------------------------

    def _enter(self, user: str | None) -> None:
        most = self.limits.answers
        with self._changed:
            self._counts.asked += 1
            if self._closed:
                raise QueryCancelled("since the node stops")
            asking, reading = self._asking.total(), len(self._answers)
            mine = self._asking[user] + sum(answer.user == user for answer in self._answers)
            full = asking + reading >= most
            if full or (user is not None and mine >= max(1, most - most // _KEPT_FOR_OTHERS)):
                self._counts.refused += 1
                raise TooBusy(f"{reading} answers are being read, {asking} asked for" + ("" if full else ", by you"))
            self._asking[user] += 1

    def _note(
        self, user: str | None, began_s: float, answered: bool = False, refused: bool = False, failed: bool = False
    ) -> None:
        with self._changed:
            self._asking[user] -= 1
            self._asking += Counter()  # drops those who ask nothing
            self._counts.seconds += monotonic() - began_s
            self._counts.answered += answered
            self._counts.refused += refused
            self._counts.failed += failed
            self._changed.notify_all()

    def _checked(self, ask: Ask, tables: Collection[str] | None) -> Checked:
        checked = self._checker.check(ask.sql, tables is None)
        # Before anything is waited for, so that nobody hears what becomes of others' tables. Whether a name of the
        # query's own is a table's too is seen in the state that is read.
        grant(checked.shape, self.replica.path.stem, tables, tuple)
        return checked

    def _answer(self, ask: Ask, who: Who, deadline: Deadline, gone: threading.Event) -> Answer:
        checked = self._checked(ask, who.tables)
        after = waited_for(ask.after, who.tables)
        goal = self.replica.goal(checked.query, ask.level, after, ask.max_staleness, deadline)
        self.replica.reach(goal, deadline)  # who waits for freshness takes nobody's place
        running = self._run(goal, checked, who, deadline, gone)
        try:
            # What a relation's to_arrow_reader() does, without binding it three times; tests/engine pins it.
            values = ask.params if ask.params is None or isinstance(ask.params, dict) else list(ask.params)
            result = running.cursor._submit(checked.sql, values, "stream", _BATCH_ROWS)
            types = tuple(str(column[1]) for column in result.description)
            sendable((column[0], type_) for column, type_ in zip(result.description, types, strict=True))
            reader = result.arrow_reader()
        except Exception as error:
            why = running.error(error)
            self._left(running)
            raise why from error
        read, applied = running.reading.position, running.reading.applied
        places = (shown(read, who.tables, ask.after), shown(applied, who.tables, ask.after))
        answer = Answer(running, reader, types, places, self._room, self.limits, self._left, self._forget)
        with self._changed:
            self._answers.add(answer)
        self._watch.keep(answer)
        answer.begin()
        return answer

    def _run(self, goal: Goal, checked: Checked, who: Who, deadline: Deadline, gone: threading.Event) -> Running:
        """*checked*, about to run: in its place, in a transaction, its tables granted. To be :meth:`_left`."""
        self._places.take(Deadline(min(deadline.left_s, self.limits.queue_s)), who.user)
        try:
            with ExitStack() as stack:
                reading = stack.enter_context(self.replica.reading_at(goal, deadline))
                grant(checked.shape, self.replica.path.stem, who.tables, partial(plain_names, reading.cursor))
                until_s = monotonic() + deadline.left_s
                running = Running(reading, stack.pop_all(), deadline.timeout_s, until_s, gone, who.user)
        except duckdb.Error as error:
            self._places.give(who.user)
            if fatal(error):
                self.replica.suspect()
            raise told(error) from error
        except BaseException:
            self._places.give(who.user)
            raise
        self._watch.running(running)
        return running

    def _left(self, running: Running) -> None:
        """*running* does not read the store any more."""
        try:
            running.leave()
        finally:
            if running.failed:
                self.replica.suspect()
            self._watch.left(running)
            self._places.give(running.user)
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
