"""Who asks over HTTP, and whether the request is one that a person or a program meant.

Invariants
- Where there are users, nothing but the health checks and the pages is answered to somebody who has not logged in.
- A page of another site cannot make a browser on this machine ask here: without users a request has to name this
  machine as its host (so that no foreign name leads here), and one that tells of its origin has to come from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ....schemas.errors import Forbidden, LoginFailed, UsageError
from ..users.binding import LOCAL, Address
from ..users.login import Logins, name_and_password
from ..users.users import User
from .problems import HttpError

_WHO = (
    "in curl -u NAME or a bearer token, in mg.Client auth=, "
    "in a command --user and MERGANSER_PASSWORD, or MERGANSER_TOKEN without --user"
)

#: Who logs in waits here for the hash of a password, more of them than Logins lets wait. Not where asyncio has its own
#: few threads: strangers would take all of them from who is in already.
_threads = ThreadPoolExecutor(64, thread_name_prefix="merganser-login")


@dataclass(frozen=True)
class Credentials:
    """What a request says of who asks. *kind*: p for a password, t for a token."""

    kind: str
    name: str
    secret: str


def credentials(header: str | None) -> Credentials | None:
    """What *header*, an Authorization, says; None if there is none. LoginFailed."""
    if not header:
        return None
    scheme, _, given = header.strip().partition(" ")
    given = given.strip()
    if scheme.lower() == "bearer" and given:
        return Credentials("t", given.rpartition(".")[0], given)
    if scheme.lower() == "basic":
        found = name_and_password(given)
        if found is None:
            raise LoginFailed("the Authorization is no Basic one", "user:password, in base64")
        return Credentials("p", *found)
    raise LoginFailed("the Authorization is neither Basic nor Bearer", "log in with user and password, or a token")


def check_origin(headers: Mapping[str, str], address: Address, anonymous: User | None) -> None:
    """Refuse what a foreign page has a browser ask. Pure. HttpError."""
    host = headers.get("host", "")
    if anonymous == LOCAL and not _names_this_machine(host, address):
        hint = f"ask {address}; other names need --users"
        raise HttpError(421, f"this node does not answer to the name {host[:80]!r}", hint)
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise HttpError(403, f"a page of {origin[:80]!r} may not ask here", "the pages of the node itself may")
    if headers.get("sec-fetch-site") == "cross-site":
        raise HttpError(403, "a page of another site may not ask here", "the pages of the node itself may")


def _names_this_machine(host: str, address: Address) -> bool:
    if not host:
        return False
    try:
        return Address.parse(host if _has_port(host) else f"{host}:0").loopback
    except UsageError:
        return False


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].count(":") == 1


class Entrance:
    """Finds out who asks at one door."""

    def __init__(self, logins: Logins | None, anonymous: User | None, address: Address) -> None:
        self._logins, self._anonymous, self.address = logins, anonymous, address

    async def user(self, headers: Mapping[str, str], client: str) -> User:
        """Who asks, from the address *client*. LoginFailed, TooManyLogins, HttpError."""
        check_origin(headers, self.address, self._anonymous)
        logins = self._logins
        if logins is None:
            if self._anonymous is None:
                raise LoginFailed("nobody may come in")
            return self._anonymous
        given = credentials(headers.get("authorization"))
        if given is None:
            raise LoginFailed("log in first", _WHO)
        known = logins.known(given.name, given.kind, given.secret, client)
        if known is not None:
            return known
        if given.kind == "t":
            return logins.check_token(given.secret, client)
        check = asyncio.get_running_loop().run_in_executor
        return await check(_threads, logins.check, given.name, given.secret, client)


def demand(user: User, role: str, what: str) -> None:
    """Forbidden unless *user* has *role*."""
    if role == "operator" and user.role != "operator":
        raise Forbidden(user.name, f"{what} is for operators")
