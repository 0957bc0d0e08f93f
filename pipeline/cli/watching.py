"""A replica or an archiver at its work: how far it is, until it is done or told to stop, and how that is shown."""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from ...schemas.errors import LogUnavailable, MerganserError, TableStopped
from ...schemas.position import Position, TopicPartition
from .output import emit, emit_json, say

if TYPE_CHECKING:
    from rich.live import Live

    from ..log import Log


class Follower(Protocol):
    """What can be watched: a replica, an archiver."""

    @property
    def position(self) -> Position: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def stopped(self) -> Mapping[str, TableStopped]: ...
    @property
    def waiting_for(self) -> str | None: ...


def watch(
    replica: Follower,
    log: Log,
    screen: Screen,
    every_s: float | None,
    end: Position | None,
    done: str = "applied",
    beside: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Show how far the replica is until a signal comes, or it is at *end*; what ends the apply loop is raised.
    *beside* tells what else the process does."""
    looks, told, stuck = Looks(replica, log, done, beside), set[str](), Stuck(log)
    try:
        while True:
            screen.show(looks.look())
            last, stopped = replica.error, dict(replica.stopped)  # *last*: what the command's last words are of
            ended = end is not None and not replica.position.behind(end, but=stopped)
            if last is None and ended:
                last = next(iter(stopped.values()), None)
            for table in sorted(stopped.keys() - told):
                told.add(table)
                if stopped[table] is not last:
                    screen.warn(f"warning: {stopped[table]}")
                    screen.warn(f"hint: {stopped[table].hint}")
            if last is not None:
                raise as_ours(last)
            if ended:
                screen.show(looks.look())  # the last line tells the end
                return
            for line in stuck.look(looks.behind):
                screen.warn(f"warning: {line}")
            time.sleep(every_s or screen.every_s)
    except Stop:
        screen.warn(f"stopping at {replica.position}")
        raise


def as_ours(error: BaseException) -> MerganserError:
    if isinstance(error, MerganserError):
        return error
    failed = MerganserError(f"the apply loop ended: {error!r}")
    failed.hint = "the store is whole up to its position; MERGANSER_DEBUG=1 shows more"
    failed.__cause__ = error
    return failed


@contextmanager
def until_stopped() -> Iterator[None]:
    """SIGINT and SIGTERM end the block as if it were done."""

    def stop(number: int, frame: object) -> NoReturn:
        raise Stop

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Stop:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stop(BaseException):
    """A signal asked for the end. No Exception: nothing on the way may take it for a failure."""


# -- how far it is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """A replica at one moment. *lag* is None while the log does not answer. *done* is what it has done with
    the offsets below its position."""

    position: Position
    applied: int
    lag: int | None
    rate: float
    stopped: dict[str, str] = field(default_factory=dict)
    waiting_for: str | None = None
    done: str = "applied"
    beside: dict[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        return {
            "position": str(self.position),
            self.done: self.applied,
            "lag": self.lag,
            "rate": round(self.rate, 1),
            "stopped": self.stopped,
            "waiting_for": self.waiting_for,
            **self.beside,
        }

    def line(self) -> str:
        lag = "lag unknown" if self.lag is None else f"lag {self.lag:,}"
        parts = [f"{self.applied:,} {self.done}", lag, f"{self.rate:,.0f}/s"]
        parts += [f"{table} stopped" for table in self.stopped]
        if self.waiting_for:
            parts.append(f"waiting: {self.waiting_for}")
        parts += [f"{name}: {facts['failed']}" for name, facts in self.beside.items() if facts["failed"]]
        return " · ".join(parts)


_LOOK_S = 5.0


class Looks:
    """Looks at one replica. The rate is over the last seconds: batches come in bursts."""

    window_s = 3.0

    def __init__(self, replica: Follower, log: Log, done: str, beside: Callable[[], dict[str, Any]]) -> None:
        self._replica, self._log, self._done, self._beside = replica, log, done, beside
        self._lately: deque[tuple[float, int]] = deque()
        self.behind: dict[TopicPartition, int] = {}
        """Where the partitions stood at the last look that lack something."""

    def look(self) -> Status:
        replica, position = self._replica, self._replica.position
        try:
            lacking = position.behind(self._log.ends(position, _LOOK_S))
            lag: int | None = sum(lacking.values())
            self.behind = {tp: position[tp] for tp in lacking}
        except LogUnavailable:
            lag, self.behind = None, {}
        applied = sum(position.values())
        stopped = {table: why.why for table, why in replica.stopped.items()}
        waiting_for = replica.waiting_for
        return Status(position, applied, lag, self._rate(applied), stopped, waiting_for, self._done, self._beside())

    def _rate(self, applied: int) -> float:
        now_s = time.monotonic()
        self._lately.append((now_s, applied))
        while len(self._lately) > 2 and now_s - self._lately[1][0] > self.window_s:
            self._lately.popleft()
        then_s, before = self._lately[0]
        return max(0.0, (applied - before) / (now_s - then_s)) if now_s > then_s else 0.0


class Stuck:
    """Transactions that were left open where the replica does not get on: each is told once."""

    after_s = 10.0
    """How long it has to stand at a place, between two looks at it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._since_s: dict[tuple[TopicPartition, int], float] = {}
        self._told: set[tuple[TopicPartition, int]] = set()

    def look(self, behind: Mapping[TopicPartition, int]) -> list[str]:
        """Lines about those that were not told yet. *behind*: places where something lies that is not read."""
        now_s = time.monotonic()
        self._since_s = {place: self._since_s.get(place, now_s) for place in behind.items()}
        due = [place for place, since_s in self._since_s.items() if now_s - since_s >= self.after_s]
        due = [place for place in due if place not in self._told]
        if not due:
            return []
        for place in due:
            self._since_s[place] = now_s
        try:
            found = self._log.open_transactions([tp for tp, _ in due], _LOOK_S)
        except LogUnavailable:
            return []
        for each in found:
            self._told.update(place for place in due if place[0] == each.partition)
        return [past(each) for each in found]


def past(where: object) -> str:
    """What an open transaction, which *where* names, means for its readers."""
    return f"{where}: nobody reads past it before it ends"


# -- showing it --------------------------------------------------------------------------------


class Screen(Protocol):
    """Where a running replica is seen."""

    every_s: float

    def show(self, status: Status) -> None: ...

    def warn(self, line: str) -> None: ...

    def __enter__(self) -> Screen: ...

    def __exit__(self, *exc: object) -> None: ...


class JsonLines:
    """A JSON object for each look."""

    every_s = 1.0

    def show(self, status: Status) -> None:
        emit_json(status.fields())

    def warn(self, line: str) -> None:
        say(line)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class PlainLines:
    """A line now and then while rows come, and at once when it catches up, stops or waits."""

    every_s = 1.0
    seldom_s = 10.0

    def __init__(self) -> None:
        self._state: tuple[object, ...] = ()
        self._position = Position()
        self._shown_s = 0.0

    def show(self, status: Status) -> None:
        state = (status.lag == 0, tuple(status.stopped), status.waiting_for)
        moved = status.position != self._position
        if state != self._state or (moved and time.monotonic() - self._shown_s >= self.seldom_s):
            emit(status.line())
            self._state, self._position, self._shown_s = state, status.position, time.monotonic()

    def warn(self, line: str) -> None:
        say(line)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class StatusLine:
    """One line of the terminal, rewritten."""

    every_s = 0.5

    def __enter__(self) -> StatusLine:
        from rich.live import Live

        from .output import console

        self._live: Live = Live(console=console(), refresh_per_second=8)
        self._live.start()
        return self

    def show(self, status: Status) -> None:
        self._live.update(status.line())

    def warn(self, line: str) -> None:
        self._live.console.print(line)

    def __exit__(self, *exc: object) -> None:
        self._live.stop()


@contextmanager
def warnings(screen: Screen, *of: str) -> Iterator[None]:
    """Show what the loops *of* these names warn of. Errors are shown as states, or end the command."""
    handler = _ToScreen(screen)
    loggers = [logging.getLogger(name) for name in of]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _ToScreen(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._screen.warn(f"warning: {record.getMessage()}")
