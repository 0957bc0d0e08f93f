"""How many queries run, wait and are answered at once."""

from __future__ import annotations

import threading
from collections import deque

from ....schemas.errors import TooBusy
from ....schemas.kafka import Deadline


class Places:
    """*running* places, and a queue of at most *queued* before them: first come, first served."""

    def __init__(self, running: int, queued: int) -> None:
        self._changed = threading.Condition()
        self._free = running
        self._queue: deque[object] = deque()
        self._queued = queued
        self._size = running

    def take(self, deadline: Deadline) -> None:
        """Have a place. TooBusy if the queue is full, or *deadline* passes in it."""
        me = object()
        with self._changed:
            if len(self._queue) >= self._queued and not (self._free and not self._queue):
                raise TooBusy(f"{self.used} queries run, {len(self._queue)} wait")
            self._queue.append(me)
            try:
                if not self._changed.wait_for(lambda: self._free and self._queue[0] is me, deadline.left_s):
                    raise TooBusy(f"{self.used} queries run; waited {deadline.timeout_s:.3g} s for a place")
                self._free -= 1
            finally:
                self._queue.remove(me)
                self._changed.notify_all()

    def give(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    @property
    def used(self) -> int:
        return self._size - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)
