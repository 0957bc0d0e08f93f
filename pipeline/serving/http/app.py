"""The routes of the HTTP door, and what is alike in all of them: who asks, what becomes of an error, the log.

Invariant: nothing but JSON is told of an error, and of one that is not ours no more than that there was one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Mount, Route
from starlette.staticfiles import StaticFiles

from ....schemas.errors import MerganserError
from ..guard.telling import heard
from ..monitoring.figures import Counting
from ..monitoring.journal import Journal
from ..monitoring.lookout import Lookout
from ..monitoring.pulse import Pulse
from ..users.users import User
from . import health, live, operating, pages, querying, tables
from .entrance import Entrance
from .problems import HttpError, headers_of, problem, status_of
from .reply import Reply

if TYPE_CHECKING:
    from ....consumers.replica import Replica
    from ..guard.guard import Guard
    from ..jobs.jobs import Jobs
    from ..monitoring.metrics import Metrics

_log = logging.getLogger("merganser.http")

#: How long a client may take to send a body.
BODY_S = 30.0

#: So much of a body that is too large is read all the same, and dropped: who is cut off while sending hears of a
#: broken pipe, not of the reason.
_DROPPED = 16 * 2**20

_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


@dataclass
class Desk:
    """What is served here, and by whom."""

    replica: Replica
    guard: Guard
    lookout: Lookout
    metrics: Metrics
    journal: Journal
    jobs: Jobs
    pulse: Pulse
    counting: Counting
    beside: Callable[[], Mapping[str, Any]] = dict
    """What else the node does: archive, backups."""
    backup: Callable[[str, Mapping[str, str]], Any] | None = None
    """Makes a backup of a type, with notes; None if the node has no archive."""
    began_s: float = field(default_factory=time.monotonic)


#: What answers a request: the user is None where anybody may ask.
Answering = Callable[[Desk, Request, User], Awaitable[Response]]


class App:
    """The ASGI application of one door."""

    def __init__(self, desk: Desk, entrance: Entrance) -> None:
        self._desk, self._entrance = desk, entrance
        self.routes = [
            Route("/query", self._endpoint("/query", querying.query), methods=["GET", "POST"]),
            Route("/tables", self._endpoint("/tables", tables.all_tables), methods=["GET"]),
            Route("/tables/{table}", self._endpoint("/tables/{table}", tables.one_table), methods=["GET"]),
            Route("/position", self._endpoint("/position", health.position), methods=["GET"]),
            Route("/status", self._endpoint("/status", health.status), methods=["GET"]),
            Route("/live", self._endpoint("/live", live.live), methods=["GET"]),
            Route("/metrics", self._endpoint("/metrics", health.metrics), methods=["GET"]),
            Route("/backups", self._endpoint("/backups", operating.begin_backup), methods=["POST"]),
            Route("/backups/{job}", self._endpoint("/backups/{job}", operating.backup_job), methods=["GET"]),
            Route("/snapshot", self._endpoint("/snapshot", operating.snapshot), methods=["GET"]),
            Route("/digests", self._endpoint("/digests", operating.digests), methods=["POST"]),
            Route("/readyz", self._open("/readyz", health.readyz), methods=["GET"]),
            Route("/livez", self._open("/livez", health.livez), methods=["GET"]),
            Route("/openapi.json", self._open("/openapi.json", pages.openapi), methods=["GET"]),
            Route("/docs", self._open("/docs", pages.docs), methods=["GET"]),
            Mount("/", app=pages.Guarded(StaticFiles(directory=pages.FOLDER, html=True)), name="page"),
        ]
        self.asgi = Starlette(
            routes=self.routes,
            exception_handlers={HTTPException: self._not_found, Exception: self._unforeseen},
        )

    # -- inside ------------------------------------------------------------------------------

    def _endpoint(self, path: str, answering: Answering) -> Callable[[Request], Awaitable[Response]]:
        """*answering*, for who has come in."""

        async def endpoint(request: Request) -> Response:
            began_s, user = time.monotonic(), None
            try:
                client = request.client.host if request.client else ""
                user = await self._entrance.user(request.headers, client)
                response = await answering(self._desk, request, user)
            except ClientDisconnect:
                response = Response(status_code=499)
            except MerganserError as error:
                response = self.failed(heard(error, user.tables) if user is not None else error)
            except Exception as error:  # noqa: BLE001  # whatever it is: the client hears of it, as JSON
                response = self.failed(error)
            return self._noted(request, response, path, user, began_s)

        return endpoint

    def _open(self, path: str, answering: Callable[[Desk, Request], Awaitable[Response]]) -> Callable[..., Any]:
        """*answering*, for anybody."""

        async def endpoint(request: Request) -> Response:
            began_s = time.monotonic()
            try:
                response = await answering(self._desk, request)
            except Exception as error:  # noqa: BLE001  # as above
                response = self.failed(error)
            self._desk.metrics.answered("http", path, str(response.status_code), time.monotonic() - began_s)
            response.headers.update(_SAFE_HEADERS)
            return response

        return endpoint

    def _noted(self, request: Request, response: Response, path: str, user: User | None, began_s: float) -> Response:
        """*response*, which is written down when it has ended."""

        def ended(outcome: str, **facts: Any) -> None:
            seconds = time.monotonic() - began_s
            self._desk.metrics.answered("http", path, outcome, seconds, facts.get("bytes", 0))
            if path == "/live" and outcome == "200":
                return  # an open page asks each second, and would push all else out of the log
            self._desk.journal.note(
                "http",
                method=request.method,
                path=path,
                status=outcome,
                user=user.name if user else None,
                client=request.client.host if request.client else None,
                ms=round(seconds * 1000, 1),
                **facts,
            )

        response.headers.update(_SAFE_HEADERS)
        if isinstance(response, querying.AnswerResponse):
            response.ended = ended
        else:
            length = response.headers.get("content-length", "0")
            ended(str(response.status_code), bytes=int(length))
        return response

    def failed(self, error: Exception) -> Response:
        if not isinstance(error, MerganserError):
            _log.error("a request failed in an unforeseen way", exc_info=error)
        return Reply(problem(error), status_of(error), headers_of(error))

    async def _not_found(self, request: Request, error: Exception) -> Response:
        """What Starlette itself refuses: a path, a method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        methods = self._methods(request) if status in (404, 405) else []
        if methods:  # what refused it was the page's folder, behind all endpoints
            status, headers = 405, {"Allow": ", ".join(methods)}
        why = {404: "there is no such path", 405: f"{request.method[:20]} is not for this path"}
        told = HttpError(
            status, why.get(status, "the request cannot be answered"), "GET /openapi.json lists them all", headers
        )
        return Reply(problem(told), status, {**_SAFE_HEADERS, **headers})

    def _methods(self, request: Request) -> list[str]:
        """Those that the path of *request* has; none if it is no endpoint's."""
        of_path = [r for r in self.routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE]
        return sorted({method for route in of_path for method in route.methods or ()})

    async def _unforeseen(self, request: Request, error: Exception) -> Response:
        return self.failed(error)


async def body_of(request: Request, largest: int) -> bytes:
    """The body of *request*. HttpError if it is larger than *largest*, or does not come."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdecimal() and len(declared) < 20 and int(declared) > largest + _DROPPED:
        raise too_large(largest)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > largest + _DROPPED:
                    break
                if size <= largest:
                    parts.append(part)
    except TimeoutError:
        raise HttpError(408, f"the body did not come within {BODY_S:.0f} s", "send it again") from None
    if size > largest:
        raise too_large(largest)
    return b"".join(parts)


def too_large(largest: int) -> HttpError:
    return HttpError(413, f"the body is larger than {largest:,} bytes", "send less", {"Connection": "close"})
