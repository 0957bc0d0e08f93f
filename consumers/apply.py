"""The apply loop: poll → decode → one DuckDB transaction → wake the readers → report the offset.

One thread owns the reader and decides everything; one worker writes and commits, while another looks
whether the topics are still the same. Meanwhile the next batch is collected, so a replica far behind
takes large batches, and one that is up to date commits a few milliseconds after a record came.

Invariants
- Batches are applied in the order they were collected, each from the position the one before left;
  after a failure the loop begins again from what the file says.
- The store is changed by the worker, or by the loop while the worker is idle: never by both.
- No batch is committed unless its topics were found to be the same ones after its last record was read:
  the reader goes on by name when a topic is deleted and created again (FAILURES 17).
- The loop never ends in silence: its error reaches every waiting and later reader through Progress.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import duckdb

from ..schemas.errors import LogTruncated, LogUnavailable, TableStopped
from ..schemas.position import Position, TopicPartition
from .atomic import OVERHEAD, Entry
from .batch import Batch
from .checks import Stored
from .collect import Collector, MustStop
from .dbfile import failed
from .follow import Follow, Start
from .log import Log, Poll, Problem, Reader
from .meter import Meter
from .patience import Patience
from .progress import Progress
from .store import Store

_log = logging.getLogger("merganser.apply")

#: Of which transactions with these records it is known that they wait for nothing more.
Settled = Callable[[Sequence[Entry]], set[str]]

#: How often group offsets are reported.
_REPORT_S = 1.0

#: How often, with nothing to do, the topics are looked at.
_LOOK_S = 5.0

#: How long the loop waits for the log's ends, where it can do without them.
_ENDS_S = 1.0

#: How long a transaction may lack records before it is asked whether they can still come.
_CLOSE_S = 0.5

#: A partition that brought nothing for so long has nothing for us, whatever its end says: a transaction is open there,
#: or its leader is away.
_STALLED_S = 0.25

#: So long a batch may wait for others where records come slowly. A replica at full speed closes it earlier, by size.
_GROWN_S = 3.0

#: Failures in a row, without a batch applied in between, that end the loop.
_MAX_FAILURES = 3


@dataclass(frozen=True)
class BatchLimits:
    """When a batch is closed: whichever comes first."""

    records: int = 200_000
    bytes: int = 48 * 2**20
    linger_ms: float = 2.0
    """How long a record waits for others."""
    poll_records: int = 10_000
    """As many records are decoded at once, or `poll_bytes` of them: undecoded ones are not kept longer, unless they are
    of transactions."""
    poll_bytes: int = 4 * 2**20


class Applier:
    """Keeps a store up with the log, between :meth:`start` and :meth:`stop`. An Ownership, if split.

    Without :meth:`start`, :meth:`begin`, :meth:`turn`, :meth:`flush` and :meth:`recover` take the same steps by hand.
    """

    def __init__(
        self, log: Log, store: Store, follow: Follow, reader: Reader, progress: Progress, limits: BatchLimits
    ) -> None:
        self._log = log
        self._store = store
        self._follow = follow
        self._reader = reader
        self._progress = progress
        self._limits = limits
        self._pending_bytes = store.limits.pending_bytes
        self.commits = Meter()
        self._collector = Collector()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="merganser-commit")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="merganser-look")
        self._commit: Future[None] | None = None
        self._stopping = threading.Event()
        self._patiently = Patience(self._stopping, progress.waiting_for, _log).ask
        self._thread = threading.Thread(target=self._run, name="merganser-apply", daemon=True)
        self._failures = 0
        self._suspected = threading.Event()
        self._split = False
        self._looked_at = self._reported_at = self._closed_at = 0.0
        self._reported = Position()
        self._paused: frozenset[TopicPartition] = frozenset()
        self._moved_at: dict[TopicPartition, float] = {}
        self._growing_since: float | None = None

    def start(self, split: bool) -> None:
        """Begin to follow; raises what a first look already shows to be impossible."""
        self._split = split
        try:
            if split:
                self._load()
                self._reader.subscribe(list(self._follow.tables), self)
            else:
                self.begin()
        except duckdb.Error as error:
            raise failed(self._store.path, error) from error
        self._thread.start()

    def stop(self) -> None:
        """End both threads; what was collected and not applied is read again next time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._worker.shutdown()
        self._looker.shutdown()

    def suspect(self) -> None:
        """A reader met a fatal error: look whether the store is still good. From any thread."""
        self._suspected.set()

    def look_soon(self) -> None:
        """A reader found the log ending before what is applied: look at the topics with the next turn. From any
        thread."""
        self._looked_at = 0.0

    # -- the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._step()
                except duckdb.Error as error:
                    self.recover(error)
        except BaseException as error:  # noqa: BLE001  # whatever it is, readers must hear of it
            _log.error("the apply loop ended: %s", error)
            if not self._stopping.is_set():
                self._progress.fail(error)
        finally:
            self._close()

    def _step(self) -> None:
        """One turn. Should the batch before it fail, while tables stop, that is found again after the recovery."""
        try:
            self.turn()
        except MustStop as error:
            self._settle()
            self._go_on_without(error.stopped)

    def turn(self) -> None:
        """Poll once, and do what became due."""
        if self._suspected.is_set():
            self._probe()
        poll = self._patiently(self._poll)
        stopped = self._collector.add(poll)
        self._note_moved(poll)
        if self._many_undecoded():
            self._patiently(self._collector.decode)
        if stopped:
            self._stop_tables(self._by_cause(stopped))
        for problem in poll.problems:
            self._resolve(problem)
        if self._commit is not None and self._commit.done():
            self._settle()
        if self._due():
            self._hand_over()
        self._housekeeping()

    def _probe(self) -> None:
        """What a reader met may be of the store before a reopen; then there is nothing to do."""
        self._suspected.clear()
        self._settle()
        try:
            self._store.probe()
        except duckdb.Error as error:
            failures = self._failures
            self.recover(error)
            self._failures = failures  # what readers bring about does not end the loop, however often

    def _poll(self) -> Poll:
        return self._reader.poll(self._limits.poll_records, self._wait_s(), self._limits.linger_ms / 1000)

    def _many_undecoded(self) -> bool:
        waiting, limits = self._collector, self._limits
        # The more of transactions is looked at together, the more of them are whole, which costs a third. All of it
        # may have to be held back, and half of what may be is when the rest is paused.
        if waiting.marked and waiting.undecoded_bytes + OVERHEAD * waiting.undecoded < self._pending_bytes // 4:
            return False
        return waiting.undecoded >= limits.poll_records or waiting.undecoded_bytes >= limits.poll_bytes

    @property
    def _idle(self) -> bool:
        """True if the worker has nothing to do."""
        return self._commit is None or self._commit.done()

    def _wait_s(self) -> float:
        """How long a poll waits for a first record: briefly, if there is something to hand over."""
        return 0.1 if self._collector.empty and self._commit is None else 0.001

    def _note_moved(self, poll: Poll) -> None:
        now = time.monotonic()
        for topic, chunk in poll.chunks.items():
            for partition in chunk.spans:
                self._moved_at[TopicPartition(topic, partition)] = now
        if not self._collector.empty and self._growing_since is None:
            self._growing_since = now

    def _due(self) -> bool:
        if self._collector.empty:
            return False
        if self._collector.records >= self._limits.records or self._collector.nbytes >= self._limits.bytes:
            return True
        if not self._idle:
            return False
        # While far behind, large batches are cheaper, and nobody's read gets staler by them: as long as more comes.
        now = time.monotonic()
        if self._growing_since is not None and now - self._growing_since >= _GROWN_S:
            return True
        waiting = self._collector.position.behind(self._reader.known_ends())
        coming = [n for tp, n in waiting.items() if tp not in self._paused and self._comes(tp, now)]
        return sum(coming) < self._limits.poll_records

    def _comes(self, tp: TopicPartition, now: float) -> bool:
        return now - self._moved_at.get(tp, 0.0) < _STALLED_S

    def _hand_over(self) -> None:
        """Give what was collected to the worker, once it is done with the batch before.

        The look at the topics begins now that all of it was read, and is over before it is committed.
        """
        self._settle()
        self._growing_since = None
        if not self._collector.empty:
            look = self._looker.submit(self._check_topics, self._collector.topics)
            self._commit = self._worker.submit(self._apply, self._patiently(self._collector.take), look)

    def _apply(self, batch: Batch, look: Future[None]) -> None:
        """The worker's part."""
        began_s = time.monotonic()
        self._store.apply(batch, look.result)
        self.commits.took(time.monotonic() - began_s)
        self._progress.advance(batch.position, batch.applied)
        self._failures = 0

    def _check_topics(self, tables: Sequence[str]) -> None:
        changed = self._patiently(lambda: self._follow.changed(tables))
        if changed:
            raise MustStop(changed)

    def _settle(self) -> None:
        """Wait until the worker is idle; raises what its last batch raised."""
        commit, self._commit = self._commit, None
        if commit is not None:
            try:
                commit.result()
            except MustStop as error:
                self._go_on_without(error.stopped)

    def flush(self) -> None:
        """Apply all that was collected, now."""
        self._hand_over()
        self._settle()

    def rest(self, end: Position, settled: Settled) -> None:
        """The log is cut at *end*, and read up to there: apply all that can be. What a transaction lacks may lie
        beyond; but who decided on one knew that it is torn, and what is *settled* does not wait for the rest."""
        self.flush()
        waiting = self._collector.waiting
        if not waiting.idle:
            known = settled(waiting.lacking())
            waiting.settle(known)
            waiting.close([*waiting.decided(), *known], end)
            self.flush()

    def _housekeeping(self) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_S:
            self._reported_at = now
            position = self._progress.applied
            if position != self._reported:
                self._reader.report(position)
                self._reported = position
        self._keep_together()
        if now - self._closed_at >= _CLOSE_S:
            self._closed_at = now
            self._close_transactions()
        if now - self._looked_at >= _LOOK_S:
            self._look()
            self._note_caught_up()

    # -- beginning, and beginning again ------------------------------------------------------

    def _load(self) -> None:
        self._collector = Collector()
        decoders, stopped = self._follow.load()
        for decoder in decoders:
            self._collector.follow(decoder)
        for why in stopped:
            self._declare_stopped(why)
        if stopped and not decoders:
            raise stopped[0]
        self._looked_at = time.monotonic()

    def begin(self) -> None:
        """Read on from the store's positions, of all partitions of all tables that go on."""
        self._paused = frozenset()
        self._load()
        starts, stopped = self._follow.starts(self._follow.partitions(self._follow.tables))
        for why in stopped:
            self._declare_stopped(why)
        if stopped and not starts:
            raise stopped[0]
        self._own(starts)
        self._moved_at = dict.fromkeys((start.partition for start in starts), time.monotonic())
        self._reader.assign(Position({start.partition: start.read_from for start in starts}))

    def _own(self, starts: Sequence[Start]) -> None:
        for start in starts:
            self._collector.own(start.partition, start.offset, start.last, start.late)
        held = self._store.held({start.partition for start in starts})
        settled = self._store.settled({entry.marks.tx for entry in held if entry.marks.tx is not None})
        self._collector.hold(held, settled)
        self._hold({tp: stored for tp, stored in self._store.positions().items() if tp.topic in self._follow.names})

    def _hold(self, stored: Mapping[TopicPartition, Stored]) -> None:
        """Tell the readers which partitions are held, and how far each is."""
        self._progress.hold(
            Position({tp: s.next_offset for tp, s in stored.items()}),
            Position({tp: s.applied_offset for tp, s in stored.items()}),
        )

    def recover(self, error: duckdb.Error) -> None:
        """The store failed in the middle: let the file say what was committed, and go on from there."""
        while True:
            self._failures += 1
            _log.warning("the store failed (%s); reopening, try %d", error, self._failures)
            if self._failures > _MAX_FAILURES or self._split:
                raise failed(self._store.path, error) from error
            self._commit = None
            try:
                self._store.reopen()
                return self._patiently(self.begin)
            except duckdb.Error as again:
                error = again

    # -- tables that cannot go on ------------------------------------------------------------

    def _look(self) -> None:
        """With nothing to apply, notice all the same when a topic is no longer the one that it was."""
        self._looked_at = time.monotonic()
        changed = self._patiently(lambda: self._follow.changed(sorted({tp.topic for tp in self._collector.owned})))
        if changed:
            self._settle()
            self._go_on_without(changed)

    def _go_on_without(self, stopped: Sequence[TableStopped]) -> None:
        """Drop all that was collected, it may be of other topics, and begin again without their tables."""
        for why in stopped:
            self._declare_stopped(why)
        if self._split or {tp.topic for tp in self._collector.owned} <= {why.table for why in stopped}:
            raise stopped[0]
        self._patiently(self.begin)

    def _stop_tables(self, stopped: Sequence[TableStopped]) -> None:
        """Keep what came before, give up the tables' partitions, and say why."""
        self.flush()
        gone = {why.table for why in stopped}
        partitions = [tp for tp in self._collector.owned if tp.topic in gone]
        self._collector.disown(partitions)
        self._reader.drop(partitions)
        for why in stopped:
            self._declare_stopped(why)
        if not self._collector.owned:
            raise stopped[0]

    def _keep_together(self) -> None:
        """Once much is held back, read only what it has waited for longest: then that gets less, however
        unevenly partitions come. Topics of which nothing is held back go on meanwhile, as long as there is room: what
        is waited for may not come for long, where a transaction is open."""
        waiting, limit = self._collector.waiting, self._pending_bytes
        held = waiting.nbytes
        paused: frozenset[TopicPartition] = frozenset()
        if held > limit // 2 or (self._paused and held > limit // 4):
            all_of_them, topics = held > limit // 4 * 3, waiting.topics
            paused = frozenset(tp for tp in self._collector.owned if all_of_them or tp.topic in topics)
            paused -= waiting.next_for(self._collector.position)
        if paused != self._paused:
            self._reader.pause(paused)
            self._paused = paused

    def _close_transactions(self) -> None:
        """Find out of transactions that have waited a while whether they can become whole at all."""
        waiting = self._collector.waiting
        if waiting.idle:
            return
        unclosed = waiting.unclosed()
        if unclosed and self._known(self._collector.owned) is None:
            self._closed_at = time.monotonic() + _LOOK_S  # each try costs time that the others need
        elif unclosed:
            waiting.close(unclosed, self._patiently(lambda: self._log.horizon(self._collector.owned)))
        torn = waiting.torn(self._collector.position)
        if torn:
            self.flush()  # what was read and not decided on may be what they wait for
            # Their other parts may have been applied while a table of them was not followed.
            waiting.settle(self._store.settled({why.tx for why in torn}))
        stopped = waiting.overfull(self._pending_bytes) or waiting.torn(self._collector.position)
        if stopped:
            self._stop_tables(stopped)

    def _declare_stopped(self, why: TableStopped) -> None:
        _log.error("%s (%s)", why, why.hint)
        self._follow.leave(why.table)
        self._store.mark_stopped(why.table, why.why)
        self._progress.stop_table(why)

    def _by_cause(self, stopped: Sequence[TableStopped]) -> list[TableStopped]:
        """Another record where ours was may be another topic's: then that is the reason to tell."""
        changed = self._patiently(lambda: self._follow.changed([why.table for why in stopped]))
        named = {why.table: why for why in changed}
        return [named.get(why.table, why) for why in stopped]

    def _resolve(self, problem: Problem) -> None:
        """The log refuses to go on with a partition: find out why, and stop the table by that name."""
        if problem.partition not in self._collector.owned:
            return
        self.flush()
        if problem.partition not in self._collector.owned:
            return  # the flush found out already, and went on without the table
        name = problem.partition.topic
        stopped = self._patiently(lambda: self._follow.changed([name]))
        if not stopped:
            stopped = self._patiently(lambda: self._follow.starts([problem.partition]))[1]
        kind = LogTruncated if problem.truncated else TableStopped
        self._stop_tables(stopped or [kind(name, f"{problem.partition}: {problem.why}")])

    # -- a split group's rebalances: Ownership, called from within poll ------------------------

    def gained(self, partitions: Collection[TopicPartition]) -> Position:
        """Go on where the store is. What it has of partitions that are not ours now goes first."""
        self.flush()
        self._prune(keep=self._collector.owned | set(partitions))
        going_on = [tp for tp in partitions if self._follow.goes_on(tp.topic)]
        starts, stopped = self._patiently(lambda: self._follow.starts(going_on))
        self._patiently(lambda: self._own(starts))
        if stopped:
            self._stop_tables(stopped)
        return Position({start.partition: start.read_from for start in starts})

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Finish what was collected, then forget the partitions' rows: another member has them now."""
        self.flush()
        self._collector.disown(partitions)
        self._prune(keep=self._collector.owned)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Write nothing more: what was collected is dropped, rows go when partitions are gained again.

        A member loses all it has at once: the coordinator no longer knows it.
        """
        self._settle()
        self._collector.discard()
        self._collector.disown(self._collector.owned)
        self._hold({})

    def _prune(self, keep: Collection[TopicPartition]) -> None:
        held = {tp: at for tp, at in self._store.positions().items() if tp.topic in self._follow.tables}
        gone = [tp for tp in held if tp not in keep]
        if gone:
            self._store.drop_partitions(gone)
        self._hold({tp: s for tp, s in held.items() if tp in keep})

    # -- odds and ends -----------------------------------------------------------------------

    def _note_caught_up(self) -> None:
        """On compacted topics: write down that nothing was missed so far (FAILURES 35)."""
        compacted = [t for t in self._follow.tables.values() if t.compacted]
        if not compacted:
            return
        held = [tp for tp in self._collector.owned if tp.topic in {t.name for t in compacted}]
        ends = self._known(held)
        if ends is None:
            return
        position = self._progress.applied
        self._settle()
        self._store.caught_up([tp for tp in held if position.get(tp, 0) >= ends.get(tp, 0)])

    def _known(self, partitions: Collection[TopicPartition]) -> Position | None:
        """The log's ends; None if one of *partitions* has no leader that answers: what needs them can be done later,
        and the others go on meanwhile."""
        try:
            return self._log.ends(partitions, _ENDS_S)
        except LogUnavailable as away:
            _log.info("the ends of some partitions are not known for now: %s", away)
            return None

    def _close(self) -> None:
        """Let the worker finish, report, and leave the group."""
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001  # the same, for the batch in flight
            self._progress.fail(error)
        self._reader.report(self._progress.applied)
        self._reader.close()
