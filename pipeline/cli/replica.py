"""``merganser replica run``: keep tables up with the log, until told to stop."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol

import typer

from ...schemas.errors import LogUnavailable, MerganserError, TableStopped, UsageError
from ...schemas.position import Position, TopicPartition
from .options import (
    DEFAULT_TIMEOUT_S,
    ArchiveUrl,
    AsJson,
    KeyFile,
    MaybeTimeout,
    RegistryUrl,
    Servers,
    comma_separated,
    open_log,
    option,
)
from .output import emit, emit_json, say

if TYPE_CHECKING:
    from rich.live import Live

    from ..archive.archive import Archive
    from ..archive.bridged import BridgedLog
    from ..config import NodeConfig
    from ..log import Log

app = typer.Typer(help="Replicas: tables of the log, kept in a DuckDB file.")

StoreFile = Annotated[Path | None, option("--store", "The replica's DuckDB file.", dir_okay=False)]
Group = Annotated[str | None, option("--group", "Name of the copy: a Kafka group id.")]
Tables = Annotated[str | None, option("--tables", "Tables to follow, comma-separated.")]
Config = Annotated[
    Path | None,
    option("--config", "A merganser.toml that says all this, and what to archive and to back up.", dir_okay=False),
]
Http = Annotated[str, option("--http", "Answer SQL over HTTP at HOST:PORT, like 127.0.0.1:8080.")]
Flight = Annotated[str, option("--flight", "Answer Flight SQL (ADBC, JDBC) at HOST:PORT, like 127.0.0.1:8815.")]
UsersFile = Annotated[Path | None, option("--users", "Who may ask: a file of `merganser user`.", dir_okay=False)]
TlsCert = Annotated[Path | None, option("--tls-cert", "Certificate with its chain, in PEM.", dir_okay=False)]
TlsKey = Annotated[Path | None, option("--tls-key", "The certificate's key, in PEM.", dir_okay=False)]
Insecure = Annotated[bool, option("--insecure", "Open the door though there are no users, or no TLS.")]
RequestLog = Annotated[Path | None, option("--request-log", "Write a JSON line a request here.", dir_okay=False)]
Split = Annotated[bool, option("--split", "Share the partitions with the other members of the group.")]
AcceptPartial = Annotated[bool, option("--accept-partial", "Start though the log has lost its oldest rows.")]
UntilEnd = Annotated[bool, option("--until-end", "End once it has all that the log had at the start.")]
Every = Annotated[
    float | None, option("--every", "Seconds between looks at how far it is (1; on a terminal 0.5).", min=0.05)
]


@app.callback()
def _group() -> None:
    """Replicas: tables of the log, kept in a DuckDB file."""


@app.command()
def run(
    store: StoreFile = None,
    group: Group = None,
    tables: Tables = None,
    config: Config = None,
    http: Http = "",
    flight: Flight = "",
    users: UsersFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
    request_log: RequestLog = None,
    split: Split = False,
    accept_partial: AcceptPartial = False,
    until_end: UntilEnd = False,
    every: Every = None,
    archive: ArchiveUrl = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: MaybeTimeout = None,
    json: AsJson = False,
) -> None:
    """Follow tables until Ctrl-C or SIGTERM. What is applied is exact, whenever the process ends.

    With --archive, rows that the log no longer has come from there. Ends with exit 1 if none of the tables can go on.
    While it runs, no other process can read FILE: ask it over --http or --flight. With --config it also archives, and
    makes backups in time; options go before what that file says.
    """
    from ...consumers.dbfile import Limits
    from ...consumers.replica import Replica
    from ..config import NodeConfig, ServeConfig, read_config
    from ..node import Node

    serve = ServeConfig(http, flight, users, tls_cert, tls_key, insecure, request_log)
    given = NodeConfig(store, group or "", tuple(comma_separated(tables)), serve=serve)
    said = given if config is None else read_config(config).after(given)
    _check(said, split, until_end, archive)
    servers, where = bootstrap_servers or said.bootstrap_servers, registry or said.registry
    screen: Screen = JsonLines() if json else StatusLine() if sys.stdout.isatty() else PlainLines()
    with until_stopped(), open_log(servers, where, timeout or said.timeout_s or DEFAULT_TIMEOUT_S) as log:
        below, source = _archives(said, archive, key_file, log)
        partial = accept_partial or said.accept_partial
        follow = Replica(
            str(said.store), source, said.group, said.tables,
            split=split, accept_partial=partial, limits=Limits(**said.limits),
        )  # fmt: skip
        with follow as replica:
            with screen, warnings(screen, *_LOUD), Node(said, log, replica, below, screen.warn) as node:
                for url in () if node.doors is None else (node.doors.http, node.doors.flight):
                    if url:
                        screen.warn(f"answering at {url}")
                end = log.ends(replica.position) if until_end else None
                watch(replica, log, screen, every, end, beside=node.status)


#: Who tells of a node's work.
_LOUD = ("merganser.apply", "merganser.archive", "merganser.node", "merganser.login")


def _check(said: NodeConfig, split: bool, until_end: bool, archive: str | None) -> None:
    """UsageError unless all of it can be done."""
    for what, value in (("--store", said.store), ("--group", said.group), ("--tables", said.tables)):
        if not value:
            raise UsageError(f"Missing option '{what}': neither given, nor in a file of --config")
    if split and until_end:
        raise UsageError("a member of a split group has no end: its partitions come and go")
    if split and (archive is not None or said.archive is not None):
        raise UsageError("a member of a split group is not filled from an archive: leave --archive or --split out")


def _archives(
    said: NodeConfig, url: str | None, key_file: Path | None, log: Log
) -> tuple[Archive | None, Log | BridgedLog]:
    """The node's own archive, and what the replica reads: the log, over an archive if there is one."""
    from ..archive.archive import Archive, open_archive

    if url is not None:
        below = open_archive(url, key_file)
        return (None if said.archive is None else below), below.under(log)
    if said.archive is None:
        return None, log
    own = Archive(said.archive.url, key_file or said.archive.key_file)
    return own, log if own.cluster_id() is None else own.under(log)


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
        return [f"{each}: nobody reads past it before it ends" for each in found]


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
