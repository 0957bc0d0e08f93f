"""How long commits take: counted by the apply loop, read by whoever shows it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import NamedTuple

#: Upper bounds of the buckets, in seconds.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Times(NamedTuple):
    """*counts* is for each bound, not summed up, and for what lies beyond the last; *total_s* of all."""

    counts: tuple[int, ...]
    total_s: float


class Meter:
    """Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0

    def took(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect_left(BOUNDS_S, seconds)] += 1
            self._total_s += seconds

    @property
    def times(self) -> Times:
        with self._lock:
            return Times(tuple(self._counts), self._total_s)
