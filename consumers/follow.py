"""Which tables a replica follows, and from where: the log's facts and the store's, brought together.

The decisions are in ``checks.py``; this is their I/O.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..schemas.errors import DerivedTable, KeyChanged, PartitionsChanged, TableStopped, TopicRecreated, UnknownTable
from ..schemas.position import Position, TopicPartition
from ..schemas.table import Table
from .checks import Seen, first_start, next_start
from .dbfile import StoredTable
from .decode import TableDecoder
from .derived import same_name
from .log import Log
from .store import Store

_log = logging.getLogger("merganser.apply")


@dataclass(frozen=True)
class Start:
    """Where to go on in one partition: *read_from* lies at or below *offset*, to show *last* again. *late*:
    see :meth:`Store.rejoin`."""

    partition: TopicPartition
    read_from: int
    offset: int
    last: Seen | None
    late: range


def check_same_key(table: Table, stored: tuple[tuple[str, ...], str]) -> None:
    """KeyChanged unless the store's rows were kept by the key that *table* has now."""
    if stored != (table.key, table.key_encoding):
        mine, theirs = (", ".join(key) or "none" for key in (table.key, stored[0]))
        raise KeyChanged(table.name, f"its key is {mine}, the store was built with {theirs}")


def _warn_of_partial(starts: Position) -> None:
    for tp, offset in starts.items():
        if offset > 0:
            _log.warning(
                "%s begins at offset %d: older rows are no longer in the log, the table is partial", tp, offset
            )


class Follow:
    """The followed tables of one replica. Used by the thread that begins, then by the collecting one."""

    def __init__(self, log: Log, store: Store, names: Sequence[str], accept_partial: bool) -> None:
        self._log = log
        self._store = store
        self.names = frozenset(names)
        self._accept_partial = accept_partial
        self.tables: dict[str, Table] = {}
        self.known: dict[str, Table] = {}
        self._stopped: set[str] = set()

    def load(self) -> tuple[list[TableDecoder], list[TableStopped]]:
        """Read the tables' declarations, and make those that the store lacks in it.

        What the store has and the log no longer, or with another key, is among those that must stop.
        UnknownTable, UnsupportedFormat.
        """
        self.tables = {}
        decoders: list[TableDecoder] = []
        stopped: list[TableStopped] = []
        stored = self._store.tables()
        for name in sorted(self.names - self._stopped):
            try:
                decoders.append(self._load(name, stored.get(name)))
            except TableStopped as why:
                stopped.append(why)
        self.known |= self.tables
        return decoders, stopped

    def _load(self, name: str, stored: StoredTable | None) -> TableDecoder:
        try:
            table = self._log.table(name)
        except UnknownTable as unknown:
            if stored is None:
                raise
            raise TopicRecreated(name, "the topic was deleted") from unknown
        if stored is None:
            self._refuse_derived(name)
        decoder = TableDecoder(table, stored.schema_version if stored else table.values[0].version, self._log.versions)
        if stored is None:
            self._store.add_table(table, decoder.columns(), decoder.version)
        else:
            check_same_key(table, stored.declared_key)
        self.tables[name] = table
        return decoder

    def _refuse_derived(self, name: str) -> None:
        """DerivedTable if rows of the log would go where a replay has put others."""
        derived = self._store.derived()
        found = same_name(name, derived)
        if found is not None:
            raise DerivedTable(name, f"{found} is derived here ({derived[found].made_of}), and no longer kept up")

    def leave(self, table: str) -> None:
        """Follow *table* no longer, until the replica is started again."""
        self._stopped.add(table)

    def goes_on(self, table: str) -> bool:
        """True unless *table* had to stop."""
        return table not in self._stopped

    def partitions(self, tables: Collection[str]) -> list[TopicPartition]:
        return [TopicPartition(name, p) for name in tables for p in range(self.tables[name].partitions)]

    def starts(self, partitions: Collection[TopicPartition]) -> tuple[list[Start], list[TableStopped]]:
        """Where to go on in each of *partitions*; those of a table that must stop are left out.

        PartialStart is raised: a table that the store has nothing of yet is better refused at once.
        """
        stored = self._store.positions()
        log_starts, log_ends = self._log.starts(partitions), self._log.ends(partitions)
        now_ms = time.time_ns() // 1_000_000
        found: list[Start] = []
        stopped: dict[str, TableStopped] = {}
        new: dict[str, dict[TopicPartition, int]] = {}
        marked = {name for name, table in self._store.tables().items() if table.stopped is not None}
        # What begins, or goes on, later than the rest of the store, or without the beginning of the log.
        partial = bool(stored) or any(log_starts.get(tp, 0) > 0 for tp in partitions)
        for tp in partitions:
            table = self.tables[tp.topic]
            if tp not in stored:
                offset = first_start(table, tp, log_starts.get(tp, 0), self._accept_partial)
                new.setdefault(table.name, {})[tp] = offset
                late = range(offset, log_ends.get(tp, 0)) if partial else range(0)
                found.append(Start(tp, offset, offset, None, late))
                continue
            try:
                read_from = next_start(table, tp, stored[tp], log_starts, log_ends, now_ms)
            except TableStopped as why:
                stopped.setdefault(table.name, why)
                continue
            last = stored[tp].last if read_from < stored[tp].next_offset else None
            at = stored[tp].next_offset
            late = range(at, log_ends.get(tp, 0)) if tp.topic in marked else stored[tp].late
            found.append(Start(tp, read_from, at, last, late))
        late_below = Position({start.partition: start.late.stop for start in found})
        for name, offsets in new.items():
            if name not in stopped:
                self._store.add_partitions(self.tables[name], Position(offsets), late_below)
                _warn_of_partial(Position(offsets))
        for name in marked & {tp.topic for tp in partitions} - stopped.keys():
            self._store.rejoin(late_below.of({name}))
            self._store.mark_stopped(name, None)
        return [start for start in found if start.partition.topic not in stopped], list(stopped.values())

    def changed(self, tables: Collection[str]) -> list[TableStopped]:
        """Which of *tables* are no longer the topics that they were. LogUnavailable."""
        found = self._log.identify(tables)
        stopped: list[TableStopped] = []
        for name in tables:
            table, now = self.tables[name], found.get(name)
            if now is None:
                stopped.append(TopicRecreated(name, "the topic was deleted"))
            elif now.topic_id != table.topic_id:
                stopped.append(TopicRecreated(name, f"the topic was created again (id {now.topic_id})"))
            elif now.partitions != table.partitions:
                stopped.append(PartitionsChanged(name, f"{now.partitions} partitions, it had {table.partitions}"))
        return stopped
