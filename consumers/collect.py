"""From polls to a Batch, for all tables of a replica.

Invariants
- What this replica does not own, or has below its position already, is dropped (FAILURES 12).
- :meth:`Collector.decode` that raises has lost nothing: it can be called again.
- A taken batch moves each partition from where the batch before left it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import pyarrow as pa

from ..schemas.errors import TableStopped
from ..schemas.position import Position, TopicPartition, next_offset
from ..schemas.types import MAX_MILLIS, MIN_MILLIS
from .batch import Batch, Move, Poison
from .checks import Seen, digest, still_there, vanished
from .chunk import Chunk
from .decode import Decoded, Piece, TableDecoder
from .log import End, Poll


@dataclass
class _Open:
    """The part of the batch to come that is one table's: *raw* is not decoded yet."""

    raw: Chunk = field(default_factory=Chunk)
    records: int = 0
    puts: list[Piece] = field(default_factory=list)
    deletes: list[pa.Table] = field(default_factory=list)


class Collector:
    """Collects polls until :meth:`take`. Used by one thread."""

    def __init__(self) -> None:
        self._decoders: dict[str, TableDecoder] = {}
        self._next: dict[TopicPartition, int] = {}
        self._unproven: dict[TopicPartition, Seen] = {}
        self._reset()

    def _reset(self) -> None:
        self._open: dict[str, _Open] = defaultdict(_Open)
        self._moves: dict[TopicPartition, Move] = {}
        self._poison: list[Poison] = []
        self.records = 0
        self.undecoded = self.undecoded_bytes = 0
        self.nbytes = 0

    # -- what is followed --------------------------------------------------------------------

    def follow(self, decoder: TableDecoder) -> None:
        """Collect the records of this table, of the partitions that are owned."""
        self._decoders[decoder.table.name] = decoder

    def own(self, tp: TopicPartition, offset: int, last: Seen | None) -> None:
        """Collect *tp* from *offset*. If *last* is given, the log has to show that record first."""
        self._next[tp] = offset
        if last is not None:
            self._unproven[tp] = last

    def disown(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what was collected of *partitions*, and what comes of them."""
        gone = set(partitions)
        if gone & self._moves.keys():
            raise ValueError("take the open batch before its partitions are given up")
        for tp in gone:
            self._next.pop(tp, None)
            self._unproven.pop(tp, None)

    def discard(self) -> None:
        """Forget what was collected since the last :meth:`take`."""
        for tp, move in self._moves.items():
            self._next[tp] = move.start
        self._reset()

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return frozenset(self._next)

    # -- collecting --------------------------------------------------------------------------

    def add(self, poll: Poll) -> list[TableStopped]:
        """Take *poll* in, but nothing of a table that must stop; returns why those stop."""
        stopped: list[TableStopped] = []
        for topic, chunk in poll.chunks.items():
            try:
                wanted = self._wanted(topic, chunk)
            except TableStopped as why:
                stopped.append(why)
                continue
            if wanted:
                self._gather(topic, wanted)
        gone = {why.table for why in stopped}
        stopped += [why for end in poll.ends if end.partition.topic not in gone for why in self._reach(end)]
        return stopped

    def _wanted(self, topic: str, chunk: Chunk) -> Chunk:
        """Those records that are owned and new. LogTruncated if the log shows another past."""
        first = {partition: span.first for partition, span in chunk.spans.items()}
        owned = {p: n for p in first if (n := self._next.get(TopicPartition(topic, p))) is not None}
        as_expected = len(owned) == len(first) and all(chunk.offsets[i] >= owned[p] for p, i in first.items())
        if as_expected and not any(TopicPartition(topic, p) in self._unproven for p in first):
            return chunk
        for partition, i in first.items():
            tp = TopicPartition(topic, partition)
            last = self._unproven.pop(tp, None)
            if last is not None:
                still_there(self._decoders[topic].table, tp, last, _seen(chunk, i))
        places = zip(chunk.partitions, chunk.offsets, strict=True)
        return chunk.take([i for i, (p, offset) in enumerate(places) if p in owned and offset >= owned[p]])

    def _gather(self, topic: str, chunk: Chunk) -> None:
        """Keep *chunk* for the next :meth:`decode`: that costs as much for ten records as for a thousand."""
        for partition, span in chunk.spans.items():
            tp = TopicPartition(topic, partition)
            move = self._move(tp)
            move.next_offset = self._next[tp] = next_offset(chunk.offsets[span.last])
            move.at_end = False
        mine = self._open[topic]
        if mine.raw:
            mine.raw.append(chunk)
        else:
            mine.raw = chunk
        self.records += len(chunk)
        self.undecoded += len(chunk)
        self.undecoded_bytes += chunk.nbytes

    def decode(self) -> None:
        """Make rows of what was collected. LogError if the registry is needed and away."""
        for topic, mine in self._open.items():
            if mine.raw:
                decoded = self._decoders[topic].decode(mine.raw, mine.records)
                self._take_in(topic, mine.raw, decoded)
                mine.raw = Chunk()
        self.undecoded = self.undecoded_bytes = 0

    def _take_in(self, topic: str, chunk: Chunk, decoded: Decoded) -> None:
        deleted = Counter(chunk.partitions[i] for i in decoded.deleted)
        bad = Counter(chunk.partitions[i] for i in decoded.bad)
        for partition, span in chunk.spans.items():
            move = self._moves[TopicPartition(topic, partition)]
            move.deletes += deleted[partition]
            move.quarantined += bad[partition]
            move.puts += span.size - deleted[partition] - bad[partition]
            move.last = _seen(chunk, span.last)
        self._poison += [_poison(topic, chunk, i, why) for i, why in sorted(decoded.bad.items())]
        mine = self._open[topic]
        mine.records += len(chunk)
        mine.puts += decoded.puts
        if decoded.deletes is not None:
            mine.deletes.append(decoded.deletes)
        self.nbytes += decoded.nbytes + sum(_size(chunk, i) for i in decoded.bad)

    def _move(self, tp: TopicPartition) -> Move:
        if tp not in self._moves:
            self._moves[tp] = Move(self._next[tp], self._next[tp])
        return self._moves[tp]

    def _reach(self, end: End) -> list[TableStopped]:
        """Note that everything below *end* was delivered."""
        tp, offset = end
        if tp not in self._next:
            return []
        last = self._unproven.get(tp)
        if last is not None and offset > last.offset:
            del self._unproven[tp]
            try:
                vanished(self._decoders[tp.topic].table, tp, last)
            except TableStopped as why:
                return [why]
        if offset > self._next[tp] or (offset == self._next[tp] and tp in self._moves):
            move = self._move(tp)
            move.next_offset = self._next[tp] = offset
            move.at_end = True
        return []

    # -- handing over ------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        return not self._moves

    def take(self) -> Batch:
        """What was collected since the last call, all of it decoded."""
        self.decode()
        batch = Batch(moves=self._moves, poison=self._poison, nbytes=self.nbytes)
        for table, mine in self._open.items():
            decoder = self._decoders[table]
            change = decoder.schema_change()
            if change is not None:
                batch.changes.append(change)
            if mine.puts or mine.deletes:
                batch.tables.append(decoder.part(mine.puts, mine.deletes))
        self._reset()
        return batch

    @property
    def position(self) -> Position:
        """How far the log was collected; the store follows."""
        return Position(self._next)


def _seen(chunk: Chunk, i: int) -> Seen:
    return Seen(chunk.offsets[i], digest(chunk.keys[i], chunk.values[i]), chunk.epochs[chunk.partitions[i]])


def _size(chunk: Chunk, i: int) -> int:
    return len(chunk.keys[i] or b"") + len(chunk.values[i] or b"")


def _poison(topic: str, chunk: Chunk, i: int, why: str) -> Poison:
    time_ms = chunk.times_ms[i]
    return Poison(
        TopicPartition(topic, chunk.partitions[i]),
        chunk.offsets[i],
        time_ms if MIN_MILLIS <= time_ms <= MAX_MILLIS else None,
        chunk.keys[i],
        chunk.values[i],
        why,
    )
