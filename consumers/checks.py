"""Where a replica may go on reading, decided from what its store says and what the log says. Pure.

Invariants (FAILURES 15-19, 34, 35): a start is never guessed. Either every record between the stored
position and the end of the log is still there, and is the record that the store has seen the last of,
or the table stops under a name that says which of these does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from ..schemas.errors import (
    LogTruncated,
    PartialStart,
    PartitionsChanged,
    RetentionLost,
    TombstonesLost,
    TopicRecreated,
)
from ..schemas.position import Position, TopicPartition
from ..schemas.table import Table

#: How far the host's clock may have gone back since the store was last at the end of a compacted topic.
_CLOCK_MS = 60_000


@dataclass(frozen=True)
class Seen:
    """The last record that a store has processed in a partition; how a changed log is recognised."""

    offset: int
    digest: bytes
    leader_epoch: int | None = None


@dataclass(frozen=True)
class Stored:
    """What the store says of one partition."""

    topic_id: str
    partitions: int
    next_offset: int
    caught_up_ms: int
    """When the store last stood at the end of the partition, milliseconds by this host's clock."""
    late: range
    """Of transactions with a record in it, the store may have read the rest before, or never get it."""
    applied_offset: int
    """Before the first record that is held back, or the next offset."""
    last: Seen | None


@dataclass(frozen=True)
class Held:
    """Of what a store is in one partition: all offsets from *first* up to *next* of that topic. *late*: see
    :class:`Stored`."""

    topic_id: str
    first: int
    next: int
    late: range


def digest(key: bytes | None, value: bytes | None) -> bytes:
    """16 bytes that tell one record from another at the same offset."""
    hashed = blake2b(digest_size=16)
    for part in (key, value):
        hashed.update(b"\xff" if part is None else len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def first_start(table: Table, tp: TopicPartition, log_start: int, accept_partial: bool) -> int:
    """The first offset of a partition that the store has never read."""
    if log_start > 0 and not accept_partial:
        raise PartialStart(table.name, f"{tp} begins at offset {log_start}, not 0: older rows are gone")
    return log_start


def next_start(table: Table, tp: TopicPartition, stored: Stored, starts: Position, ends: Position, now_ms: int) -> int:
    """The offset to read from, so that the stored position is continued; TableStopped if it cannot be."""
    if stored.topic_id != table.topic_id:
        raise TopicRecreated(
            table.name, f"the topic was created again (id {table.topic_id}, the store has {stored.topic_id})"
        )
    if stored.partitions != table.partitions:
        raise PartitionsChanged(
            table.name, f"it has {table.partitions} partitions, the store was built with {stored.partitions}"
        )
    start, end = starts.get(tp, 0), ends.get(tp, 0)
    if stored.next_offset > end:
        raise LogTruncated(table.name, f"{tp} ends at {end}, the store has applied up to {stored.next_offset}")
    if stored.next_offset < start:
        raise RetentionLost(table.name, f"{tp} begins at {start}, the store needs {stored.next_offset}")
    away_ms = now_ms - stored.caught_up_ms
    if table.compacted and end > stored.next_offset and away_ms > table.delete_retention_ms:
        raise TombstonesLost(
            table.name,
            f"{tp}: away for {away_ms / 1000:.0f} s, deletes are kept {table.delete_retention_ms / 1000:.0f} s",
        )
    if table.compacted and end > stored.next_offset and away_ms < -_CLOCK_MS:
        why = f"the store was at its end {-away_ms / 1000:.0f} s from now, so no clock tells for how long it was away"
        raise TombstonesLost(table.name, f"{tp}: {why}")
    # Begin at the last record seen, if it is there, to compare it with what the store remembers.
    if stored.last is not None and start <= stored.last.offset:
        return stored.last.offset
    return stored.next_offset


def still_there(table: Table, tp: TopicPartition, last: Seen, record: Seen) -> None:
    """*record* is the first that the log shows from *last* on: LogTruncated unless it is that one, or
    compaction may have taken that one."""
    if record.offset > last.offset:
        vanished(table, tp, last)
    elif record.digest != last.digest:
        raise LogTruncated(table.name, f"{tp} has another record at offset {last.offset} than the one applied")


def vanished(table: Table, tp: TopicPartition, last: Seen) -> None:
    """The log went past *last* without showing it: LogTruncated unless compaction may have taken it."""
    if not table.compacted:
        raise LogTruncated(table.name, f"{tp} no longer has the record at offset {last.offset} that was applied")
