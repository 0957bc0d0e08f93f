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
from .ask import ServingLimits
from .binding import Address
from .figures import Counting
from .guard import Guard
from .jobs import Jobs
from .journal import Journal
from .login import Logins
from .lookout import Ends, Lookout
from .pulse import Pulse

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

    def __enter__(self) -> Doors:
        config = self._config
        with ExitStack() as stack:
            logins = None if config.users is None else Logins(config.users)
            guard = Guard(self._replica, limits_of(config))
            stack.callback(guard.close)
            lookout = Lookout(self._replica, self._log)
            lookout.start()
            stack.callback(lookout.stop)
            journal = Journal(config.request_log)
            stack.callback(journal.close)
            if config.http:
                stack.callback(self._open_http(guard, lookout, journal, logins))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def status(self) -> dict[str, Any]:
        """Fields for ``replica run --json``."""
        return {"http": {"url": self.http, "failed": None}} if self.http else {}

    def _open_http(self, guard: Guard, lookout: Lookout, journal: Journal, logins: Logins | None) -> Callable[[], None]:
        """Open the HTTP door; how to shut it."""
        try:
            from .http.app import Desk
            from .http.server import HttpDoor, Tls
            from .metrics import Metrics
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is missing: pip install 'merganser[serve]'") from error
        config, jobs = self._config, Jobs()
        metrics = Metrics(self._replica, lookout, guard, logins, self._beside)
        pulse, counting = Pulse(self._replica, lookout), Counting(self._replica)
        desk = Desk(self._replica, guard, lookout, metrics, journal, jobs, pulse, counting, self._beside, self._backup)
        if (config.tls_cert is None) != (config.tls_key is None):
            raise UsageError("TLS needs both: a certificate (--tls-cert) and its key (--tls-key)")
        tls = None
        if config.tls_cert is not None and config.tls_key is not None:
            tls = Tls(config.tls_cert, config.tls_key)
        door = HttpDoor(desk, Address.parse(config.http), logins, tls, config.insecure)
        door.start()
        pulse.start()
        self.http = door.url

        def shut() -> None:
            door.stop()
            pulse.stop()
            jobs.join()

        return shut


def limits_of(config: ServeConfig) -> ServingLimits:
    plain = ServingLimits()
    return ServingLimits(running=config.running or plain.running, query_s=config.query_s or plain.query_s)
