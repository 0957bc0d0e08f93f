"""The demo from beginning to end, a step a function.

It holds (``--once`` exits 0) only if: the replica was killed while it was in the middle, what it had
then was never less than what it had said, and at the end every account adds up, the log has exactly the
records that were accounted for, and each table equals its CSV file row by row, in both directions.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...consumers.audit import Account, audit_log, audit_store
from ...consumers.storefile import StoreFile
from ...schemas.errors import BadQuery, BrokerError, DemoFailed, MerganserError
from ...schemas.position import Position
from ..broker.home import merganser_home
from ..broker.process import exclusive
from ..cli.audit import show as show_accounts
from ..cli.output import count, emit, emit_table, say
from ..log import Log
from .child import GROUP, Child
from .compare import Comparison, compare
from .data import Data
from .questions import QUESTIONS
from .screen import Bars, show_comparisons, show_result
from .source import Source, create_tables, find_source, write_rows

if TYPE_CHECKING:
    from ...consumers.replica import Replica

#: How far the replica is, of all rows, when it is killed.
KILL_AT = (0.2, 0.55)

#: A quick replica may be through before the kill: then it starts from nothing again.
_TRIES = 5

#: Of the page, if nobody has it.
_PORT = 8080

_TICK_S = 0.02
_STALLED_S = 60.0


def tell(log: Log, *, once: bool, fresh: bool, registry: str | None) -> None:
    """The whole story. DemoFailed if what it shows does not hold."""
    home = merganser_home() / "demo"
    store = home / "replica.duckdb"
    with _alone(home):
        data = Data(home)
        page = None if once else _place_of_page()
        source = _introduce(log, data, home, fresh)
        source = _follow(log, data, source, store, home, registry, page)
        _ask(store, source.names)
        _prove(log, data, source, store)
        emit(f"\nNothing lost, nothing doubled. The store is {store}")
        emit(f"The broker at {log.bootstrap_servers} runs on: `merganser broker stop` ends it.")
        if not once:
            _stay(log, source, store, page)


# -- steps -------------------------------------------------------------------------------------


def _introduce(log: Log, data: Data, home: Path, fresh: bool) -> Source:
    """Say what comes, and find or make the tables."""
    emit(f"Flights out of New York in 2013: CSV -> Kafka at {log.bootstrap_servers} -> DuckDB")
    source = find_source(log, home / "log.json", fresh, say)
    if source.token is None:
        create_tables(log, source)
    counts = data.counts()
    rows = [(source.names[name], f"{n:,}") for name, n in counts.items()]
    heading = "rows to write" if source.token is None else "rows in the log"
    emit_table(["table", heading], rows, numeric=[heading])
    return source


def _follow(
    log: Log, data: Data, source: Source, store: Path, home: Path, registry: str | None, page: str | None
) -> Source:
    """Write the rows, unless they are there, while a replica follows and is killed; until it has all."""
    writing = source.token is None
    total = sum(data.counts().values())
    for attempt in range(1, _TRIES + 1):
        _remove(store)
        child = Child(store, log.bootstrap_servers, registry, list(source.names.values()), page)
        try:
            with Bars(total, writing) as bars:
                watch = _Watch(log, child, bars, total)
                meanwhile = ", while rows are written" if writing else ""
                bars.say(f"\nA replica follows, as a process of its own{meanwhile}")
                if page is not None:
                    bars.say(f"  look at it in a browser: http://{page}")
                if writing:
                    source = write_rows(log, data, source, home / "log.json", watch.tick)
                watch.until_all()
            child.stop()
        finally:
            child.abandon()
        if watch.kills == len(KILL_AT):
            return source
        emit(f"  the replica was through before it could be killed; again, from nothing ({attempt})")
        writing = False
    raise DemoFailed(f"in {_TRIES} runs the replica could not be killed in the middle")


class _Watch:
    """Looks at the replica, shows it, and kills it when its time has come."""

    def __init__(self, log: Log, child: Child, bars: Bars, total: int) -> None:
        self._log, self._child, self._bars, self._total = log, child, bars, total
        self._promised = Position()
        self.kills = 0

    def tick(self, written: int) -> None:
        """One look, *written* rows after the beginning."""
        seen = self._child.seen
        self._child.check()
        if not seen.position.reaches(self._promised):
            raise DemoFailed(f"the replica went back: its file had {self._promised}, now it says {seen.position}")
        self._bars.show(written, seen)
        if self.kills < len(KILL_AT) and KILL_AT[self.kills] * self._total <= seen.applied < written:
            self._kill()

    def until_all(self) -> None:
        """Until the replica has applied everything."""
        applied, moved_s = -1, 0.0
        while (seen := self._child.seen).applied < self._total:
            if seen.applied != applied:
                applied, moved_s = seen.applied, time.monotonic()
            elif time.monotonic() - moved_s > _STALLED_S:
                raise DemoFailed(f"the replica has not moved for {_STALLED_S:g} s, at {seen.position}")
            self.tick(self._total)
            time.sleep(_TICK_S)
        self._bars.show(self._total, seen)
        self._bars.say(f"  the replica has applied {count(seen.applied, 'row')}")

    def _kill(self) -> None:
        """SIGKILL. It counts if the log had rows by then that the file has not: it was at work on them."""
        child, pid = self._child, self._child.pid
        ends, said = self._log.ends(child.seen.position), child.seen.position
        found = child.kill()
        if not found.reaches(said):
            raise DemoFailed(f"the replica said {said}, its file has {found} after SIGKILL")
        left = sum(found.behind(ends).values())
        if left:
            self.kills += 1
            applied = f"{sum(found.values()):,} rows"
            self._bars.say(f"  kill -9 {pid}: at {applied}, with {left:,} waiting; starting it again")
        self._promised = found
        child.start()


def _ask(store: Path, names: dict[str, str]) -> None:
    with StoreFile(store) as found:
        for title, sql in QUESTIONS.items():
            show_result(title, found.query(sql.format(**{k: f'"{v}"' for k, v in names.items()})))


def _prove(log: Log, data: Data, source: Source, store: Path) -> None:
    emit("\nThe account of every offset, and the log read again")
    with StoreFile(store) as found, found.reading() as cursor:
        accounts = audit_store(cursor)
    accounts = audit_log(accounts, log)
    show_accounts(accounts, with_log=True)
    emit("\nThe replica against DuckDB's own reading of the CSV files, row by row")
    comparisons = compare(data, store, source.names)
    show_comparisons(comparisons)
    _check(source, accounts, comparisons)


def _check(source: Source, accounts: list[Account], comparisons: list[Comparison]) -> None:
    """DemoFailed names everything that does not hold."""
    wrong = [line for account in accounts for line in (*account.wrong, *account.unproven)]
    wrong += [
        f"{c.table}: {c.in_csv} rows by CSV, {c.in_replica} in the replica, {c.missing} missing, {c.extra} extra"
        for c in comparisons
        if not c.held
    ]
    position = Position({tp: n for account in accounts for tp, n in account.position.items()})
    if source.token is None or not position.reaches(source.token):
        wrong.append(f"the replica is at {position}, the last row at {source.token}")
    if wrong:
        raise DemoFailed("; ".join(wrong), hint="this must not happen: keep the store and the log, and tell us")


# -- staying -----------------------------------------------------------------------------------


def _stay(log: Log, source: Source, store: Path, page: str | None) -> None:
    """Keep the replica following, with its page, and answer SQL, until the user has enough."""
    from ...consumers.replica import Replica
    from ..config import ServeConfig
    from ..serving.doors import Doors

    names = list(source.names.values())
    with ExitStack() as stack:
        replica = stack.enter_context(Replica(store, log, GROUP, names))
        if page is not None:
            stack.enter_context(Doors(ServeConfig(http=page), replica, log))
            emit(f"\nIts page, with a box for SQL: http://{page}")
        emit(f"\nThe replica follows {', '.join(names)}. Write to it from elsewhere, for example:")
        emit(f"  merganser delete {source.names['airlines']} VX --bootstrap-servers {log.bootstrap_servers}")
        emit("SQL, or an empty line to end:" if sys.stdin.isatty() else "Ctrl-C ends it.")
        try:
            for sql in _lines():
                _answer(replica, sql)
                if replica.error is not None:
                    raise replica.error
        except KeyboardInterrupt:
            emit("")


def _place_of_page() -> str | None:
    """Where the page of the replica will be; None if what serves it is not installed."""
    if find_spec("uvicorn") is None:
        return None
    for port in (_PORT, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                tried.bind(("127.0.0.1", port))
                return f"127.0.0.1:{tried.getsockname()[1]}"
    return None


def _answer(replica: Replica, sql: str) -> None:
    try:
        result = replica.query(sql, level="strong")
    except MerganserError as error:
        say(f"error: {error}" + ("" if isinstance(error, BadQuery) else f" ({error.hint})"))
        return
    emit_table(result.columns, result.rows())


def _lines() -> Iterator[str]:
    """What the user types, up to an empty line; nothing, for ever, where there is no terminal."""
    while not sys.stdin.isatty():
        time.sleep(1)
    while sql := _prompt():
        yield sql


def _prompt() -> str:
    try:
        return input("sql> ").strip()
    except EOFError:
        return ""


# -- odds and ends -----------------------------------------------------------------------------


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    def waiting() -> None:
        raise DemoFailed(f"another demo runs, in {home}", hint="end that one, or use another MERGANSER_HOME")

    try:
        with exclusive(home / "lock", 0, waiting):
            yield
    except BrokerError as error:
        raise DemoFailed(error.why) from error


def _remove(store: Path) -> None:
    for path in (store, store.with_name(store.name + ".wal")):
        path.unlink(missing_ok=True)
