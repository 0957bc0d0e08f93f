"""Things that clients hold by a handle: answers to fetch, prepared statements. They are bounded, and age out."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handles(Generic[T]):
    """At most *most* things, each for *idle_s* after its last use, each for the user who made it only.

    What is dropped, by age or to make room (those that are *over* first), is handed to *dropped*. Safe across threads.
    """

    def __init__(
        self,
        most: int,
        idle_s: float,
        dropped: Callable[[T], None],
        now: Callable[[], float] = time.monotonic,
        over: Callable[[T], bool] = lambda thing: False,
    ) -> None:
        self._most, self._idle_s, self._dropped, self._now, self._over = most, idle_s, dropped, now, over
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[str, T, float]] = OrderedDict()

    def add(self, user: str, thing: T) -> bytes:
        handle = secrets.token_bytes(18)
        with self._lock:
            gone = self._aged()
            self._kept[handle] = (user, thing, self._now())
            if len(self._kept) > self._most:
                ended = [each for each, (_, kept, _) in self._kept.items() if self._over(kept)]
                gone += [self._kept.pop(each)[1] for each in ended]
            while len(self._kept) > self._most:
                gone.append(self._kept.popitem(last=False)[1][1])
        self._drop(gone)
        return handle

    def get(self, user: str, handle: bytes) -> T | None:
        """What *user* has by *handle*, and has used now."""
        with self._lock:
            gone = self._aged()
            found = self._kept.get(handle)
            mine = found is not None and found[0] == user
            if found is not None and mine:
                self._kept[handle] = (user, found[1], self._now())
                self._kept.move_to_end(handle)
        self._drop(gone)
        return found[1] if found is not None and mine else None

    def replace(self, user: str, handle: bytes, thing: T) -> None:
        with self._lock:
            if handle in self._kept and self._kept[handle][0] == user:
                self._kept[handle] = (user, thing, self._now())
                self._kept.move_to_end(handle)

    def take(self, user: str, handle: bytes) -> T | None:
        """The same, and it is forgotten here."""
        with self._lock:
            found = self._kept.get(handle)
            if found is None or found[0] != user:
                return None
            del self._kept[handle]
            return found[1]

    def clear(self) -> None:
        with self._lock:
            gone = [thing for _, thing, _ in self._kept.values()]
            self._kept.clear()
        self._drop(gone)

    def __len__(self) -> int:
        return len(self._kept)

    def _aged(self) -> list[T]:
        gone = []
        while self._kept:
            handle, (_, thing, used_s) = next(iter(self._kept.items()))
            if self._now() - used_s <= self._idle_s:
                break
            del self._kept[handle]
            gone.append(thing)
        return gone

    def _drop(self, gone: list[T]) -> None:
        for thing in gone:
            self._dropped(thing)
