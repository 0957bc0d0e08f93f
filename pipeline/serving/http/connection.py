"""One connection of the HTTP door, and how long a client may take over its part of it.

uvicorn bounds neither how long the head of a request takes to come, nor how long an answer is not taken.

Invariants
- A connection without the whole head of a next request ends after a while, however its bytes trickle in; so does one
  that takes nothing of an answer. (What of a body is read, is read within its time: ``app.body_of``.)
- Who sends slowly cannot keep others out: when there are too many connections, the one that has owed the rest of a
  request for longest goes. Of those that have not agreed on TLS yet, the oldest.
- In HTTP/1.0 an answer ends where its connection does. One that breaks off does not end so: the connection is reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: From the connection, or the end of the answer before, to the end of a head.
HEAD_S = 30.0

#: How long nothing of an answer is taken.
STALLED_S = 60.0

#: Connections beyond this make the slowest go; and, with TLS, those that have not agreed on it yet.
MOST, MOST_AGREEING = 500, 256


class Listening(socket.socket):
    """A socket that listens, and knows which connections uvicorn does not know of yet: with TLS that may last. Beyond
    *most* of them the oldest goes."""

    def __init__(self, family: int, type_: int, proto: int) -> None:
        super().__init__(family, type_, proto)
        self.most: int | None = None
        self._accepted: dict[int, weakref.ref[socket.socket]] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        number = connection.fileno()
        self.came_in(number)  # of one before, if that went before it came in
        self._accepted[number] = weakref.ref(connection)
        if self.most is not None and len(self._accepted) > self.most:
            oldest = self._accepted.pop(next(iter(self._accepted)))()
            if oldest is not None:
                with suppress(OSError):  # it has gone already
                    oldest.shutdown(socket.SHUT_RDWR)
        return connection, address

    def came_in(self, number: int) -> None:
        """The connection of this file descriptor is one of uvicorn's now."""
        self._accepted.pop(number, None)


class _Breaking:
    """A transport that is reset in the place of being closed when *breaks_off* says so."""

    def __init__(self, transport: asyncio.Transport, breaks_off: Callable[[], bool]) -> None:
        self._transport, self._breaks_off = transport, breaks_off

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._breaks_off():
            self._transport.close()
            return
        with suppress(OSError):  # it has gone already
            at_once = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._transport.abort()


class Connection(H11Protocol):
    """Ends by itself when its client is too slow."""

    def __init__(self, *args: Any, came_in: Callable[[int], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._came_in = came_in
        self.owing_since: float | None = None
        """When the client began to owe the rest of a request, by the loop's clock; None if it owes nothing."""
        self._head_due: asyncio.TimerHandle | None = None
        self._taking_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Breaking(transport, self._breaks_off))  # type: ignore[arg-type]  # it is one
        self._came_in(transport.get_extra_info("socket").fileno())
        self._look()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head_due, self._taking_due):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking_due = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking_due is not None:
            self._taking_due.cancel()

    def _breaks_off(self) -> bool:
        """Whether to close now is what a client takes for the end of its answer, and is not."""
        return self.conn.their_http_version == b"1.0" and self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        """Note what the client owes now."""
        if self.transport.is_closing():
            return
        asking = self.cycle is not None and not self.cycle.response_complete
        if self._head_due is None and not asking:
            self._head_due = self.loop.call_later(HEAD_S, self.transport.abort)
        elif self._head_due is not None and asking:
            self._head_due.cancel()
            self._head_due = None
        if asking and not self.cycle.more_body:
            self.owing_since = None
        elif self.owing_since is None:
            self.owing_since = self.loop.time()

    def _make_room(self) -> None:
        slow = [
            c for c in self.connections if isinstance(c, Connection) and c.owing_since is not None and c is not self
        ]
        if len(self.connections) > MOST and slow:
            slowest = min(slow, key=lambda connection: connection.owing_since or 0.0)
            self.connections.discard(slowest)
            slowest.transport.abort()
