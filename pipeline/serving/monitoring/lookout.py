"""How far the log is, looked at now and then beside the replica: for lag, readiness and what is stuck.

Invariants: whoever asks gets what was seen last and never waits for Kafka; a log that does not answer is told as
such, and what was seen before stays, with its age.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ....schemas.errors import LogError, TableStopped
from ....schemas.kafka import Member
from ....schemas.position import Position, TopicPartition
from .repeating import Repeating

_EVERY_S = 2.0
#: Until the replica has caught up for the first time, somebody may wait for that.
_EAGER_S = 0.25
_PATIENCE_S = 5.0


class Ends(Protocol):
    """The log, as far as it is looked at here."""

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position: ...
    def stable_ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position: ...
    def members(self, group: str, timeout_s: float | None = None) -> tuple[Member, ...]: ...


class Follower(Protocol):
    """A replica."""

    group: str
    split: bool

    @property
    def position(self) -> Position: ...
    @property
    def read_position(self) -> Position: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def stopped(self) -> Mapping[str, TableStopped]: ...


@dataclass(frozen=True)
class Stuck:
    """A partition whose readers get no further than *offset*, though the log goes on for *records* more, since
    *since_s* by the monotonic clock: a transaction is open there."""

    offset: int
    records: int
    since_s: float


@dataclass(frozen=True)
class Sight:
    """What was seen of the log *at_s*, and of the members of a split group. *away* says why the last look failed, None
    if it did not."""

    at_s: float = 0.0
    ends: Position = field(default_factory=Position)
    stuck: Mapping[TopicPartition, Stuck] = field(default_factory=dict)
    away: str | None = "the log was not looked at yet"
    members: tuple[Member, ...] = ()


def seen(before: Sight, ends: Position, stable: Position, now_s: float, members: tuple[Member, ...] = ()) -> Sight:
    """The next sight. Pure: what was stuck at the same offset before has been so since then."""
    stuck = {}
    for tp, end in ends.items():
        offset = stable.get(tp, end)
        if offset < end:
            known = before.stuck.get(tp)
            since_s = known.since_s if known is not None and known.offset == offset else now_s
            stuck[tp] = Stuck(offset, end - offset, since_s)
    return Sight(now_s, ends, stuck, None, members)


class Lookout:
    """Looks at the log in a thread, between ``start`` and ``stop``."""

    def __init__(self, replica: Follower, log: Ends, every_s: float = _EVERY_S) -> None:
        self._replica, self._log, self._every_s = replica, log, every_s
        self._sight = Sight()
        self._lacking: Mapping[TopicPartition, int] | None = None
        self._goal: Position | None = None
        self._caught_up = False
        self._looking = Repeating("merganser-lookout", self._step)
        self.start, self.stop = self._looking.start, self._looking.stop

    @property
    def sight(self) -> Sight:
        return self._sight

    def lag(self) -> dict[TopicPartition, int]:
        """Records that each partition lacks of what was seen."""
        position, ends = self._replica.position, self._sight.ends
        return {tp: max(0, ends[tp] - offset) for tp, offset in position.items() if tp in ends}

    def behind(self) -> Mapping[TopicPartition, int] | None:
        """Records that each partition lacked when the log was last looked at; None while it was not. In a steady stream
        :meth:`lag` is less, for meanwhile the replica went on, and so did the log."""
        return self._lacking

    def not_ready(self) -> str | None:
        """Why nobody should be sent here; None if the replica may be asked. Anybody may hear it, so it has no names.

        It is ready from when it first had all that the log had at its start. Later on a reader says how fresh its
        answer has to be.
        """
        if self._replica.error is not None:
            return "the apply loop ended"
        if self._looking.stopping:
            return "the node stops"
        if not self._caught_up:
            return self._behind()
        return None

    def _behind(self) -> str | None:
        goal = self._goal
        if goal is None:
            return "how far the log is, is not known yet"
        position, stopped = self._replica.position, self._replica.stopped
        if not position:
            return "it has no partitions"
        # Of a split group, another member may have some of them by now.
        if any(tp in position for tp in position.behind(goal, but=stopped)):
            return "still behind what the log had at the start"
        self._caught_up = True
        return None

    # -- inside ------------------------------------------------------------------------------

    def look(self, now: Callable[[], float] = time.monotonic) -> None:
        """Once."""
        partitions = list(self._replica.read_position)
        try:
            # In this order, so that what is written in between does not look stuck.
            ends = self._log.ends(partitions, _PATIENCE_S)
            stable = self._log.stable_ends(partitions, _PATIENCE_S)
            members = self._log.members(self._replica.group, _PATIENCE_S) if self._replica.split else ()
        except LogError as error:
            before = self._sight
            self._sight = replace(before, away=str(error))
            return
        self._sight = seen(self._sight, ends, stable, now(), members)
        self._lacking = self.lag()
        if self._goal is None and partitions:
            self._goal = ends
        if not self._caught_up:
            self._behind()

    def _step(self) -> float:
        self.look()
        return self._every_s if self._caught_up else min(_EAGER_S, self._every_s)
