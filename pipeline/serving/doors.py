"""The doors of a node, put together: the guard behind them, who may come in, what is told of it.

Invariant: doors are opened after the replica and shut before it, and nothing that fails in them stops its apply loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...schemas.errors import UsageError
from ..config import ServeConfig
from .guard.ask import ServingLimits
from .guard.guard import Guard
from .jobs.jobs import Jobs
from .monitoring.figures import Counting
from .monitoring.journal import Journal
from .monitoring.lookout import Ends, Lookout
from .monitoring.pulse import Pulse
from .users.binding import Address, Safety, admit
from .users.login import Logins
from .users.tls import Tls

if TYPE_CHECKING:
    from ...consumers.replica import Replica

#: Makes a backup of a type, with notes.
Backup = Callable[[str, Mapping[str, str]], Any]


class Doors:
    """Serves *replica* as *config* says. Use it in a ``with``, inside the replica's. UnsafeDoor, BadUsers."""

    def __init__(
        self,
        config: ServeConfig,
        replica: Replica,
        log: Ends,
        beside: Callable[[], Mapping[str, Any]] = dict,
        backup: Backup | None = None,
    ) -> None:
        self._config, self._replica, self._log = config, replica, log
        self._beside, self._backup = beside, backup
        self._stack = ExitStack()
        self.http: str | None = None
        """The URL of the HTTP door, once it is open."""
        self.flight: str | None = None
        """And of the Flight SQL door."""

    def __enter__(self) -> Doors:
        config = self._config
        with ExitStack() as stack:
            logins = None if config.users is None else Logins(config.users)
            guard = Guard(self._replica, limits_of(config))
            stack.callback(guard.close)  # should a door not open
            lookout = Lookout(self._replica, self._log)
            lookout.start()
            stack.callback(lookout.stop)
            journal = Journal(config.request_log)
            stack.callback(journal.close)
            tls = tls_of(config)
            if config.http:
                stack.callback(self._open_http(guard, lookout, journal, logins, tls))
            if config.flight:
                stack.callback(self._open_flight(guard, logins, tls))
            stack.callback(guard.close)  # before the doors: answers that are being read end with it
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def status(self) -> dict[str, Any]:
        """Fields for ``replica run --json``."""
        urls = {"http": self.http, "flight": self.flight}
        return {name: {"url": url, "failed": None} for name, url in urls.items() if url}

    def _open_http(
        self, guard: Guard, lookout: Lookout, journal: Journal, logins: Logins | None, tls: Tls | None
    ) -> Callable[[], None]:
        """Open the HTTP door; how to shut it."""
        try:
            from .http.app import Desk
            from .http.server import HttpDoor
            from .monitoring.metrics import Metrics
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        config, jobs = self._config, Jobs()
        metrics = Metrics(self._replica, lookout, guard, logins, self._beside)
        pulse, counting = Pulse(self._replica, lookout), Counting(self._replica)
        desk = Desk(self._replica, guard, lookout, metrics, journal, jobs, pulse, counting, self._beside, self._backup)
        door = HttpDoor(desk, Address.parse(config.http), logins, tls, config.insecure)
        door.start()
        pulse.start()
        self.http = door.url

        def shut() -> None:
            door.stop()
            pulse.stop()
            jobs.join()

        return shut

    def _open_flight(self, guard: Guard, logins: Logins | None, tls: Tls | None) -> Callable[[], None]:
        """Open the Flight SQL door; how to shut it."""
        address = Address.parse(self._config.flight)
        safety = Safety(logins is not None, tls is not None, self._config.insecure)
        anonymous = admit("Flight SQL", address, safety)
        try:
            from .flight.server import FlightDoor
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        pem = None if tls is None else tls.pem()
        door = FlightDoor(guard, address.host, address.port, logins=logins, anonymous=anonymous, tls=pem)
        self.flight = door.url
        return door.close


def tls_of(config: ServeConfig) -> Tls | None:
    """What *config* says of TLS. UsageError if the files do not fit."""
    if config.tls_cert is None and config.tls_key is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise UsageError("TLS needs both: a certificate (--tls-cert) and its key (--tls-key)")
    tls = Tls(config.tls_cert, config.tls_key)
    tls.context()  # refused before any door is open
    return tls


def _missing(error: ModuleNotFoundError) -> UsageError:
    return UsageError(f"{error.name} is missing: pip install 'merganser[serve]'")


def limits_of(config: ServeConfig) -> ServingLimits:
    plain = ServingLimits()
    return ServingLimits(running=config.running or plain.running, query_s=config.query_s or plain.query_s)
