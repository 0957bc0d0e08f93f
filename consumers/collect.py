"""From polls to a Batch, for all tables of a replica.

Invariants
- What this replica does not own, or has below its position already, is dropped (FAILURES 12).
- :meth:`Collector.decode` that raises has lost nothing: it can be called again.
- A taken batch moves each partition from where the batch before left it.
- Records that bear no headers of ours, of tables of which nothing is held back, go straight to rows, and so
  does what ``whole.py`` sets apart; all others go through the decision of ``atomic.py`` first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from ..schemas.errors import MerganserError, SplitTransaction, TableStopped, Undecidable
from ..schemas.headers import stands_in
from ..schemas.position import Position, TopicPartition, next_offset
from ..schemas.types import MAX_MILLIS, MIN_MILLIS
from .atomic import Entry, KeyValues, Place, Unit
from .batch import Batch, Move, Poison, Stage
from .checks import Seen, digest, still_there, vanished
from .chunk import Chunk
from .conditions import Operation, Verdict, guarded
from .decode import Decoded, Piece, TableDecoder
from .labels import chunk_of, entries, key_of, label
from .log import End, Poll
from .waiting import Waiting
from .whole import Labelled


@dataclass
class _Inbox:
    """What of one table is not decoded yet: *raw* as it came, *released* after the decision. *records*
    counts those that were decoded since the last batch: their numbers."""

    raw: Chunk = field(default_factory=Chunk)
    released: list[Entry] = field(default_factory=list)
    records: int = 0


@dataclass
class _Rows:
    """What was decoded of one table, for one stage."""

    puts: list[Piece] = field(default_factory=list)
    deletes: list[pa.Table] = field(default_factory=list)


@dataclass
class _Stage:
    """A stage in the making; see :class:`Stage`."""

    tables: defaultdict[str, _Rows] = field(default_factory=lambda: defaultdict(_Rows))
    units: list[Unit] = field(default_factory=list)
    numbers: dict[Place, int] = field(default_factory=dict)
    bad: dict[Place, str] = field(default_factory=dict)


class MustStop(MerganserError):
    """What was collected must not be applied: *stopped* are the tables that cannot go on. The others begin
    again from the store."""

    def __init__(self, stopped: Sequence[TableStopped]) -> None:
        super().__init__(str(stopped[0]))
        self.stopped = stopped


class Collector:
    """Collects polls until :meth:`take`. Used by one thread."""

    def __init__(self) -> None:
        self._decoders: dict[str, TableDecoder] = {}
        self._next: dict[TopicPartition, int] = {}
        self._unproven: dict[TopicPartition, Seen] = {}
        self.waiting = Waiting(lambda tp: self._decoders[tp.topic].table.compacted)
        self._reset()

    def _reset(self) -> None:
        self._inbox: dict[str, _Inbox] = defaultdict(_Inbox)
        self._moves: dict[TopicPartition, Move] = {}
        self._poison: list[Poison] = []
        self._stages = [_Stage()]
        self._units: list[Unit] = []  # released, and not in a stage yet
        self._settled: list[Unit] = []
        self._whole: dict[str, Place] = {}  # transactions that needed no decision
        self.waiting.forget()
        self.records = 0
        self.undecoded = self.undecoded_bytes = 0
        self.nbytes = 0

    # -- what is followed --------------------------------------------------------------------

    def follow(self, decoder: TableDecoder) -> None:
        """Collect the records of this table, of the partitions that are owned."""
        self._decoders[decoder.table.name] = decoder

    def own(self, tp: TopicPartition, offset: int, last: Seen | None, late: range = range(0)) -> None:
        """Collect *tp* from *offset*. If *last* is given, the log has to show that record first. *late*: see
        :meth:`Store.rejoin`."""
        self._next[tp] = offset
        self.waiting.join({tp: late})
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
        self.waiting.disown(gone)

    def discard(self) -> None:
        """Forget what was collected since the last :meth:`take`."""
        for tp, move in self._moves.items():
            self._next[tp] = move.start
        self._reset()

    def hold(self, held: Collection[Entry], settled: Collection[str]) -> None:
        """Take over what a store holds back of partitions that are owned now; see :meth:`Waiting.hold`.

        LogError if the registry is needed and away.
        """
        by_topic: dict[str, list[Entry]] = defaultdict(list)
        for entry in held:
            by_topic[entry.place.partition.topic].append(entry)
        said: dict[Place, KeyValues | None] = {}
        for topic, mine in by_topic.items():
            keys = self._decoders[topic].read_keys([entry.key for entry in mine])
            said |= {entry.place: key_of(entry.marks, key) for entry, key in zip(mine, keys, strict=True)}
        self.waiting.hold([replace(entry, key_values=said[entry.place]) for entry in held], settled)

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
            if not stands_in(chunk.headers.get(span.last, ())):  # the log itself may show what was there
                move.last = _seen(chunk, span.last)
            move.read += span.size
            move.at_end = False
        mine = self._inbox[topic]
        if mine.raw:
            mine.raw.append(chunk)
        else:
            mine.raw = chunk
        self.records += len(chunk)
        self.undecoded += len(chunk)
        self.undecoded_bytes += chunk.nbytes

    def decode(self) -> None:
        """Make rows of what was collected. LogError if the registry is needed and away."""
        self._decide()
        raw = [(topic, mine.raw, self._decoded(topic, mine.raw)) for topic, mine in self._inbox.items() if mine.raw]
        self._decide_after_all(raw)
        for topic, chunk, decoded in raw:
            self._take_in(topic, chunk, decoded)
            self._inbox[topic].raw = Chunk()
        for topic, mine in self._inbox.items():
            if mine.released:
                chunk = chunk_of(mine.released)
                decoded = self._decoded(topic, chunk)
                self._number(topic, range(len(chunk)), mine.released, decoded.bad)
                self._take_in(topic, chunk, decoded)
                mine.released = []
        self._place_units()
        self.undecoded = self.undecoded_bytes = 0

    def _decoded(self, topic: str, chunk: Chunk) -> Decoded:
        return self._decoders[topic].decode(chunk, self._inbox[topic].records)

    def _take_in(self, topic: str, chunk: Chunk, decoded: Decoded) -> None:
        """Keep what became of *chunk*."""
        deleted = Counter(chunk.partitions[i] for i in decoded.deleted)
        bad = Counter(chunk.partitions[i] for i in decoded.bad)
        for partition, span in chunk.spans.items():
            move = self._move(TopicPartition(topic, partition))
            move.deletes += deleted[partition]
            move.puts += span.size - deleted[partition] - bad[partition]
        self._poison += [_poison(topic, chunk, i, why) for i, why in sorted(decoded.bad.items())]
        rows = self._stages[-1].tables[topic]
        rows.puts += decoded.puts
        if decoded.deletes is not None:
            rows.deletes.append(decoded.deletes)
        self._inbox[topic].records += len(chunk)
        self.nbytes += decoded.nbytes + sum(_size(chunk, i) for i in decoded.bad)

    def _number(self, topic: str, indices: Sequence[int], found: Sequence[Entry], bad: Mapping[int, str]) -> None:
        """Note in the stage which numbers the records *found* at *indices* have, and which of them are *bad*."""
        stage, first = self._stages[-1], self._inbox[topic].records
        places = [entry.place for entry in found]
        stage.numbers |= {place: first + i for i, place in zip(indices, places, strict=True)}
        stage.bad |= {place: bad[i] for i, place in zip(indices, places, strict=True) if i in bad}

    # -- what waits for its transaction --------------------------------------------------------

    def _decide(self) -> None:
        """Let ``atomic.py`` say which records are applied now, and in which order; ``whole.py``, of which it
        need not be asked."""
        labelled: dict[str, Labelled] = {}
        for topic, mine in self._inbox.items():
            if mine.raw and (mine.raw.headers or self.waiting.concerns(topic)):
                labelled[topic] = self._label(topic, mine)
                marks = labelled[topic].marks.values()
                self._decoders[topic].meet({each.schema for each in marks if each.schema is not None})
                self._check_kept(topic, labelled[topic])
        apart = self.waiting.set_apart(labelled, self._next.keys())
        self._whole |= apart.whole
        waiting: list[Entry] = []
        for topic, indices in apart.waiting.items():
            if indices:
                mine = self._inbox[topic]
                waiting += entries(topic, mine.raw, labelled[topic], indices)
                mine.raw = mine.raw.but(indices)
        for entry in waiting:
            if entry.marks.no_row:
                self._moves[entry.place.partition].read -= 1  # a control record of ours: a gap, as Kafka's are
        if waiting or not self.waiting.idle:
            self._release(self.waiting.offer(waiting, self._next))

    def _check_kept(self, topic: str, labelled: Labelled) -> None:
        """MustStop if a record would be decided by others that the cleaner may have taken: of a rejected write and the
        accepted one before it, it keeps the rejected one."""
        if not self._decoders[topic].table.compacted:
            return
        for i, marks in labelled.marks.items():
            if marks.condition or marks.ops:
                what = f"{TopicPartition(topic, labelled.partitions[i])} has one at offset {labelled.offsets[i]}"
                why = f"the topic is compacted, which conditions and operation ids do not survive, and {what}"
                raise MustStop([Undecidable(topic, why)])

    def _label(self, topic: str, mine: _Inbox) -> Labelled:
        """What the headers of the raw records say; those whose headers are none of ours, by our names, are poison."""
        read_keys = self._decoders[topic].read_keys
        labelled, bad = label(mine.raw, read_keys)
        if not bad:
            return labelled
        self._poison += [_poison(topic, mine.raw, i, why) for i, why in bad.items()]
        mine.raw = mine.raw.but(bad)
        return label(mine.raw, read_keys)[0]

    def _release(self, released: Sequence[Unit]) -> None:
        """Have the units *released* decoded next."""
        self._check_decidable(released)
        if any(map(guarded, released)):
            self._stages.append(_Stage())
        self._units += released
        for unit in released:
            for entry in unit.entries:
                self._move(entry.place.partition)  # it is applied further now, though nothing more is read
            for entry in unit.rows:
                self._inbox[entry.place.partition.topic].released.append(entry)

    def _decide_after_all(self, raw: Sequence[tuple[str, Chunk, Decoded]]) -> None:
        """A transaction that came whole, with a record that no row can be made of, has to be decided on."""
        if not any(decoded.bad for _, _, decoded in raw):
            return
        labels = {topic: self._label(topic, self._inbox[topic]) for topic, chunk, _ in raw if chunk.headers}
        txs = {labels[topic].txs[i] for topic, _, decoded in raw if topic in labels for i in decoded.bad} - {None}
        units = {tx: Unit(tx) for tx in sorted(filter(None, txs))}
        for topic, chunk, decoded in raw:
            if topic in labels:
                indices = [i for i, tx in enumerate(labels[topic].txs) if tx in units]
                found = entries(topic, chunk, labels[topic], indices)
                self._number(topic, indices, found, decoded.bad)
                for entry in found:
                    units[entry.marks.tx or ""].entries.append(entry)
        for tx, unit in units.items():
            unit.entries.sort(key=lambda entry: entry.place)
            del self._whole[tx]
            self._units.append(unit)

    def _check_decidable(self, units: Collection[Unit]) -> None:
        """MustStop if conditions or operation ids of a transaction have to do with partitions that are not
        held here: the decision is of all of it."""
        for unit in units:
            if unit.tx is None or not (guarded(unit) or any(entry.marks.guarded for entry in unit.entries)):
                continue
            elsewhere = {tp for entry in unit.entries for tp in entry.marks.manifest or ()} - self._next.keys()
            elsewhere = {tp for tp in elsewhere if self._exists(tp)}
            if elsewhere:
                why = f"transaction {unit.tx} has conditions or operation ids, and a part of it is in {min(elsewhere)}"
                tables = sorted({entry.place.partition.topic for entry in unit.entries})
                raise MustStop([SplitTransaction(table, f"{why}, which is not followed here") for table in tables])

    def _exists(self, tp: TopicPartition) -> bool:
        decoder = self._decoders.get(tp.topic)
        return decoder is None or tp.partition < decoder.table.partitions

    def _place_units(self) -> None:
        """Let the last stage decide on the units that were decoded into it, if there is any doubt."""
        units, self._units = self._units, []
        stage = self._stages[-1]
        if any(map(guarded, units)) or any(u.tx and any(e.place in stage.bad for e in u.entries) for u in units):
            stage.units = units
            self._stages.append(_Stage())
        else:
            self._settled += [unit for unit in units if unit.tx is not None]
            stage.numbers, stage.bad = {}, {}

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

    @property
    def marked(self) -> bool:
        """True if some records that are not decoded have headers of ours."""
        return any(mine.raw.headers for mine in self._inbox.values())

    # -- handing over ------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        return not self._moves and not self.waiting.changed

    @property
    def topics(self) -> list[str]:
        """The topics that the next :meth:`take` is about, or some more: those of which something waits."""
        return sorted({tp.topic for tp in self._moves} | self.waiting.topics)

    def take(self) -> Batch:
        """What was collected since the last call, all of it decoded."""
        self.decode()
        batch = Batch(moves=self._moves, poison=self._poison, nbytes=self.nbytes)
        batch.changes = [change for table in self._inbox if (change := self._decoders[table].schema_change())]
        batch.stages = [stage for stage in map(self._stage, self._stages) if stage.tables or stage.units]
        batch.operations = [operation for unit in self._settled for operation in Verdict(unit, "applied").operations]
        batch.operations += [Operation("tx", tx, first, "applied", None) for tx, first in self._whole.items()]
        self.waiting.note(batch)
        self._reset()
        return batch

    def _stage(self, made: _Stage) -> Stage:
        tables = [
            self._decoders[table].part(r.puts, r.deletes) for table, r in made.tables.items() if r.puts or r.deletes
        ]
        return Stage(tables, made.units, made.numbers, made.bad)

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
