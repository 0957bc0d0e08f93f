"""How stale a read may be, without comparing two clocks (FAILURES 33).

The log's ends are sampled now and then, each sample at a time by this process's monotonic clock. A state
that has applied a sample is no older than the sample: what it lacks was written after.

Invariants: a sample's time is taken before the log is asked; only what is proven is said.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from ..schemas.position import Position, TopicPartition


class Sample(NamedTuple):
    """The ends of some partitions, asked for at *at_s* by the monotonic clock."""

    at_s: float
    ends: Position


class Samples:
    """The latest samples of one replica. Safe across threads."""

    def __init__(self, keep: int = 32) -> None:
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def note(self, at_s: float, ends: Position) -> None:
        with self._lock:
            self._samples.append(Sample(at_s, ends))

    def proof(self, partitions: Collection[TopicPartition], applied: Position, since_s: float) -> Position | None:
        """Ends of *partitions*, sampled at *since_s* or later, that *applied* has reached; None if there
        are none: then nothing proves that it is so fresh."""
        with self._lock:
            samples = list(self._samples)
        for sample in reversed(samples):
            ends = Position({tp: sample.ends[tp] for tp in partitions if tp in sample.ends})
            if sample.at_s >= since_s and len(ends) == len(set(partitions)) and applied.reaches(ends):
                return ends
        return None
