"""The same question through a door, or without one; and clients that hang up in the middle."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, StatementOptions

import merganser as mg
from merganser.consumers.asked import Level
from merganser.schemas.errors import MerganserError, TooBusy
from merganser.schemas.position import Position

from .rows import Question

TIMEOUT_S = 30.0

_HEADER = StatementOptions.RPC_CALL_HEADER_PREFIX.value

warnings.filterwarnings("ignore", "Cannot disable autocommit")


class Refused(Exception):
    """The node is busy, and said so."""


class Failed(Exception):
    """The node gave no answer, and said why."""


class Broken(Exception):
    """What a node must not do."""


@dataclass(frozen=True)
class Freshness:
    level: Level = "eventual"
    after: Position | None = None
    max_staleness: float | None = None


class Asker(Protocol):
    """One client's way to the rows. :meth:`ask` raises Refused or Failed."""

    door: str

    def ask(self, question: Question, fresh: Freshness) -> tuple[pa.Table, Position | None]: ...

    def close(self) -> None: ...


class Http:
    door = "HTTP"

    def __init__(self, url: str) -> None:
        self._client = mg.Client(url)

    def ask(self, question: Question, fresh: Freshness) -> tuple[pa.Table, Position | None]:
        asked = {"level": fresh.level, "after": fresh.after, "max_staleness": fresh.max_staleness}
        with _told():
            result = self._client.query(question.sql, question.params or None, timeout=TIMEOUT_S, **asked)  # type: ignore[arg-type]
        return result.arrow(), result.position

    def close(self) -> None:
        self._client.close()


class Flight:
    door = "Flight"

    def __init__(self, url: str) -> None:
        self._connection = adbc.connect(url, db_kwargs=_headers({"merganser-timeout": f"{TIMEOUT_S:g}"}))

    def ask(self, question: Question, fresh: Freshness) -> tuple[pa.Table, Position | None]:
        said = {"merganser-level": fresh.level, "merganser-after": str(fresh.after or "")}
        if fresh.max_staleness is not None:
            said["merganser-max-staleness"] = f"{fresh.max_staleness:g}"
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{_HEADER + name: value for name, value in said.items()})
            try:
                cursor.execute(question.sql, question.params or None)
                return cursor.fetch_arrow_table(), None
            except adbc.Error as error:
                raise told_by_flight(str(error)) from None

    def close(self) -> None:
        with contextlib.suppress(adbc.Error):
            self._connection.close()


class Inside:
    """Without a door: a cursor of the process that has the store, as many at once as a node lets run."""

    door = "in-process"

    def __init__(self, replica: mg.Replica, places: threading.Semaphore) -> None:
        self._replica, self._places = replica, places

    def ask(self, question: Question, fresh: Freshness) -> tuple[pa.Table, Position | None]:
        asked = {"level": fresh.level, "after": fresh.after, "max_staleness": fresh.max_staleness}
        with self._places, _told():
            result = self._replica.query(question.sql, question.params or None, timeout=TIMEOUT_S, **asked)  # type: ignore[arg-type]
        return result.arrow(), result.position

    def close(self) -> None:
        pass


#: What the node says when it has no place, after the words that come with every such error.
_BUSY = "the node is busy"

#: Errors that a node may give a client under load. Any other one is a promise broken.
_ALLOWED = ("NotFreshEnough", "QueryTimeout", "TooLarge", "ReadInterrupted", "ReadError")


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except TooBusy as busy:
        raise Refused(str(busy)) from None
    except MerganserError as error:
        kind = type(error).__name__
        raise (Failed if kind in _ALLOWED else Broken)(f"{kind}: {error}") from None


def told_by_flight(text: str) -> Exception:
    """What ADBC's error is of; Flight has a status and a line."""
    line = " ".join(text.split())[:300]
    if _BUSY in text:
        return Refused(line)
    known = ("not fresh enough", "took longer", "needs more memory", "was interrupted", "take more than")
    return Failed(line) if any(words in text for words in known) else Broken(line)


# -- in the middle of it ---------------------------------------------------------------------------


def hang_up_http(url: str, sql: str, rng: random.Random) -> str:
    """Ask, and go: before the answer, or with part of it. What happened."""
    to = urlsplit(url)
    connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/query", json.dumps({"sql": sql}), {"Content-Type": "application/json"})
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.3))
            return "hung up"
        response = connection.getresponse()
        if response.status == 503:
            if not response.getheader("Retry-After"):
                raise Broken("a 503 without Retry-After")
            return "refused"
        if response.status != 200:
            raise Broken(f"status {response.status}: {response.read(300)!r}")
        response.read(rng.randrange(1, 200_000))
    return "hung up"


def hang_up_flight(url: str, sql: str, rng: random.Random) -> str:
    early = rng.random() < 0.5
    options = {DatabaseOptions.TIMEOUT_QUERY.value: f"{rng.uniform(0.01, 0.3):.3f}"} if early else {}
    connection = adbc.connect(url, db_kwargs=options)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetch_record_batch().read_next_batch()
    except adbc.Error as error:
        if early:
            return "hung up"
        said = told_by_flight(str(error))
        if isinstance(said, Broken):
            raise said from None
        return "refused"
    finally:
        with contextlib.suppress(adbc.Error):
            connection.close()
    return "hung up"


def _headers(said: dict[str, str]) -> dict[str, str]:
    return {_HEADER + name: value for name, value in said.items()}
