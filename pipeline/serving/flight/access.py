"""Who calls the Flight door, and how fresh an answer they want: what comes in headers.

Flight's log-in is a call of its own: a name and a password come in, a bearer token goes out, and is sent with
every call from then on. The address that a call comes from is known in other calls only, and Logins judges
by it; so the log-in itself takes whatever it is given, and the first call with its token is where it is checked.

Invariants
- A token says nothing to who sees it, and is good for an hour after its last use, in this process.
- However many log in, or pretend to: sessions are bounded, and those that were never right go first.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from pyarrow import flight

from ....schemas.errors import MerganserError, TooManyLogins
from ..users.login import name_and_password

IDLE_S = 3600.0
_MOST_UNPROVED, _MOST = 256, 1024
_PREFIX = "mgf-"
_LONGEST = 4096


class Who(Protocol):
    """A user: *tables* are those that may be read, None is all."""

    @property
    def name(self) -> str: ...
    @property
    def tables(self) -> Collection[str] | None: ...


class Logins(Protocol):
    """Checks who asks, by address; raises a MerganserError."""

    def check(self, name: str, password: str, address: str) -> Who: ...
    def check_token(self, token: str, address: str) -> Who: ...


@dataclass(frozen=True)
class Credentials:
    name: str
    password: str
    wrong: MerganserError | None = None
    """What became of them when they were checked, if they did not do."""


class Sessions:
    """What the tokens that were handed out stand for. Safe across threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._unproved: OrderedDict[str, tuple[Credentials, float]] = OrderedDict()
        self._proved: OrderedDict[str, tuple[Credentials, float]] = OrderedDict()

    def begin(self, credentials: Credentials) -> str:
        token = _PREFIX + secrets.token_urlsafe(24)
        with self._lock:
            self._unproved[token] = (credentials, self._now())
            while len(self._unproved) > _MOST_UNPROVED:
                self._unproved.popitem(last=False)
        return token

    def get(self, token: str) -> Credentials | None:
        with self._lock:
            found = self._proved.get(token) or self._unproved.get(token)
            if found is None or self._now() - found[1] > IDLE_S:
                return None
            return found[0]

    def proved(self, token: str) -> None:
        """The credentials of *token* were right, just now."""
        with self._lock:
            found = self._proved.pop(token, None) or self._unproved.pop(token, None)
            if found is not None:
                self._proved[token] = (found[0], self._now())
            while len(self._proved) > _MOST:
                self._proved.popitem(last=False)

    def failed(self, token: str, why: MerganserError) -> None:
        """The credentials of *token* were wrong: they are not checked again, its client hears the same."""
        with self._lock:
            found = self._proved.pop(token, None) or self._unproved.pop(token, None)
            if found is not None:
                self._unproved[token] = (Credentials(found[0].name, "", why), self._now())

    def end(self, token: str) -> None:
        with self._lock:
            self._proved.pop(token, None)
            self._unproved.pop(token, None)

    def __len__(self) -> int:
        return len(self._proved) + len(self._unproved)


class Call(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """The headers of one call."""

    def __init__(self, headers: Mapping[str, str], token: str | None) -> None:
        self.headers = headers
        self._token = token

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def call_completed(self, exception: BaseException | None) -> None:
        pass


class Calls(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Makes a Call of every call; a log-in gets its token here."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def start_call(self, info: flight.CallInfo, headers: Mapping[str, list[str]]) -> Call:
        # Of ours none is passed over: one that comes twice is not understood by who reads it.
        mine = {
            name.lower(): ", ".join(values) if name.lower().startswith("merganser-") else values[-1]
            for name, values in headers.items()
            if isinstance(values[-1], str)
        }
        token = None
        if info.method == flight.FlightMethod.HANDSHAKE:
            given = basic(mine.get("authorization", ""))
            if given is None:
                raise flight.FlightUnauthenticatedError("log in with a name and a password")
            token = self._sessions.begin(given)
        return Call(mine, token)


class Open(flight.ServerAuthHandler):  # type: ignore[misc]
    """Lets the log-in call through: without one pyarrow refuses it. What is checked is checked in headers."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        pass

    def is_valid(self, token: bytes) -> str:
        return ""


class Doorkeeper:
    """Says who a call is from. Without *logins*: *anonymous*, whoever it is."""

    def __init__(self, logins: Logins | None, anonymous: Who | None) -> None:
        self._logins, self._anonymous = logins, anonymous
        self.sessions = Sessions()

    def who(self, context: flight.ServerCallContext) -> Who:
        """FlightUnauthenticatedError."""
        if self._logins is None:
            if self._anonymous is None:
                raise flight.FlightUnauthenticatedError("this server has no users: nobody may come in")
            return self._anonymous
        header = headers_of(context).get("authorization", "")
        try:
            return self._check(self._logins, header, address(context.peer()))
        except MerganserError as error:
            raise flight.FlightUnauthenticatedError(f"{error} (hint: {error.hint})") from None

    def _check(self, logins: Logins, header: str, peer: str) -> Who:
        if (given := basic(header)) is not None:
            return logins.check(given.name, given.password, peer)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST:
            raise flight.FlightUnauthenticatedError("log in with a name and a password, or send a bearer token")
        token = token.strip()
        if not token.startswith(_PREFIX):
            return logins.check_token(token, peer)
        known = self.sessions.get(token)
        if known is None:
            raise flight.FlightUnauthenticatedError("the session has ended: log in again")
        if known.wrong is not None:
            raise known.wrong
        try:
            who = logins.check(known.name, known.password, peer)
        except TooManyLogins:
            raise  # says nothing of the password: others fail from that address, or many log in at once
        except MerganserError as error:
            self.sessions.failed(token, error)
            raise
        self.sessions.proved(token)
        return who


def headers_of(context: flight.ServerCallContext) -> Mapping[str, str]:
    call = context.get_middleware("call")
    return call.headers if call is not None else {}


def basic(header: str) -> Credentials | None:
    """Name and password of a Basic *header*; None if it is none."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic" or len(rest) > _LONGEST:
        return None
    bare = rest.strip().rstrip("=")
    found = name_and_password(bare + "=" * (-len(bare) % 4))  # Go's client leaves the padding out
    return Credentials(*found) if found is not None else None


def address(peer: str) -> str:
    """The host of gRPC's word for it: ``ipv4:127.0.0.1:5555``, ``ipv6:[::1]:5555``, percent-encoded or not."""
    kind, _, rest = peer.replace("%5B", "[").replace("%5D", "]").partition(":")
    host = rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else rest
    return host.strip("[]") or peer
