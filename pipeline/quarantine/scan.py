"""What the log has of the records in quarantine, and after them: what their headers say, later records of their keys,
and earlier retries of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...consumers.atomic import Place
from ...consumers.chunk import Chunk, WholeChunk
from ...consumers.labels import ReadKeys
from ...consumers.walk import walk
from ...schemas.headers import ORIGIN, BadHeader, Headers, Marks, decode, kafkas_spelling, origin
from ...schemas.position import Position, TopicPartition
from ...schemas.table import Table
from ..archive.bridged import Live
from ..backup.snapshot import Watch
from .plan import Candidate, Key, Later

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


def look(
    log: Live, table: Table, candidates: Sequence[Candidate], read_keys: ReadKeys, timeout_s: float, watch: Watch
) -> Later:
    """Read *table* to ends that are sampled after the call began. NotFreshEnough if nothing comes for *timeout_s*
    seconds, while an open transaction holds a partition up, for one."""
    begin = _begin(log, table, candidates)
    keys = {(each.partition, each.identity) for each in candidates if each.identity is not None}
    scan = _Scan(table, read_keys, keys, {each.place for each in candidates})
    starts, ends = log.starts(begin), log.ends(begin)
    watch.begin("look", sum(begin.behind(ends).values()))
    for poll in walk(log, "quarantine", begin, ends, timeout_s, WholeChunk, watch.advance):
        for chunk in poll.chunks.values():
            scan.take(chunk)
    return Later(scan.last, scan.retried, starts, scan.marks)


def _begin(log: Live, table: Table, candidates: Sequence[Candidate]) -> Position:
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
