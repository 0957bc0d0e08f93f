"""The ways by which clients read: beside the replica, and through the doors of its node.

Each takes the same question and gives rows, and of which state they are. They may be used by several threads.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import adbc_driver_flightsql.dbapi as adbc
from adbc_driver_flightsql import DatabaseOptions

import merganser as mg
from history.journal import Plan
from merganser.consumers.asked import Level
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.marks import APPLIED, POSITION
from merganser.schemas.errors import MerganserError

#: What a read raises, whichever way it went.
FAILED = (MerganserError, adbc.Error)


@dataclass(frozen=True)
class Shown:
    """What a read has shown. *replica* is which one answered, where there is a choice."""

    rows: list[list[Any]]
    position: mg.Position
    applied: mg.Position
    replica: int | None = None


class Way(Protocol):
    @property
    def name(self) -> str: ...

    def read(
        self,
        sql: str,
        params: Sequence[Any],
        *,
        timeout: float,
        level: Level = "eventual",
        after: mg.Position | None = None,
        max_staleness: float | None = None,
    ) -> Shown:
        """Raises one of FAILED."""
        ...


class Asking:
    """A Replica in this process, or an ``mg.Client``: they speak alike."""

    def __init__(self, name: str, whom: mg.Replica | mg.Client) -> None:
        self.name, self._whom = name, whom

    def read(self, sql: str, params: Sequence[Any], **asked: Any) -> Shown:
        result = self._whom.query(sql, params or None, **asked)
        return Shown([list(row) for row in result.rows()], result.position, result.applied)


class Roaming(Asking):
    """An ``mg.Client`` with an address for each node: the answer says whose it is, by the name of its file."""

    def read(self, sql: str, params: Sequence[Any], **asked: Any) -> Shown:
        # The join gives a row also where there is none to be shown.
        sql = f"SELECT current_database(), a.* FROM (SELECT 1) AS one LEFT JOIN ({sql}) AS a ON true"
        shown = super().read(sql, params, **asked)
        rows = [row[1:] for row in shown.rows]
        there = [] if rows == [[None] * len(rows[0])] else rows
        return Shown(there, shown.position, shown.applied, int(shown.rows[0][0].removeprefix("replica")))


class Flight:
    """ADBC on the Flight SQL door; a connection is used by one thread at a time, and again by the next."""

    name = "flight"

    def __init__(self, url: str) -> None:
        self._uri = url.replace("+tcp", "")
        self._idle: list[Any] = []

    def read(
        self,
        sql: str,
        params: Sequence[Any],
        *,
        timeout: float,
        level: Level = "eventual",
        after: mg.Position | None = None,
        max_staleness: float | None = None,
    ) -> Shown:
        asked = {"level": level, "after": after, "max-staleness": max_staleness, "timeout": timeout}
        prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + "merganser-"
        headers = {prefix + name: str(value) for name, value in asked.items() if value is not None}
        with self._connection() as connection, connection.cursor(adbc_stmt_kwargs=headers) as cursor:
            cursor.execute(sql, params or None)
            table = cursor.fetch_arrow_table()
        rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
        position, applied = (mg.Position.parse(table.schema.metadata[name].decode()) for name in (POSITION, APPLIED))
        return Shown(rows, position, applied)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = adbc.connect(self._uri, autocommit=True)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


@contextmanager
def ways(plan: Plan, index: int, replica: mg.Replica, log: mg.Log) -> Iterator[list[Way]]:
    """All of them, the one without a door first. If the plan has doors, those of *replica* are open meanwhile."""
    inside = Asking("inside", replica)
    if not plan.ports:
        yield [inside]
        return
    addresses = [f"127.0.0.1:{port}" for port in plan.ports]
    own, other = (f"http://{address}" for address in (addresses[index], addresses[1 - index]))
    with ExitStack() as stack:
        doors = stack.enter_context(Doors(ServeConfig(http=addresses[index], flight="127.0.0.1:0"), replica, log))
        assert doors.flight is not None
        flight = Flight(doors.flight)
        stack.callback(flight.close)
        client, roaming = (stack.enter_context(mg.Client(given)) for given in (own, [other, own]))
        yield [inside, Asking("http", client), flight, Roaming("anywhere", roaming)]


@contextmanager
def ports(count: int) -> Iterator[list[int]]:
    """Ports of doors that are opened again and again: bound here, so that nobody else is given one meanwhile, and
    listened at there."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for reserved in sockets:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
        yield [reserved.getsockname()[1] for reserved in sockets]
