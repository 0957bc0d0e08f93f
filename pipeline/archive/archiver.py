"""Archiver: read → close a segment (rows, bytes, age) → publish it → report the offset.

One thread owns the reader and decides everything; one worker encodes, uploads and publishes.

Invariants
- What is archived is what the chains say, nothing else: after any failure, here or in another archiver of the
  same topics, a partition begins again where its chain ends.
- Segments of a partition are published in the order they were closed.
- Memory is bounded: open segments by ``SegmentLimits.total_bytes``, and two closed ones on their way.
- The loop never ends in silence: its error reaches who waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import cast

from ...consumers.checks import Seen, digest
from ...consumers.chunk import WholeChunk
from ...consumers.log import Poll, Problem, Reader
from ...consumers.patience import Patience
from ...consumers.progress import Progress
from ...schemas.errors import (
    ArchiveUnavailable,
    LogError,
    TableStopped,
    TopicRecreated,
    UnknownTable,
    UnsupportedFormat,
    UsageError,
)
from ...schemas.position import Position, TopicPartition
from ..loading.ledger import LEDGER
from .archive import Archive
from .outbox import Outbox
from .publisher import Course, Publisher
from .retention import RetentionWatch, Risk
from .rolling import OpenSegment, runs
from .segments import SegmentLimits
from .sources import Source, Sources

_log = logging.getLogger("merganser.archive")

GROUP = "merganser-archive"

_POLL_RECORDS = 10_000
_REPORT_S, _LOOK_S, _RETENTION_S = 1.0, 5.0, 30.0


class Archiver:
    """Keeps *archive* up with *log*, between ``start`` and ``stop``; or use it in a ``with``.

    *tables* are names, or None for all that the log has or gets. *until* closes segments at once that reach
    it. *accept_gap*: where the log has lost what was not archived, write that down and go on.

    WrongArchive, UnknownTable, LogUnavailable, ArchiveUnavailable, or a TableStopped if none can go on.
    """

    def __init__(
        self,
        log: Source,
        archive: Archive,
        tables: Sequence[str] | None,
        *,
        group: str = GROUP,
        limits: SegmentLimits | None = None,
        until: Position | None = None,
        accept_gap: bool = False,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        if isinstance(tables, str) or tables == []:
            raise UsageError("tables is a list of one table name or more, or None for all")
        self._log, self._archive = log, archive
        self._limits = limits or SegmentLimits()
        self._until = until or Position()
        self._publisher = Publisher(log, archive, on_step)
        names = None if tables is None else list(dict.fromkeys(tables))
        self._sources = Sources(log, archive, self._publisher, names, accept_gap)
        self._courses: dict[TopicPartition, Course] = {}
        self._progress = Progress()
        self._stopping = threading.Event()
        self._patiently = Patience(self._stopping, self._progress.waiting_for, _log).ask
        self._outbox = Outbox(self._publish)
        self._assigned = 0  # how often reading began again
        self._retention = RetentionWatch(log)
        self._done_at = dict.fromkeys(("report", "look", "retention"), 0.0)
        archive.claim(log.cluster_id)
        self._load(self._sources.wanted(), at_first=True)
        self._reader: Reader = log.reader(group, WholeChunk)
        self._thread = threading.Thread(target=self._run, name="merganser-archive", daemon=True)

    def start(self) -> Archiver:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Publish what was collected, if log and store answer at once, and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        else:
            self._reader.close()
        self._outbox.close()

    def __enter__(self) -> Archiver:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- how far it is -----------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """All below is archived, or was gone before the archive of its partition began."""
        return self._progress.applied

    @property
    def error(self) -> BaseException | None:
        """What ended the loop, None while it runs."""
        return self._progress.error

    @property
    def stopped(self) -> dict[str, TableStopped]:
        """The tables that cannot go on, and why."""
        return self._progress.stopped

    @property
    def waiting_for(self) -> str | None:
        return self._progress.held_up_by

    @property
    def risks(self) -> list[Risk]:
        """Where the log's retention comes near what is not archived."""
        return self._retention.risks

    def until(self, position: Position) -> None:
        """Close segments at once that reach *position*, however small they are."""
        self._until = position

    def wait(self, position: Position, timeout_s: float = 60.0) -> None:
        """Until all below *position* is archived. NotFreshEnough, TableStopped, or what ended the loop."""
        self._progress.wait(position, timeout_s, "archived")

    # -- the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._assign()
            while not self._stopping.is_set():
                self._turn()
            self._close(self._courses.values())
            self._settle(all_of_it=True)
        except BaseException as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
            if not (self._stopping.is_set() and isinstance(error, (LogError, ArchiveUnavailable))):
                _log.error("the archiver ended: %s", error)
                self._progress.fail(error)
        finally:
            self._reader.report(self.position)
            self._reader.close()

    def _turn(self) -> None:
        poll = self._patiently(lambda: self._reader.poll(_POLL_RECORDS, 0.1))
        now_s = time.monotonic()
        if self._take(poll, now_s):
            self._close([course for course in self._courses.values() if self._due(course, now_s)])
            self._keep_in_bounds()
        self._settle(all_of_it=False)
        self._housekeeping()

    def _take(self, poll: Poll, now_s: float) -> bool:
        """Collect what *poll* brought; False if reading began again meanwhile. Then the rest of it is not taken:
        it may lie beyond what is read again."""
        assigned = self._assigned
        for topic, chunk in poll.chunks.items():
            for partition, start, stop in runs(chunk.partitions):
                self._collect(TopicPartition(topic, partition), cast(WholeChunk, chunk), start, stop, now_s)
                if self._assigned != assigned:
                    return False
        for end in poll.ends:
            self._reach(end.partition, end.offset, now_s)
        for problem in poll.problems:
            self._resolve(problem)
            if self._assigned != assigned:
                return False
        return True

    def _collect(self, tp: TopicPartition, chunk: WholeChunk, start: int, stop: int, now_s: float) -> None:
        course, assigned = self._courses.get(tp), self._assigned
        if course is None or (course.unproven and not self._proved(course, chunk, start)):
            return
        while start < stop and self._assigned == assigned:
            end = min(stop, start + max(1, self._limits.records - course.open.rows))
            course.open.add(chunk, start, end, now_s)
            start = end
            if course.open.full(self._limits):
                self._close([course])

    def _proved(self, course: Course, chunk: WholeChunk, i: int) -> bool:
        """Whether the log shows the last archived record where it was; the table stops if not."""
        try:
            course.prove(Seen(chunk.offsets[i], digest(chunk.keys[i], chunk.values[i])))
        except TableStopped as why:
            self._give_up(why)
            return False
        return True

    def _reach(self, tp: TopicPartition, offset: int, now_s: float) -> None:
        course = self._courses.get(tp)
        if course is None:
            return
        if course.unproven and offset > course.chain.end:
            try:
                course.prove(None)
            except TableStopped as why:
                self._give_up(why)
                return
        course.open.reach(offset, now_s)

    def _due(self, course: Course, now_s: float) -> bool:
        until = self._until.get(course.tp)
        asked_for = until is not None and course.open.first < until <= course.open.next
        return asked_for or course.open.due(self._limits, now_s)

    def _keep_in_bounds(self) -> None:
        while sum(course.open.size for course in self._courses.values()) > self._limits.total_bytes:
            self._close([max(self._courses.values(), key=lambda course: course.open.size)])

    # -- closing and publishing --------------------------------------------------------------

    def _close(self, courses: Collection[Course]) -> None:
        """Hand the open segments of *courses* to the worker; waits while it has enough. The ledger of imports goes
        before them: it should be archived no less far than the rows that it tells of."""
        ledger = [course for course in self._courses.values() if course.tp.topic == LEDGER]
        for course in [*ledger, *(c for c in courses if c.tp.topic != LEDGER)] if courses else []:
            segment = course.open
            if segment.empty:
                continue
            segment.pack()
            course.open = OpenSegment(segment.next, segment.framed_keys)
            while self._outbox.full:
                self._settle_one()
            if self._courses.get(course.tp) is course and course.open.first == segment.next:
                self._outbox.put(course, segment)

    def _publish(self, course: Course, segment: OpenSegment) -> bool:
        return self._patiently(lambda: self._publisher.publish(course, segment))

    def _settle(self, all_of_it: bool) -> None:
        """See what became of the segments on their way, or of those that are there by now."""
        while self._settle_one(wait=all_of_it):
            pass

    def _settle_one(self, wait: bool = True) -> bool:
        found = self._outbox.take(wait)
        if found is None:
            return False
        course, outcome = found
        if outcome == "recreated":
            self._begin_again([course.table.name])
        elif outcome == "published":
            self._advance([course])
        elif self._courses.get(course.tp) is course:
            self._overtaken(course)
        return True

    def _overtaken(self, course: Course) -> None:
        """Another archiver was first, or a try of ours came through unanswered: go on where the chain ends."""
        _log.info("%s: the chain has gone on without us; going on at its end", course.tp)
        self._outbox.drop({course.tp})
        self._patiently(lambda: self._archive.refresh(course.chain))
        course.restart()
        self._advance([course])
        self._assign()

    def _advance(self, courses: Collection[Course]) -> None:
        ends = Position({course.tp: course.end for course in courses})
        self._progress.advance(ends, ends)

    # -- beginning, and beginning again ------------------------------------------------------

    def _load(self, names: Sequence[str], at_first: bool = False) -> None:
        """Find out where to go on with the tables *names*."""
        first: TableStopped | None = None
        for name in names:
            try:
                load = partial(self._sources.load, name)
                courses = load() if at_first else self._patiently(load)
            except TableStopped as why:
                first = first or why
                self._declare_stopped(why)
                continue
            self._courses |= {course.tp: course for course in courses}
        ends = Position({tp: course.end for tp, course in self._courses.items()})
        self._progress.hold(ends, ends)
        if first is not None and self._nothing_left:
            raise first

    def _assign(self) -> None:
        """Read on, in each partition from where it is; from the last record archived if that is unproven."""
        self._assigned += 1
        self._reader.assign(Position({tp: course.read_from for tp, course in self._courses.items()}))

    def _begin_again(self, tables: Collection[str]) -> None:
        """These topics are others now, or gone, or have lost records: see what they are, and go on."""
        gone = {tp for tp in self._courses if tp.topic in tables}
        self._outbox.drop(gone)
        for tp in gone:
            del self._courses[tp]
        for name in sorted({tp.topic for tp in gone}):
            try:
                self._load([name])
            except (UnknownTable, UnsupportedFormat):
                self._declare_stopped(TopicRecreated(name, "the topic was deleted", _DELETED))
        if self.stopped and self._nothing_left:
            raise next(iter(self.stopped.values()))
        self._assign()

    def _resolve(self, problem: Problem) -> None:
        """The log refuses to go on with a partition: publish what there is, and find out why."""
        course = self._courses.get(problem.partition)
        if course is None:
            return
        self._close([course])
        self._settle(all_of_it=True)
        if self._courses.get(problem.partition) is not course:
            return
        _log.info("%s: %s", problem.partition, problem.why)
        self._begin_again([problem.partition.topic])

    def _give_up(self, why: TableStopped) -> None:
        """Keep what came before, and go on without the table."""
        gone = [tp for tp in self._courses if tp.topic == why.table]
        self._outbox.drop(gone)
        for tp in gone:
            del self._courses[tp]
        self._reader.drop(gone)
        self._declare_stopped(why)
        if self._nothing_left:
            raise why

    @property
    def _nothing_left(self) -> bool:
        """True if none of the tables that were asked for can go on."""
        return not self._sources.follows_all and all(tp.topic == LEDGER for tp in self._courses)

    def _declare_stopped(self, why: TableStopped) -> None:
        _log.error("%s (%s)", why, why.hint)
        self._progress.stop_table(why)

    # -- now and then ------------------------------------------------------------------------

    def _housekeeping(self) -> None:
        if self._is_time("report", _REPORT_S):
            self._reader.report(self.position)
        if self._is_time("look", _LOOK_S):
            self._look()
            self._note_caught_up()
        if self._is_time("retention", _RETENTION_S):
            self._patiently(lambda: self._retention.look([course.chain for course in self._courses.values()]))

    def _is_time(self, what: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._done_at[what] < every_s:
            return False
        self._done_at[what] = now_s
        return True

    def _look(self) -> None:
        """Notice topics that are others now, and new ones."""
        held = sorted({tp.topic for tp in self._courses})
        changed = self._patiently(lambda: self._sources.changed(held))
        if changed:
            self._begin_again(changed)
        known = {tp.topic for tp in self._courses} | self.stopped.keys()
        added = [name for name in self._patiently(self._sources.wanted) if name not in known]
        if added:
            self._load(added)
            self._assign()

    def _note_caught_up(self) -> None:
        """On compacted topics: write down that no delete was missed so far (FAILURES 35)."""
        compacted = {tp: course for tp, course in self._courses.items() if course.table.compacted}
        if not compacted:
            return
        now_ms = time.time_ns() // 1_000_000
        ends = self._patiently(lambda: self._log.ends(list(compacted)))
        for tp, course in compacted.items():
            stale = now_ms - course.caught_up_ms > min(60_000, course.table.delete_retention_ms // 4)
            if stale and course.chain.end >= ends.get(tp, 0) and not self._outbox.has(course):
                course.caught_up_ms = now_ms
                self._patiently(partial(self._archive.note, course.chain, now_ms))


_DELETED = "the archive keeps what it has of it"
