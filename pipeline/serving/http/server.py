"""The HTTP door: uvicorn in a thread of the node's process.

Invariants
- The port is bound before anything is said of it, or it is refused by name; whoever may not come in is decided
  before (``binding.py``).
- A door that is told to stop lets answers go on for a few seconds, then ends them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from functools import partial

import uvicorn

from ....schemas.errors import MerganserError
from ..users.binding import Address, Safety, admit
from ..users.login import Logins
from ..users.tls import Tls
from .app import App, Desk
from .connection import MOST_AGREEING, Connection, Listening
from .entrance import Entrance

_log = logging.getLogger("merganser.http")

#: Requests beyond this are told 503 at once. That many connections there are only if none of them is slow.
_CONNECTIONS = 512

#: How long a client may take to agree on TLS; asyncio would give it a minute.
_HANDSHAKE_S = 10.0

_GRACE_S = 5
_START_S = 15.0


class HttpDoor:
    """Serves *desk* at *address*, between :meth:`start` and :meth:`stop`. UnsafeDoor, UsageError."""

    def __init__(
        self, desk: Desk, address: Address, logins: Logins | None = None, tls: Tls | None = None, insecure: bool = False
    ) -> None:
        anonymous = admit("HTTP", address, Safety(logins is not None, tls is not None, insecure))
        context = None if tls is None else tls.renewing()
        self._socket = bound(address)
        self.address = Address(address.host, self._socket.getsockname()[1])
        self.url = f"{'http' if tls is None else 'https'}://{self.address}"
        app = App(desk, Entrance(logins, anonymous, self.address))
        config = uvicorn.Config(
            app.asgi,
            http=partial(Connection, came_in=self._socket.came_in),  # type: ignore[arg-type]  # it makes them
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        # What it tells (a client that hung up, an answer that broke off) is in the request log.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config.ssl, self._tls = context, context is not None
        self._socket.most = MOST_AGREEING if self._tls else None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="merganser-http", daemon=True)
        self._failed: BaseException | None = None

    def start(self) -> None:
        """Open the door; it is open when this returns."""
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise MerganserError(f"the HTTP door at {self.address} did not open: {self._failed!r}")
        _log.info("serving at %s", self.url)

    def stop(self) -> None:
        """Close the door."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_GRACE_S + 5)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # `start` tells it, or the log does
            self._failed = error
            _log.error("the HTTP door ended: %r", error)

    async def _serve(self) -> None:
        if self._tls:
            loop = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_S)  # type: ignore[method-assign]
        await self._server.serve(sockets=[self._socket])


def bound(address: Address) -> Listening:
    """A socket that listens at *address*. UsageError if it cannot."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sets TCP_NODELAY on sockets that say that they are TCP's; else each answer waits 40 ms for an ACK.
    made = Listening(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address.host, address.port))
        made.listen(256)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise address.refused(error.strerror or str(error)) from error
    return made
