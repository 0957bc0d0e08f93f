"""How far a replica is, and who waits for it.

Two positions: *read*, below which every record is accounted for, and *applied*, which stops before the
first record that is held back. A token is reached when the second has passed it; what a query has shown
is reached when the first has, since what is held back at a position is the same each time.

Invariants: the positions only grow while partitions are held; a waiter is woken by what it waits for,
by the error that makes it impossible, or by its own timeout, whichever comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..schemas.errors import MerganserError, NotFreshEnough, NotHeld, TableStopped
from ..schemas.position import Position, TopicPartition


class Progress:
    """The positions, shared by the apply loop and its readers. Safe across threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._read = Position()
        self._applied = Position()
        self._served = Position()
        self._stopped: dict[str, TableStopped] = {}
        self._error: BaseException | None = None
        self._waiting_for: str | None = None

    # -- told by the apply loop ----------------------------------------------------------------

    def hold(self, read: Position, applied: Position) -> None:
        """These, and only these, partitions are held, each this far."""
        with self._changed:
            self._read, self._applied = read, applied
            self._changed.notify_all()

    def advance(self, read: Position, applied: Position) -> None:
        """These partitions are this much further."""
        with self._changed:
            self._read, self._applied = self._read | read, self._applied | applied
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
    def read(self) -> Position:
        """Every record below it is accounted for."""
        with self._changed:
            return self._read

    @property
    def applied(self) -> Position:
        """Every record below it is applied, or never will be."""
        with self._changed:
            return self._applied

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
            return Position({tp: n for tp, n in self._served.items() if tp in self._read})

    def wait(self, applied: Position, timeout_s: float, level: str, read: Position | None = None) -> None:
        """Until the applied position reaches *applied*, and the read one *read*.

        NotHeld if a partition of them is not held; TableStopped, or what ended the apply loop, if they
        will not be reached; NotFreshEnough after *timeout_s*.
        """
        read = read or Position()
        with self._changed:
            self._changed.wait_for(lambda: self._settled(applied, read), timeout_s)
            behind = self._behind(applied, read)
            if behind:
                self._raise_if_hopeless(behind)
                raise NotFreshEnough(level, timeout_s, self._how_far(behind), lacks=behind)

    def _behind(self, applied: Position, read: Position) -> dict[TopicPartition, int]:
        """How many offsets each partition lacks."""
        return self._read.behind(read) | self._applied.behind(applied)

    def _settled(self, applied: Position, read: Position) -> bool:
        """True if waiting longer changes nothing: the targets are reached, or never will be."""
        behind = self._behind(applied, read)
        if not behind or self._error is not None:
            return True
        return any(tp.topic in self._stopped or tp not in self._read for tp in behind)

    def _raise_if_hopeless(self, behind: Mapping[TopicPartition, int]) -> None:
        for tp in behind:
            if tp.topic in self._stopped:
                raise self._stopped[tp.topic]
            if tp not in self._read:
                raise NotHeld(str(tp))
        if isinstance(self._error, MerganserError):
            raise self._error
        if self._error is not None:
            raise MerganserError(f"the apply loop ended: {self._error!r}") from self._error

    def _how_far(self, behind: Mapping[TopicPartition, int]) -> str:
        text, furthest = how_far(behind), max(behind, key=behind.__getitem__)
        if self._read[furthest] > self._applied[furthest]:
            text += ", where records wait for their transactions to become whole"
        return f"{text}; waiting for {self._waiting_for}" if self._waiting_for else text


def how_far(behind: Mapping[TopicPartition, int]) -> str:
    """What partitions lack, in words."""
    furthest, by = max(behind.items(), key=lambda item: item[1])
    return f"{sum(behind.values())} offsets behind, {furthest} by {by}"
