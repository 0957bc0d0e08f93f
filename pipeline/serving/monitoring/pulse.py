"""The pulse of a node: what it applied and how far it was behind, each second of the last minutes. For who draws it.

Invariants
- It is read off what the replica has in memory: neither the store nor Kafka is asked, so it costs next to nothing.
- It never goes back: what a partition that comes or goes brings along is no work of the apply loop, and is not counted.
- It is bounded: so many samples, whatever the node follows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ....schemas.position import Position, TopicPartition
from .repeating import Repeating

_EVERY_S = 1.0
_SAMPLES = 300


class Follower(Protocol):
    """A replica."""

    @property
    def read_position(self) -> Position: ...


class Behind(Protocol):
    """The lookout: how many records each partition lacked at the last look; None while nothing was seen."""

    def behind(self) -> Mapping[TopicPartition, int] | None: ...


@dataclass(frozen=True)
class Sample:
    """By table, at *at_s*: records worked through since the node began, and those that were lacking."""

    at_s: float
    done: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)


def following(
    before: Sample, was: Position, now: Position, behind: Mapping[TopicPartition, int] | None, at_s: float
) -> Sample:
    """The sample after *before*: the position was *was*, and is *now*. Pure."""
    done = {tp.topic: before.done.get(tp.topic, 0) for tp in now}
    lag: dict[str, int] = {}
    for tp, offset in now.items():
        done[tp.topic] += max(0, offset - was.get(tp, offset))
        if behind is not None:
            lag[tp.topic] = lag.get(tp.topic, 0) + behind.get(tp, 0)
    return Sample(at_s, done, lag)


class Pulse:
    """Takes a sample each second in a thread, between :meth:`start` and :meth:`stop`. Safe across threads."""

    def __init__(self, replica: Follower, lookout: Behind, now: Callable[[], float] = time.monotonic) -> None:
        self._replica, self._lookout, self._now = replica, lookout, now
        self._was = replica.read_position
        self._samples: deque[Sample] = deque([following(Sample(0), self._was, self._was, None, now())], _SAMPLES)
        beating = Repeating("merganser-pulse", self._step, _EVERY_S)
        self.start, self.stop = beating.start, beating.stop

    def beat(self) -> None:
        """One sample."""
        position = self._replica.read_position
        before = self._samples[-1]
        self._samples.append(following(before, self._was, position, self._lookout.behind(), self._now()))
        self._was = position

    def since(self, at_s: float, may_read: Callable[[str], bool]) -> dict[str, Any]:
        """The samples after *at_s*, by table that may be read; None where a table was not there or nothing was seen."""
        samples = [sample for sample in list(self._samples) if sample.at_s > at_s]
        tables = sorted({table for sample in samples for table in sample.done if may_read(table)})
        return {
            "at_s": [round(sample.at_s, 3) for sample in samples],
            "tables": {
                table: {
                    "done": [sample.done.get(table) for sample in samples],
                    "lag": [sample.lag.get(table) for sample in samples],
                }
                for table in tables
            },
        }

    def _step(self) -> float:
        self.beat()
        return _EVERY_S
