"""How far a replica is, and who waits for it.

Invariants: the position only grows while partitions are held; a waiter is woken by what it waits for,
by the error that makes it impossible, or by its own timeout, whichever comes first.
"""

from __future__ import annotations

import threading
from typing import Any

from ..schemas.errors import MerganserError, NotFreshEnough, NotHeld, TableStopped
from ..schemas.position import Position, TopicPartition


class Progress:
    """The applied position, shared by the apply loop and its readers. Safe across threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._position = Position()
        self._served = Position()
        self._stopped: dict[str, TableStopped] = {}
        self._error: BaseException | None = None
        self._waiting_for: str | None = None

    # -- told by the apply loop ----------------------------------------------------------------

    def hold(self, position: Position) -> None:
        """These, and only these, partitions are held, each this far."""
        with self._changed:
            self._position = position
            self._changed.notify_all()

    def advance(self, position: Position) -> None:
        """The partitions of *position* are applied up to it."""
        with self._changed:
            self._position = self._position | position
            self._changed.notify_all()

    def stop_table(self, error: TableStopped) -> None:
        with self._changed:
            self._stopped[error.table] = error
            self._changed.notify_all()

    def fail(self, error: BaseException | None) -> None:
        """The apply loop ended with *error*; the first one stays."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def waiting_for(self, what: str | None) -> None:
        """What holds the apply loop up for now, in a word; None when nothing does."""
        with self._changed:
            self._waiting_for = what

    # -- asked by readers ----------------------------------------------------------------------

    @property
    def position(self) -> Position:
        with self._changed:
            return self._position

    @property
    def error(self) -> BaseException | None:
        with self._changed:
            return self._error

    @property
    def stopped(self) -> dict[str, TableStopped]:
        with self._changed:
            return dict(self._stopped)

    @property
    def held_up_by(self) -> str | None:
        with self._changed:
            return self._waiting_for

    def served(self, position: Position) -> None:
        """A query has shown *position*: no later one may show less, also after a reopen (FAILURES 24)."""
        with self._changed:
            self._served = self._served | position

    @property
    def floor(self) -> Position:
        """What queries have shown already, of the partitions that are held."""
        with self._changed:
            return Position({tp: n for tp, n in self._served.items() if tp in self._position})

    def wait(self, target: Position, timeout_s: float, level: str) -> None:
        """Until the position reaches *target*.

        NotHeld if a partition of it is not held; TableStopped, or what ended the apply loop, if it
        will not be reached; NotFreshEnough after *timeout_s*.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._settled(target), timeout_s)
            if not self._position.reaches(target):
                self._raise_if_hopeless(target)
                raise NotFreshEnough(level, timeout_s, self._how_far(target))

    def _settled(self, target: Position) -> bool:
        """True if waiting longer changes nothing: the target is reached, or never will be."""
        behind = self._position.behind(target)
        if not behind or self._error is not None:
            return True
        return any(tp.topic in self._stopped or tp not in self._position for tp in behind)

    def _raise_if_hopeless(self, target: Position) -> None:
        for tp in self._position.behind(target):
            if tp.topic in self._stopped:
                raise self._stopped[tp.topic]
            if tp not in self._position:
                raise NotHeld(str(tp))
        if isinstance(self._error, MerganserError):
            raise self._error
        if self._error is not None:
            raise MerganserError(f"the apply loop ended: {self._error!r}") from self._error

    def _how_far(self, target: Position) -> str:
        behind = self._position.behind(target)
        furthest: tuple[TopicPartition, Any] = max(behind.items(), key=lambda item: item[1])
        text = f"{sum(behind.values())} offsets behind, {furthest[0]} by {furthest[1]}"
        return f"{text}; waiting for {self._waiting_for}" if self._waiting_for else text
