"""What the log has of the records in quarantine, and after them: what their headers say, later records of their keys,
and earlier retries of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...consumers.atomic import Place
from ...consumers.chunk import Chunk, WholeChunk
from ...consumers.labels import ReadKeys
from ...consumers.log import Poll
from ...schemas.errors import NotFreshEnough, TableStopped
from ...schemas.headers import ORIGIN, BadHeader, Headers, Marks, decode, kafkas_spelling, origin
from ...schemas.kafka import Deadline
from ...schemas.position import Position, TopicPartition, next_offset
from ...schemas.table import Table
from ..archive.bridged import Live
from .plan import Candidate, Key, Later

_GROUP = "merganser-quarantine"
_POLL_RECORDS = 10_000

#: By how much the clocks of two brokers may differ.
CLOCKS_MS = 10 * 60 * 1000


@dataclass
class _Scan:
    """*keys* and *places* are what is looked for, of the topic *topic_id*."""

    table: Table
    read_keys: ReadKeys
    keys: Collection[Key]
    places: Collection[Place]
    last: dict[Key, tuple[int, int]] = field(default_factory=dict)
    retried: set[Place] = field(default_factory=set)
    marks: dict[Place, Marks | str] = field(default_factory=dict)

    def take(self, chunk: Chunk) -> None:
        assert isinstance(chunk, WholeChunk)
        keys = self.read_keys(chunk.keys) if self.keys else [None] * len(chunk)
        for partition, offset, time_ms, key, headers in zip(
            chunk.partitions, chunk.offsets, chunk.times_ms, keys, chunk.all_headers, strict=True
        ):
            if key is not None:
                identity = (TopicPartition(self.table.name, partition), key)
                if identity in self.keys:
                    self.last[identity] = (offset, time_ms)
            mine = Place(TopicPartition(self.table.name, partition), offset)
            if mine in self.places:
                self.marks[mine] = _said(headers or ())
            if headers and (place := self._origin(headers)) is not None and place in self.places:
                self.retried.add(place)

    def _origin(self, headers: Headers) -> Place | None:
        """Where the record comes from, if that is of this very topic."""
        if not any(name == ORIGIN for name, _ in headers):
            return None
        try:
            found = origin(headers)
        except BadHeader:
            return None  # another tool's: it says nothing
        mine = (kafkas_spelling(self.table.topic_id), self.table.name)
        if found is None or (found.topic_id, found.partition.topic) != mine:
            return None
        return Place(found.partition, found.offset)


def _said(headers: Headers) -> Marks | str:
    """What *headers* say, or why that cannot be read."""
    try:
        return decode(headers) or Marks()
    except BadHeader as why:
        return str(why)


def begin_of(log: Live, table: Table, candidates: Sequence[Candidate]) -> Position:
    """From where on each partition has to be read: from its first candidate, and from the time of the first of all,
    since a repaired key may have been written to any partition. Only the log's own times are a measure."""
    places = [TopicPartition(table.name, p) for p in range(table.partitions)]
    times = [each.poison.timestamp_ms for each in candidates]
    known = [time for time in times if time is not None]
    facts = log.describe([table.name]).get(table.name)
    by_log = facts is not None and facts.settings.get("message.timestamp.type") == "LogAppendTime"
    begin = dict.fromkeys(places, 0)
    if by_log and known and len(known) == len(times):
        begin |= log.at_time(places, max(0, min(known) - CLOCKS_MS))
    for each in candidates:
        tp = each.poison.partition
        begin[tp] = min(begin[tp], each.poison.offset)
    starts = log.starts(places)
    return Position({tp: max(begin.get(tp, 0), starts.get(tp, 0)) for tp in places})


def look(
    log: Live,
    table: Table,
    candidates: Sequence[Candidate],
    read_keys: ReadKeys,
    timeout_s: float,
    told: Callable[[int], None] = lambda offsets: None,
    begin: Position | None = None,
) -> Later:
    """Read *table* to ends that are sampled after the call began. NotFreshEnough if nothing comes for *timeout_s*
    seconds, while an open transaction holds a partition up, for one."""
    begin = begin or begin_of(log, table, candidates)
    keys = {(each.partition, each.identity) for each in candidates if each.identity is not None}
    scan = _Scan(table, read_keys, keys, {each.place for each in candidates})
    starts, ends = log.starts(begin), log.ends(begin)
    _read(log, begin, ends, scan, timeout_s, told)
    return Later(scan.last, scan.retried, starts, scan.marks)


def _read(
    log: Live, begin: Position, ends: Position, scan: _Scan, timeout_s: float, told: Callable[[int], None]
) -> None:
    at: dict[TopicPartition, int] = dict(begin)
    left = {tp for tp in at if at[tp] < ends.get(tp, 0)}
    reader = log.reader(_GROUP, WholeChunk)
    try:
        if left:
            reader.assign(Position({tp: at[tp] for tp in left}))
        deadline = Deadline(timeout_s)
        while left:
            poll = reader.poll(_POLL_RECORDS, 0.1)
            for chunk in poll.chunks.values():
                scan.take(chunk)
            moved = _advance(poll, at)
            told(moved)
            done = {tp for tp in left if at[tp] >= ends[tp]}
            if moved:
                deadline = Deadline(timeout_s)
            if done:
                reader.drop(done)
                left -= done
            elif deadline.passed:
                raise _stuck(log, at, ends, left, timeout_s)
    finally:
        reader.close()


def _advance(poll: Poll, at: dict[TopicPartition, int]) -> int:
    """Note how far *poll* came; by how many offsets."""
    for problem in poll.problems:
        raise TableStopped(problem.partition.topic, f"{problem.partition}: {problem.why}")
    before = sum(at.values())
    for topic, chunk in poll.chunks.items():
        for partition, span in chunk.spans.items():
            at[TopicPartition(topic, partition)] = next_offset(chunk.offsets[span.last])
    for end in poll.ends:
        if end.partition in at:
            at[end.partition] = max(at[end.partition], end.offset)
    return sum(at.values()) - before


def _stuck(
    log: Live, at: Mapping[TopicPartition, int], ends: Position, left: Collection[TopicPartition], timeout_s: float
) -> NotFreshEnough:
    behind = ", ".join(f"{tp} is read to {at[tp]} of {ends[tp]}" for tp in sorted(left))
    hanging = [str(each) for each in log.open_transactions(list(left), 1.0)]
    return NotFreshEnough("quarantine", timeout_s, "; ".join([behind, *hanging]))
