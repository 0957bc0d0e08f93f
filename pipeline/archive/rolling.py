"""The open segment of one partition: records as they come, until it is closed. Pure, but for its size in memory.

Invariant: it covers every offset from *first* up to *next*, whether a record was there or not; of records
below *next* nothing is taken twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from ...consumers.checks import Seen, digest
from ...consumers.chunk import WholeChunk
from ...schemas.position import next_offset
from .segments import SegmentLimits, columns, schema_ids

#: Records that are made columns at once: in small batches Arrow's own overhead would outweigh them.
_RECORDS, _BYTES = 2_000, 2**20


def runs(partitions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(partition, first index, index after the last) of each run of one partition."""
    at = 0
    for partition, run in groupby(partitions):
        count = len(list(run))
        yield partition, at, at + count
        at += count


@dataclass
class OpenSegment:
    """*framed_keys*: keys have schema ids too. *opened_s* is when its first offset came, by the monotonic clock."""

    first: int
    framed_keys: bool = False
    next: int = -1
    rows: int = 0
    raw: int = 0
    min_ms: int = -1
    max_ms: int = -1
    last: Seen | None = None
    opened_s: float | None = None
    ids: set[bytes] = field(default_factory=set)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    _loose: WholeChunk = field(default_factory=WholeChunk)
    _loose_bytes: int = 0

    def __post_init__(self) -> None:
        self.next = max(self.next, self.first)

    @property
    def empty(self) -> bool:
        return self.next == self.first

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self.raw + self._loose_bytes

    def add(self, records: WholeChunk, start: int, stop: int, now_s: float) -> None:
        """Take the records from index *start* up to *stop*, which are of this partition and in order."""
        start = bisect_left(records.offsets, self.next, start, stop)
        if start == stop:
            return
        times = records.times_ms[start:stop]
        self.min_ms = min(times) if self.rows == 0 else min(self.min_ms, min(times))
        self.max_ms = max(self.max_ms, max(times))
        last = stop - 1
        seen = digest(records.keys[last], records.values[last])
        self.last = Seen(records.offsets[last], seen, records.record_epochs[last])
        self.ids |= schema_ids(records.values[start:stop])
        if self.framed_keys:
            self.ids |= schema_ids(records.keys[start:stop])
        self._keep(records, start, stop)
        self.rows += stop - start
        self.reach(next_offset(records.offsets[last]), now_s)

    def _keep(self, records: WholeChunk, start: int, stop: int) -> None:
        if not self._loose and stop - start >= _RECORDS:
            self._pack(records, start, stop)
            return
        self._loose.add_run(records, start, stop)
        self._loose_bytes += sum(map(len, filter(None, records.values[start:stop])))
        self._loose_bytes += sum(map(len, filter(None, records.keys[start:stop])))
        if len(self._loose) >= _RECORDS or self._loose_bytes >= _BYTES:
            self.pack()

    def pack(self) -> None:
        """Make columns of what is not yet."""
        loose, self._loose, self._loose_bytes = self._loose, WholeChunk(), 0
        if loose:
            self._pack(loose, 0, len(loose))

    def _pack(self, records: WholeChunk, start: int, stop: int) -> None:
        batch = columns(records, start, stop)
        self.batches.append(batch)
        self.raw += batch.nbytes

    def reach(self, offset: int, now_s: float) -> None:
        """Nothing more comes below *offset*."""
        if offset > self.next:
            self.next = offset
            self.opened_s = self.opened_s if self.opened_s is not None else now_s

    def full(self, limits: SegmentLimits) -> bool:
        return self.rows >= limits.records or self.size >= limits.bytes

    def due(self, limits: SegmentLimits, now_s: float) -> bool:
        """True if it is full, or old."""
        old = self.opened_s is not None and now_s - self.opened_s >= limits.age_s
        return not self.empty and (old or self.full(limits))
