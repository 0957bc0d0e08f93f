"""How many queries run, wait and are answered at once, whose turn it is, and when nobody's.

Invariants
- A free place goes to the user who has the fewest, and among those to who waits for longest: however much one user
  asks, another one's turn comes.
- A user who is known by name never has the last place, for what runs cannot be told to wait. A full queue is shared
  alike: who has most in it makes way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....schemas.errors import TooBusy
from ....schemas.kafka import Deadline
from .pause import Pause

#: How often who is next looks whether a pause is over: nobody tells of a checkpoint.
_LOOK_S = 0.01


@dataclass(eq=False)
class Waiter:
    """Somebody in the queue. *user* is None where nobody is known by name."""

    user: str | None
    sent_away: bool = False


def next_of(queue: Sequence[Waiter], held: Mapping[str | None, int], size: int) -> Waiter | None:
    """Who of *queue*, oldest first, has the next of *size* places, of which users hold some. Pure."""
    if sum(held.values()) >= size:
        return None
    may = [waiter for waiter in queue if waiter.user is None or held.get(waiter.user, 0) < max(1, size - 1)]
    return min(may, key=lambda waiter: held.get(waiter.user, 0), default=None)


def makes_way(queue: Sequence[Waiter], user: str | None) -> Waiter | None:
    """Who of a full *queue* leaves it for *user*: the newest of who has most in it, if that is more than *user* would
    have. Pure."""
    seats = Counter(waiter.user for waiter in queue)
    [(greediest, most)] = seats.most_common(1)
    if most <= seats[user] + 1:
        return None
    return next(waiter for waiter in reversed(queue) if waiter.user == greediest)


class Places:
    """*size* places, and a queue of at most *queued* before them. Safe across threads.

    None is taken while *pause* holds; *wal* says how many bytes the store's WAL has.
    """

    def __init__(self, size: int, queued: int, pause: Pause, wal: Callable[[], int]) -> None:
        self._changed = threading.Condition()
        self._size, self._queued = size, queued
        self._pause, self._wal = pause, wal
        self._held: Counter[str | None] = Counter()
        self._queue: list[Waiter] = []

    def take(self, deadline: Deadline, user: str | None = None) -> None:
        """Have a place, to be given back by :meth:`give`. TooBusy if the queue is full, or *deadline* passes in it."""
        me = Waiter(user)
        with self._changed:
            if len(self._queue) >= self._queued:
                self._send_away(makes_way(self._queue, user))
            self._queue.append(me)
            try:
                while not me.sent_away and not self._turn(me):
                    if deadline.passed:
                        raise TooBusy(f"{self._why()}; waited {deadline.timeout_s:.3g} s for a place")
                    looks = self._pause.on and self._next() is me
                    self._changed.wait(min(deadline.left_s, _LOOK_S) if looks else deadline.left_s)
                if me.sent_away:
                    raise TooBusy(f"{self.used} queries run, and others have fewer that wait")
                self._held[user] += 1
            finally:
                if not me.sent_away:
                    self._queue.remove(me)
                self._changed.notify_all()

    def give(self, user: str | None = None) -> None:
        with self._changed:
            self._held[user] -= 1
            self._held += Counter()  # drops those who have none
            self._changed.notify_all()

    @property
    def used(self) -> int:
        with self._changed:
            return self._held.total()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def paused(self) -> tuple[int, float]:
        """How often none was given, and for how many seconds in all."""
        with self._changed:
            return self._pause.times, self._pause.seconds

    def _next(self) -> Waiter | None:
        return next_of(self._queue, self._held, self._size)

    def _turn(self, me: Waiter) -> bool:
        return self._next() is me and not self._pause.holds(self._wal(), self._held.total(), time.monotonic())

    def _why(self) -> str:
        return "the store is to be checkpointed" if self._pause.on else f"{self.used} queries run"

    def _send_away(self, waiter: Waiter | None) -> None:
        if waiter is None:
            raise TooBusy(f"{self.used} queries run, {len(self._queue)} wait")
        waiter.sent_away = True
        self._queue.remove(waiter)
        self._changed.notify_all()
