"""``/query``: SQL in, rows out.

Invariants
- A client that hangs up, however far it is, has its query cancelled within a second.
- An answer that cannot be sent to its end breaks off in HTTP's own framing, so nobody takes it for a whole one.
- What is known to have failed before the first byte went out has an error's status.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ....schemas.errors import MerganserError, QueryCancelled
from ..monitoring.journal import shape
from ..users.binding import name_of
from ..users.users import User
from .accept import MEDIA_TYPES
from .asking import APPLIED, LARGEST_BODY, POSITION, Asked, asked, once
from .asking import Request as Said
from .bodies import body, parts

if TYPE_CHECKING:
    from ..guard.answer import Answer
    from .app import Desk

T = TypeVar("T")

#: A position beyond this is in the body only: servers and proxies take headers of 8 KiB.
_LONGEST_HEADER = 6_000

#: How often it is looked whether a client is still there while its query runs.
_LOOK_S = 0.2

#: A query waits in one of these threads for freshness, a place, and its first rows; then its pieces are made there.
_threads = ThreadPoolExecutor(96, thread_name_prefix="merganser-http")


async def query(desk: Desk, request: Request, user: User) -> Response:
    """The answer to one SELECT or EXPLAIN."""
    from .app import body_of

    data = await body_of(request, LARGEST_BODY) if request.method == "POST" else b""
    said = Said(request.method, request.query_params.multi_items(), once(request.headers.items()), data)
    gone = threading.Event()
    begun = _run(lambda: _begun(desk, said, user, gone))
    while not begun.done():
        await asyncio.wait({begun}, timeout=_LOOK_S)
        if not begun.done() and await request.is_disconnected():
            gone.set()
            await asyncio.wait({begun})
    if gone.is_set() and begun.exception() is None:
        begun.result().answer.close()
        raise QueryCancelled()
    return _response(begun.result())


class Begun(NamedTuple):
    """An answer whose first pieces are made. *second* is None if there is no more than the first."""

    wanted: Asked
    answer: Answer
    first: bytes
    second: bytes | None
    pieces: Iterator[bytes]


def _begun(desk: Desk, said: Said, user: User, gone: threading.Event) -> Begun:
    """What fails until then still has a status."""
    wanted = asked(said)  # here and not in the event loop: to read JSON of megabytes takes a while
    answer = desk.guard.ask(wanted.ask, tables=user.tables, gone=gone, user=name_of(user))
    try:
        pieces = body(answer, wanted.format, wanted.encoding)
        return Begun(wanted, answer, next(pieces, b""), next(pieces, None), pieces)
    except BaseException:
        answer.close()
        raise


def _response(begun: Begun) -> AnswerResponse:
    wanted = begun.wanted
    headers = {"Content-Type": _content_type(wanted.format), "Vary": "Accept, Accept-Encoding"}
    if wanted.encoding is not None:
        headers["Content-Encoding"] = wanted.encoding
    for name, position in ((POSITION, str(begun.answer.position)), (APPLIED, str(begun.answer.applied))):
        if len(position) <= _LONGEST_HEADER:
            headers[name] = position
    if begun.second is None:  # all of it is here, so its length is known
        headers["Content-Length"] = str(len(begun.first))
    return AnswerResponse(begun, headers, shape(wanted.ask.sql), wanted.format)


def _content_type(format_: str) -> str:
    type_ = MEDIA_TYPES[format_][0]
    return f"{type_}; charset=utf-8; header=present" if format_ == "csv" else type_


class AnswerResponse(Response):
    """Sends an answer as its client takes it, and watches whether it is still there."""

    def __init__(self, begun: Begun, headers: Mapping[str, str], sql: str, format_: str) -> None:
        super().__init__(status_code=200)
        del self.headers["content-length"]
        self.headers.update(headers)
        self._answer, self._pieces = begun.answer, begun.pieces
        self._ready = [begun.first] if begun.second is None else [begun.first, begun.second]
        self._whole = begun.second is None
        self._sql, self._format = sql, format_
        self._sent = 0
        self.ended: Callable[..., None] = lambda outcome, **facts: None
        self.background: BackgroundTask | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "cut"
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            outcome = await self._send_all(send, gone)
        finally:
            gone.cancel()
            self._answer.close()
            facts = {"rows": self._answer.rows, "bytes": self._sent, "format": self._format, "sql": self._sql}
            self.ended(outcome, **facts)

    async def _send_all(self, send: Send, gone: asyncio.Future[None]) -> str:
        """How it ended. To return before the last message makes the server close the connection."""
        while True:
            try:
                piece = await self._next(gone)
            except MerganserError as error:
                return type(error).__name__
            if gone.done():
                return "hung up"
            more = piece is not None
            for part in parts(piece or b""):
                message = {"type": "http.response.body", "body": part, "more_body": more}
                if not await _while_there(asyncio.ensure_future(send(message)), gone):
                    return "hung up"
                self._sent += len(part)
            if not more:
                return "200"

    async def _next(self, gone: asyncio.Future[None]) -> bytes | None:
        if self._ready:
            return self._ready.pop(0)
        if self._whole:
            return None
        made = _run(lambda: next(self._pieces, None))
        if not await _while_there(made, gone):
            self._answer.cancel()
            await asyncio.wait({made})
        return made.result()


async def _while_there(work: asyncio.Future[Any], gone: asyncio.Future[None]) -> bool:
    """Wait for *work*; False if the client is gone before it is done."""
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    return work.done()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _run(work: Callable[[], T]) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(_threads, work)
