"""What a replica holds back: the same here, in memory, and in its store's ``pending``.

Invariant: :meth:`Waiting.note` tells the store of each record that is held back from now on, and of each
that no longer is, once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping

from ..schemas.errors import PendingFull, TornTransaction
from ..schemas.position import Position, TopicPartition
from .atomic import Atomicity, Entry, Place, Unit
from .batch import Batch
from .whole import Apart, Labelled, set_apart


class Waiting:
    """Used by one thread. *compacted*: see :class:`Atomicity`."""

    def __init__(self, compacted: Callable[[TopicPartition], bool]) -> None:
        self._atomicity = Atomicity(compacted)
        self._stored: set[Place] = set()
        self._offered: list[Entry] = []
        self._freed: set[Place] = set()
        self.changed = False
        """True if something other than a record may have released some."""

    def join(self, late: Mapping[TopicPartition, range]) -> None:
        """These partitions are held from now on; *late*: see :meth:`Store.rejoin`."""
        self._atomicity.late |= late
        self._atomicity.reopen()

    def hold(self, entries: Collection[Entry], settled: Collection[str] = ()) -> None:
        """Take over what the store holds back of partitions that are owned from now on. Of the transactions
        *settled* it has applied other parts, while these were not followed."""
        self._atomicity.settled |= set(settled)
        self._atomicity.hold(entries)
        self._stored |= {entry.place for entry in entries}

    def disown(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what is held back of *partitions*; others may have waited for records of them."""
        if not self._atomicity.idle:
            self._atomicity.disown(partitions)
            self.changed = True
        self._stored = {place for place in self._stored if place.partition not in partitions}

    # -- what may be applied -------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return self._atomicity.idle

    def concerns(self, topic: str) -> bool:
        """True if records of *topic* may have to wait for what is held back."""
        return self._atomicity.concerns(topic)

    def set_apart(self, topics: Mapping[str, Labelled], position: Container[TopicPartition]) -> Apart:
        """As :func:`whole.set_apart`, beside what is held back here."""
        return set_apart(topics, position, self._atomicity.open, None if self.idle else self._atomicity.keys)

    @property
    def topics(self) -> set[str]:
        """The topics of which records are held back."""
        return self._atomicity.topics

    def offer(self, entries: Collection[Entry], position: Mapping[TopicPartition, int]) -> list[Unit]:
        """As :meth:`Atomicity.offer`."""
        self.changed = False
        released = self._atomicity.offer(entries, position)
        self._offered += entries
        self._freed.update(entry.place for unit in released for entry in unit.entries)
        return released

    def note(self, batch: Batch) -> None:
        """Tell *batch* what is held back after it, what no longer is, and how far its partitions are applied."""
        batch.held = [entry for entry in self._offered if entry.place not in self._freed]
        batch.released = list(self._freed & self._stored)
        batch.nbytes += sum(entry.nbytes for entry in batch.held)
        self._stored -= self._freed
        self._stored.update(entry.place for entry in batch.held)
        oldest = self._atomicity.oldest()
        for tp, move in batch.moves.items():
            move.applied = oldest.get(tp, move.next_offset)
        self.forget()

    def forget(self) -> None:
        """Forget what was offered and released since the last :meth:`note`."""
        self._offered, self._freed = [], set()

    # -- what can be waited for ----------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are held back."""
        return self._atomicity.nbytes

    def next_for(self, position: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """The partitions that the transaction which has waited longest lacks records of."""
        return self._atomicity.lacking(position)

    def unclosed(self) -> list[str]:
        """The transactions that wait, and of which it is not known where the log ended when they began."""
        return self._atomicity.unclosed()

    def decided(self) -> list[str]:
        """The transactions that lack records, and of which it was decided what becomes of them."""
        return self._atomicity.decided()

    def lacking(self) -> list[Entry]:
        """The records that are held back, of transactions that lack some."""
        return self._atomicity.lacking_records()

    def settle(self, transactions: Collection[str]) -> None:
        """These were decided on while other parts of them were not followed; they are looked at with the next batch."""
        self._atomicity.settled |= set(transactions)
        self.changed = True

    def close(self, transactions: Iterable[str], ends: Position) -> None:
        """As :meth:`Atomicity.close`; what waits is looked at again with the next batch."""
        self._atomicity.close(transactions, ends)
        self.changed = True

    def torn(self, position: Mapping[TopicPartition, int]) -> list[TornTransaction]:
        """The tables of transactions that will never be whole."""
        return [
            TornTransaction(table, f"transaction {torn.tx} lacks records for good: {_lost(torn.missing)}", tx=torn.tx)
            for torn in self._atomicity.torn(position)
            for table in sorted(torn.tables)
        ]

    def overfull(self, limit: int) -> list[PendingFull]:
        """The tables of which records are held back, if these are more than *limit* bytes."""
        if self.nbytes <= limit:
            return []
        tables = sorted({entry.place.partition.topic for entry in self._atomicity.held})
        why = f"{self.nbytes} bytes of records wait for transactions to become whole, {limit} may"
        return [PendingFull(table, why) for table in tables]


def _lost(missing: Mapping[TopicPartition, int]) -> str:
    return ", ".join(f"{count} in {tp}" for tp, count in sorted(missing.items()))
