"""Logging in: the same for every door.

Invariants
- A name that does not exist costs what a wrong password does, in time and in answer.
- One password is hashed at a time, whoever asks: a flood of log-ins takes 32 MiB and one core, and the count of
  failures is exact. Who waits for that is told to come again, not kept for ever.
- What was verified is believed for a minute, by an HMAC under a key of this process: neither password nor token
  is kept. A change of the file is noticed within a second, and ends all of that.
"""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ....schemas.errors import LoginFailed, MerganserError, TooManyLogins
from .attempts import Attempts
from .secrets import LONGEST, Cost, nobody, token_matches
from .users import User, read_users

_log = logging.getLogger("merganser.login")

#: How long what was verified is believed, and of how many.
BELIEVED_S = 60.0
_MOST_BELIEVED = 1024

_LOOK_S = 1.0

#: How many may wait for the hash of a password, and for how long.
_MOST_WAITING = 32
_PATIENCE_S = 10.0


def name_and_password(encoded: str) -> tuple[str, str] | None:
    """What a Basic Authorization has in base64; None if it is none."""
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # no base64, not ASCII, or no UTF-8
        return None
    return (name, password) if colon else None


class Logins:
    """Checks who asks against the users in *path*. Safe across threads; :meth:`check` may block for seconds.

    BadUsers if the file cannot be read at the start; later on the users before it stay, and it is told.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now = path, now
        self._users = read_users(path)
        self._seen, self._looked_at = self._stamp(), now()
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._believed: OrderedDict[bytes, tuple[float, User]] = OrderedDict()
        self._attempts = Attempts()
        self.failures = 0
        """Log-ins that failed, and those that were turned away, so far."""

    def check(self, name: str, password: str, address: str) -> User:
        """The user *name*, whose password it is. LoginFailed, TooManyLogins."""
        known = self._admitted(name, "p", password, address)
        if known is not None:
            return known
        self._enter()
        try:
            known = self._admitted(name, "p", password, address)  # others may have asked the same meanwhile
            if known is not None:
                return known
            user = self._users.get(name)
            hashed = user.password if user is not None else None
            right = (hashed or nobody(self._cost())).matches(password[: LONGEST + 1])
            return self._decided(user if right and hashed is not None else None, name, "p", password, address)
        finally:
            self._hashing.release()

    def check_token(self, token: str, address: str) -> User:
        """The user whose token it is. LoginFailed, TooManyLogins."""
        name = token.rpartition(".")[0]
        known = self._admitted(name, "t", token, address)
        if known is not None:
            return known
        user = self._users.get(name)
        right = token_matches(user.token if user is not None else "0" * 64, token)
        return self._decided(user if right else None, name, "t", token, address)

    def known(self, name: str, kind: str, secret: str, address: str) -> User | None:
        """The user, if the same was verified a moment ago: this does not block. *kind*: p or t. TooManyLogins."""
        return self._admitted(name, kind, secret, address)

    # -- inside ------------------------------------------------------------------------------

    def _admitted(self, name: str, kind: str, secret: str, address: str) -> User | None:
        with self._lock:
            self._look()
            wait_s = self._attempts.wait_s(name, address, self._now())
            if wait_s > 0:  # also if it is right: else the answer would tell
                self.failures += 1
                raise TooManyLogins(name, wait_s)
            until_s, user = self._believed.get(self._mark(kind, name, secret), (0.0, None))
            return user if user is not None and self._now() < until_s else None

    def _decided(self, user: User | None, name: str, kind: str, secret: str, address: str) -> User:
        with self._lock:
            if user is None or self._users.get(name) is not user:
                self._attempts.failed(name, address, self._now())
                self.failures += 1
                _log.warning("a log-in as %r from %s failed", name[:64], address)
                raise LoginFailed()
            self._attempts.succeeded(name, address)
            self._believed[self._mark(kind, name, secret)] = (self._now() + BELIEVED_S, user)
            while len(self._believed) > _MOST_BELIEVED:
                self._believed.popitem(last=False)
            return user

    def _enter(self) -> None:
        with self._lock:
            full = self._waiting >= _MOST_WAITING
            self._waiting += not full
        if full:
            raise TooManyLogins("", 1.0)
        try:
            if not self._hashing.acquire(timeout=_PATIENCE_S):
                raise TooManyLogins("", 1.0)
        finally:
            with self._lock:
                self._waiting -= 1

    def _mark(self, kind: str, name: str, secret: str) -> bytes:
        said = "\0".join((kind, name, secret)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, said, sha256)

    def _cost(self) -> Cost:
        """Of the dearest password there is, so that a name that does not exist is no cheaper."""
        costs = [user.password.cost for user in self._users.by_name.values() if user.password is not None]
        return max(costs, key=lambda cost: cost.work, default=Cost())

    def _look(self) -> None:
        """Take the file over, if it changed."""
        now_s = self._now()
        if now_s - self._looked_at < _LOOK_S:
            return
        self._looked_at = now_s
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._users = read_users(self._path)
        except MerganserError as error:
            _log.warning("%s; the users before stay", error)
            return
        self._believed.clear()

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        # Its mode too: one that was refused since others may read it becomes readable by chmod alone.
        return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
