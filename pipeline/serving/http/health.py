"""How the node is: for people (``/status``), programs (``/position``), orchestrators and Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from ....schemas.errors import Forbidden
from ....schemas.kafka import Member
from ....schemas.position import Position
from ..guard.telling import stopped_for
from ..monitoring.figures import Figures
from ..users.users import User
from .reply import Reply

if TYPE_CHECKING:
    from .app import Desk


async def position(desk: Desk, request: Request, user: User) -> Response:
    """How far the replica is: a token below ``applied`` is reached."""
    replica = desk.replica
    read, applied = _granted(replica.read_position, user), _granted(replica.position, user)
    return Reply({"position": str(read), "applied": str(applied)})


async def status(desk: Desk, request: Request, user: User) -> Response:
    return Reply(facts(desk, user, await asyncio.to_thread(desk.counting.figures)))


def facts(desk: Desk, user: User, figures: Figures) -> dict[str, Any]:
    """What *user* may know of the node."""
    replica, sight, lag = desk.replica, desk.lookout.sight, desk.lookout.lag()
    whys = {table: why for table, why in replica.stopped.items() if user.may_read(table)}
    stopped = {table: stopped_for(why, user.tables) for table, why in whys.items()}
    waiting, failed = replica.waiting_for, None if replica.error is None else str(replica.error)
    applied = _granted(replica.position, user)
    tables = sorted({tp.topic for tp in applied} | set(stopped))
    told: dict[str, Any] = {
        "group": replica.group,
        "cluster": replica.cluster_id,
        "ready": desk.lookout.not_ready() is None,
        "not_ready": desk.lookout.not_ready(),
        "position": str(_granted(replica.read_position, user)),
        "applied": str(applied),
        "lag": sum(n for tp, n in lag.items() if user.may_read(tp.topic)) if sight.ends else None,
        "lag_seen_s": round(time.monotonic() - sight.at_s, 3) if sight.ends else None,
        "log_away": _plainly(sight.away, user, "the log does not answer"),
        "waiting_for": _plainly(waiting, user, "what the apply loop reads from"),
        "failed": _plainly(failed, user, "the apply loop ended"),
        "members": _members(sight.members, user) if replica.split else None,
        "uptime_s": round(time.monotonic() - desk.began_s, 1),
        "tables": [
            {
                "table": table,
                "partitions": len(applied.of(frozenset([table]))),
                "lag": sum(n for tp, n in lag.items() if tp.topic == table) if sight.ends else None,
                **{name: figures.tables.get(table, {}).get(name) for name in ("quarantined", "pending")},
                "stopped": stopped.get(table),
                "error": type(whys[table]).__name__ if table in stopped else None,
                "way_out": whys[table].hint if table in stopped else None,
                "open_transactions": [
                    {"partition": tp.partition, "offset": stuck.offset, "records": stuck.records,
                     "seconds": round(sight.at_s - stuck.since_s, 1)}
                    for tp, stuck in sorted(sight.stuck.items()) if tp.topic == table
                ],
            }
            for table in tables
        ],
        "unfollowed": [table for table in replica.unfollowed if user.may_read(table)],
    }  # fmt: skip
    return told if user.tables is not None else {**told, **desk.beside()}


async def metrics(desk: Desk, request: Request, user: User) -> Response:
    if user.tables is not None:
        raise Forbidden(user.name, "metrics are of all tables")
    encode, type_ = choose_encoder(request.headers.get("accept", ""))
    text = await asyncio.to_thread(encode, desk.metrics.registry)
    return Response(text, headers={"Content-Type": type_})


async def readyz(desk: Desk, request: Request) -> Response:
    """200 once the replica had all that the log had at its start."""
    return _check(desk.lookout.not_ready())


async def livez(desk: Desk, request: Request) -> Response:
    """503 if only another start can help: the apply loop ended."""
    error = desk.replica.error
    return _check(None if error is None else "the apply loop ended")


def _check(why: str | None) -> Response:
    if why is None:
        return Reply({"ok": True})
    hint = "it may pass; GET /status says more"
    return Reply({"ok": False, "error": why, "hint": hint}, 503, {"Retry-After": "1"})


def _plainly(what: str | None, user: User, plain: str) -> str | None:
    """*what*, which may name any table, or as much of it as *user* may know."""
    return what if what is None or user.tables is None else plain


def _members(members: Iterable[Member], user: User) -> list[dict[str, Any]]:
    """Who shares the group, and which partitions of each table each has."""
    told = []
    for member in members:
        tables = sorted({tp.topic for tp in member.partitions if user.may_read(tp.topic)})
        shares = {table: sorted(tp.partition for tp in member.partitions if tp.topic == table) for table in tables}
        told.append({"member": member.id, "host": member.host, "partitions": shares})
    return told


def _granted(position: Position, user: User) -> Position:
    return Position({tp: offset for tp, offset in position.items() if user.may_read(tp.topic)})
