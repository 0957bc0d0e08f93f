"""The one who looks at all queries at once: which has run for too long, and what they take together.

Invariant: a query that is to stop is interrupted again and again until it has left the store, since an
interrupt that comes before DuckDB begins is lost.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ....schemas.errors import MerganserError, TooLarge

_LOOK_S = 0.02
_STATM = Path("/proc/self/statm")


class Watched(Protocol):
    """What has a bound in time."""

    @property
    def until_s(self) -> float:
        """By the monotonic clock."""
        ...

    @property
    def stopping(self) -> bool:
        """True once it was told to stop."""
        ...

    def stop(self, why: MerganserError | None = None) -> None:
        """End it; *why*, if it is not the time. May be called again and again."""
        ...


def resident() -> int | None:
    """What the process has in memory, in bytes; None where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class Watch:
    """Stops what runs past its time; stops every query once all of them made the process grow by *growth*."""

    def __init__(self, growth: int, resident: Callable[[], int | None] = resident) -> None:
        self._growth, self._resident = growth, resident
        self._changed = threading.Condition()
        self._running: set[Watched] = set()
        self._waiting: set[Watched] = set()
        self._before: int | None = None
        self._ending: MerganserError | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="merganser-watch", daemon=True)
        self._thread.start()

    def running(self, query: Watched) -> None:
        """*query* begins to read the store."""
        with self._changed:
            if not self._running:
                self._before = self._resident()
            self._running.add(query)
            self._changed.notify_all()

    def left(self, query: Watched) -> None:
        """*query* does not read the store any more."""
        with self._changed:
            self._running.discard(query)

    def keep(self, answer: Watched) -> None:
        """*answer* may be read for its time."""
        with self._changed:
            self._waiting.add(answer)
            self._changed.notify_all()

    def drop(self, answer: Watched) -> None:
        with self._changed:
            self._waiting.discard(answer)

    def stop(self, why: MerganserError) -> None:
        """Stop all that runs, and whatever begins from now on."""
        with self._changed:
            self._ending = why
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def look(self) -> None:
        """Stop what is to be stopped now."""
        now = time.monotonic()
        with self._changed:
            running, waiting = list(self._running), list(self._waiting)
        why = self._ending or (self._grown() if running else None)
        for query in running:
            if why is not None:
                query.stop(why)
            elif query.stopping or query.until_s <= now:
                query.stop()
        for answer in waiting:
            if answer.until_s <= now:
                answer.stop()

    def _grown(self) -> TooLarge | None:
        now = self._resident()
        if now is None or self._before is None or now - self._before <= self._growth:
            return None
        return TooLarge(f"the queries that run now take more than {self._growth / 2**20:,.0f} MiB")

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._ended:
                    return
                self._changed.wait(self._pause_s())
            with contextlib.suppress(RuntimeError):  # a cursor that was closed meanwhile
                self.look()

    def _pause_s(self) -> float | None:
        if self._running:
            return _LOOK_S
        if not self._waiting:
            return None
        # What answers have left may become less while nobody tells: see Answer.expire.
        return min(1.0, max(0.05, min(a.until_s for a in self._waiting) - time.monotonic()))
