"""How many queries run, wait and are answered at once; and when none may begin."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ....schemas.errors import TooBusy
from ....schemas.kafka import Deadline
from .pause import Pause

#: How often the first who waits looks whether a pause is over: nobody tells of a checkpoint.
_LOOK_S = 0.01


class Places:
    """*running* places, and a queue of at most *queued* before them: first come, first served.

    None is taken while *pause* holds; *wal* says how many bytes the store's WAL has.
    """

    def __init__(self, running: int, queued: int, pause: Pause, wal: Callable[[], int]) -> None:
        self._changed = threading.Condition()
        self._free = running
        self._queue: deque[object] = deque()
        self._queued = queued
        self._size = running
        self._pause, self._wal = pause, wal

    def take(self, deadline: Deadline) -> None:
        """Have a place. TooBusy if the queue is full, or *deadline* passes in it."""
        me = object()
        with self._changed:
            if len(self._queue) >= self._queued:
                raise TooBusy(f"{self.used} queries run, {len(self._queue)} wait")
            self._queue.append(me)
            try:
                while self._queue[0] is not me or not self._open():
                    if deadline.passed:
                        raise TooBusy(f"{self._why()}; waited {deadline.timeout_s:.3g} s for a place")
                    looks = self._pause.on and self._queue[0] is me
                    self._changed.wait(min(deadline.left_s, _LOOK_S) if looks else deadline.left_s)
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

    @property
    def paused(self) -> tuple[int, float]:
        """How often none was given, and for how many seconds in all."""
        with self._changed:
            return self._pause.times, self._pause.seconds

    def _open(self) -> bool:
        return bool(self._free) and not self._pause.holds(self._wal(), self.used, time.monotonic())

    def _why(self) -> str:
        return "the store is to be checkpointed" if self._pause.on else f"{self.used} queries run"
