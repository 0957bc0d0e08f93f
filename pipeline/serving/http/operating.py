"""What operators may ask for: a backup, and all tables at one position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ....schemas.errors import UsageError
from ....schemas.position import Position
from ..guard.ask import seconds
from ..jobs.digests import digests_of
from ..jobs.jobs import Job
from ..jobs.snapshot import spooled
from ..users.users import User
from .accept import MEDIA_TYPES
from .asking import loads
from .bodies import parts
from .entrance import demand
from .problems import HttpError, problem
from .reply import Reply

if TYPE_CHECKING:
    from .app import Desk

_LARGEST_BODY = 256 * 2**10

_PIECE = 1 * 2**20


async def begin_backup(desk: Desk, request: Request, user: User) -> Response:
    """Begin a backup; 202 and a job."""
    from .app import body_of

    demand(user, "operator", "backups")
    type_, notes = _wanted(await body_of(request, _LARGEST_BODY))
    make = desk.backup
    if make is None:
        raise UsageError("this node has no archive to back up into: [archive] in its merganser.toml names one")
    job = desk.jobs.begin(f"a {type_} backup", lambda: make(type_, notes))
    return Reply(_told(job), 202, {"Location": f"/backups/{job.id}"})


def _wanted(data: bytes) -> tuple[str, dict[str, str]]:
    said = loads(data, "the body") if data else {}
    if not isinstance(said, dict) or set(said) - {"type", "annotations"}:
        raise HttpError(400, "the body is an object of type and annotations", '{"type": "full"}')
    type_, notes = said.get("type", "full"), said.get("annotations", {})
    if type_ not in ("full", "incr"):
        raise UsageError(f"a backup is of type full or incr, not {str(type_)[:40]!r}")
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise UsageError("annotations are an object of texts")
    return type_, notes


async def backup_job(desk: Desk, request: Request, user: User) -> Response:
    demand(user, "operator", "backups")
    job = desk.jobs.get(request.path_params["job"])
    if job is None:
        raise HttpError(404, "there is no such job, or no longer", "POST /backups begins one")
    return Reply(_told(job))


def _told(job: Job) -> dict[str, Any]:
    failed = None if job.error is None else problem(job.error)
    return {"job": job.id, "what": job.what, "state": job.state, "result": job.result, "failed": failed}


async def digests(desk: Desk, request: Request, user: User) -> Response:
    """The digest of every table that the user may read, in one state that has reached ``after``."""
    from .app import body_of

    demand(user, "operator", "digests")
    said = loads(await body_of(request, _LARGEST_BODY), "the body")
    after = said.get("after", "") if isinstance(said, dict) else None
    if not isinstance(after, str):
        raise HttpError(400, "the body is an object of after and timeout", '{"after": "orders/0:120", "timeout": 30}')
    timeout_s = seconds("timeout", said.get("timeout")) or 30.0
    await asyncio.to_thread(desk.replica.wait, Position.parse(after), timeout_s)
    return Reply({"tables": await asyncio.to_thread(digests_of, desk.replica, user.may_read)})


async def snapshot(desk: Desk, request: Request, user: User) -> Response:
    """Every table that the user may read, at one position. It is on the node's disk before the first byte goes out, so
    a slow client keeps no read of the store open."""
    demand(user, "operator", "snapshots")
    found = await asyncio.to_thread(spooled, desk.replica, user.may_read)
    if not found.nbytes:
        found.file.close()
        raise UsageError("this node has no table that you may read")
    headers = {"Content-Length": str(found.nbytes)}
    return StreamingResponse(_pieces(found.file), headers=headers, media_type=MEDIA_TYPES["arrow"][0])


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            for part in parts(piece):
                yield part
