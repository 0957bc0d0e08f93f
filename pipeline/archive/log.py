"""ArchiveLog: what an archive holds, as a log that replicas are built of.

Invariants, beside those of every Reader (``consumers/log.py``)
- No record of a data file is delivered before every byte of that file was proved (:class:`ArchiveDamaged`).
- Offsets that were lost before they could be archived are a Problem, never a jump.
- Memory is bounded: of all partitions together some segments are open at a time, whatever their number.
- A poll that raises has delivered nothing: it can be made again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.chunk import Chunk
from ...consumers.log import End, Ownership, Poll, Problem
from ...schemas.catalog import assemble
from ...schemas.errors import ArchiveError, UnknownTable, UsageError, WrongArchive
from ...schemas.hanging import OpenTransaction
from ...schemas.kafka import TopicFacts, TopicId
from ...schemas.position import Position, TopicPartition, next_offset
from ...schemas.table import SchemaVersion, Table, key_subject, value_subject
from .archive import Archive, Declared
from .chain import Chain, Manifest, Place
from .segments import batches, fill

#: Open segments, by the size of what is in them before compression. One may always be open.
_OPEN_BYTES = 96 * 2**20

#: How often a reader at the end looks for what was published since.
_LOOK_S = 0.5


class ArchiveLog:
    """The newest topic of each name in *archive*; *topic_ids* chooses older ones. Safe across threads."""

    def __init__(self, archive: Archive, topic_ids: Mapping[str, str] | None = None) -> None:
        self.archive = archive
        self._topic_ids = dict(topic_ids or {})
        self._known: dict[str, Declared | None] = {}
        self._chains: dict[Place, Chain] = {}
        self._lock = threading.Lock()

    @property
    def cluster_id(self) -> str:
        found = self.archive.cluster_id()
        if found is None:
            raise WrongArchive(self.archive.url, "there is no archive", "`merganser archive run` makes one")
        return found

    @property
    def bootstrap_servers(self) -> str:
        return self.archive.url

    def tables(self) -> list[Table]:
        """Every table in the archive, by name."""
        return [self.table(name) for name in self.archive.topics()]

    def table(self, name: str) -> Table:
        values = self.versions(value_subject(name))
        declared = self._declared(name)
        if declared is None or not values:
            raise UnknownTable(name, hint=f"the archive has: {', '.join(self.archive.topics()) or 'nothing'}")
        return assemble(declared.facts, values, self.versions(key_subject(name)))

    def versions(self, subject: str) -> list[SchemaVersion]:
        return self.archive.versions(subject)

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        chains = {tp: self.chain(tp) for tp in partitions}
        return Position({tp: chain.start or 0 for tp, chain in chains.items() if chain is not None})

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        """Up to where each of *partitions* is archived."""
        chains = {tp: self.chain(tp, refreshed=True) for tp in partitions}
        return Position({tp: chain.end for tp, chain in chains.items() if chain is not None})

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        return []

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        return {name: TopicId(facts.topic_id, facts.partitions) for name, facts in self.describe(topics).items()}

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        found = {name: self._declared(name) for name in topics}
        return {name: declared.facts for name, declared in found.items() if declared is not None}

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        """Just out of reach: what is not archived yet may still come."""
        return Position({tp: next_offset(end) for tp, end in self.ends(partitions).items()})

    def reader(self, group: str, kind: type[Chunk] | None = None) -> ArchiveReader:
        return ArchiveReader(self, kind or Chunk)

    # -- beside the Log ----------------------------------------------------------------------

    def at_time(self, partitions: Collection[TopicPartition], time_ms: int) -> Position:
        """The first record of each of *partitions* with a timestamp of *time_ms* or later, by the log's own
        timestamps; the end, if there is none."""
        found = {}
        for tp in partitions:
            chain = self.chain(tp, refreshed=True)
            if chain is not None:
                found[tp] = self._since(chain, time_ms)
        return Position(found)

    def _since(self, chain: Chain, time_ms: int) -> int:
        for link in chain.links[chain.since(time_ms) :]:
            if not link.rows or link.max_ms < time_ms:
                continue  # the record that it begins with was erased
            for batch in batches(self.archive.segment(link)):
                late = pc.greater_equal(batch["timestamp_ms"], time_ms)
                first = pc.index(late, True).as_py()
                if first >= 0:
                    return int(batch["offset"][first].as_py())
        return chain.end

    def chain(self, tp: TopicPartition, refreshed: bool = False) -> Chain | None:
        """The chain of *tp*; None if there is no such partition. It grows when it is asked for *refreshed*."""
        declared = self._known[tp.topic] if tp.topic in self._known else self._declared(tp.topic)
        if declared is None or tp.partition >= declared.facts.partitions:
            return None
        place = declared.places[tp.partition]
        with self._lock:
            chain = self._chains.get(place)
            if chain is None:
                chain = self._chains[place] = self.archive.chain(place)
            elif refreshed:
                self.archive.refresh(chain)
            return chain

    def choose(self, topic_ids: Mapping[str, str]) -> None:
        """From now on, mean these topics of all that had their names."""
        for topic, topic_id in topic_ids.items():
            if self._topic_ids.get(topic) != topic_id:
                self._topic_ids[topic] = topic_id
                self._known.pop(topic, None)

    def _declared(self, topic: str) -> Declared | None:
        found = self.archive.declared(topic)
        wanted = self._topic_ids.get(topic)
        chosen = next((each for each in reversed(found) if wanted in (None, each.facts.topic_id)), None)
        self._known[topic] = chosen
        return chosen


@dataclass
class _Cursor:
    """One partition that is read: *offset* is the next. *link* counts the links, *rows* are those of an open one."""

    chain: Chain
    offset: int
    link: int
    rows: Iterator[pa.RecordBatch] | None = None
    left: pa.RecordBatch | None = None
    told_end: int = -1
    failed: bool = False

    @property
    def current(self) -> Manifest | None:
        return self.chain.links[self.link] if self.link < len(self.chain.links) else None

    def close(self) -> None:
        self.rows = self.left = None


class ArchiveReader:
    """A Reader of an ArchiveLog. Of all segments that are next, it opens the oldest by its timestamps first, so
    that partitions advance together and few transactions have to be held back."""

    def __init__(self, log: ArchiveLog, kind: type[Chunk]) -> None:
        self._log, self._kind = log, kind
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._paused: set[TopicPartition] = set()
        self._looked_s = 0.0

    def assign(self, position: Position) -> None:
        self._paused = set()
        self._cursors = {tp: self._cursor(tp, offset) for tp, offset in position.items()}

    def _cursor(self, tp: TopicPartition, offset: int) -> _Cursor:
        chain = self._log.chain(tp, refreshed=True)
        if chain is None:
            raise UnknownTable(tp.topic, hint=f"the archive has no {tp}")
        return _Cursor(chain, offset, chain.at(offset))

    def subscribe(self, topics: Collection[str], ownership: Ownership) -> None:
        raise UsageError("an archive has no group to share its partitions: leave --split out")

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._cursors.pop(tp, None)
            self._paused.discard(tp)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused = set(partitions)

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        """ArchiveDamaged, WrongKey; ArchiveUnavailable if the store does not answer."""
        poll, end_s = Poll.of(self._kind), time.monotonic() + timeout_s
        while True:
            try:
                room = max_records
                while room > 0 and (tp := self._oldest()) is not None:
                    room -= self._read(tp, room, poll)
                if poll.chunks or poll.ends or poll.problems:
                    return poll
                self._look()
            except ArchiveError:
                if poll.chunks or poll.ends or poll.problems:
                    return poll
                raise
            if time.monotonic() >= end_s:
                return poll
            if self._oldest() is None:
                time.sleep(min(0.05, max(0.0, end_s - time.monotonic())))

    @property
    def position(self) -> Position:
        """Where each partition is read on from."""
        return Position({tp: cursor.offset for tp, cursor in self._cursors.items()})

    def known_ends(self) -> Position:
        return Position({tp: cursor.chain.end for tp, cursor in self._cursors.items()})

    def report(self, position: Position) -> None:
        """An archive keeps no group offsets."""

    def close(self) -> None:
        self._cursors = {}

    # -- inside ------------------------------------------------------------------------------

    def _oldest(self) -> TopicPartition | None:
        """The partition to read on with; None if all are read, or wait."""
        ready = {tp: c for tp, c in self._cursors.items() if tp not in self._paused and self._has_more(c)}
        if not ready:
            return None
        opened = {tp: cursor for tp, cursor in self._cursors.items() if cursor.rows is not None}
        room = _OPEN_BYTES - sum(cursor.current.raw for cursor in opened.values() if cursor.current is not None)
        tp = min(ready, key=lambda tp: (_begins_ms(ready[tp]), tp))
        current = ready[tp].current
        if tp in opened or not opened or current is None or current.raw <= room:
            return tp
        unpaused = opened.keys() & ready.keys()
        if unpaused:
            return min(unpaused, key=lambda tp: (_begins_ms(ready[tp]), tp))
        for cursor in opened.values():
            cursor.close()  # of partitions that wait; opened again when they go on
        return tp

    def _has_more(self, cursor: _Cursor) -> bool:
        if cursor.failed:
            return False
        outside = cursor.offset < (cursor.chain.start or 0) or cursor.offset > cursor.chain.end
        return outside or cursor.current is not None or cursor.told_end != cursor.chain.end

    def _read(self, tp: TopicPartition, room: int, poll: Poll) -> int:
        """Read on in *tp*: up to *room* records, an end or a problem. How many records that were."""
        cursor = self._cursors[tp]
        if cursor.offset < (cursor.chain.start or 0) or cursor.offset > cursor.chain.end:
            covered = f"the archive has {cursor.chain.start or 0} to {cursor.chain.end}"
            return self._refuse(tp, f"offset {cursor.offset} is out of range, {covered}", poll)
        link = cursor.current
        if link is None:
            cursor.told_end = cursor.chain.end
            poll.ends.append(End(tp, cursor.chain.end))
            return 0
        if link.lost:
            gone = f"offsets {link.first} to {link.next}" if link.first < link.next else f"deletes before {link.next}"
            return self._refuse(tp, f"{gone} were gone from the log before they were archived", poll)
        batch = self._rows(cursor, link)
        if batch is None:
            cursor.close()
            cursor.offset, cursor.link = link.next, cursor.link + 1
            return 0
        taken = batch.slice(0, room)
        fill(poll.chunks[tp.topic], tp.partition, taken)
        cursor.left = batch.slice(room) if batch.num_rows > room else None
        cursor.offset = next_offset(int(taken["offset"][-1].as_py()))
        return int(taken.num_rows)

    def _refuse(self, tp: TopicPartition, why: str, poll: Poll) -> int:
        self._cursors[tp].failed = True
        poll.problems.append(Problem(tp, why))
        return 0

    def _rows(self, cursor: _Cursor, link: Manifest) -> pa.RecordBatch | None:
        """The next records of *link*; None if there are no more."""
        if cursor.left is not None:
            return cursor.left
        if cursor.rows is None:
            # What stands in for an erased record may come after the last one.
            if not link.rows or (link.last_offset < cursor.offset and not link.was):
                return None
            cursor.rows = batches(self._log.archive.segment(link), first_offset=cursor.offset)
        return next(cursor.rows, None)

    def _look(self) -> None:
        """Now and then, see what was published since."""
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            for tp in self._cursors.keys() - self._paused:
                self._log.chain(tp, refreshed=True)


def _begins_ms(cursor: _Cursor) -> int:
    """The time that *cursor* stands at; before all others if it needs no data to go on."""
    if cursor.left is not None:
        return int(cursor.left["timestamp_ms"][0].as_py())
    link = cursor.current
    return -1 if link is None else link.min_ms
