"""The users of a node's doors: a file with their roles, grants, and hashes of what they log in with.

Invariants
- A file that is not understood to the letter admits nobody: BadUsers, never a part of it.
- It is replaced whole (written beside, fsynced, renamed) and only its owner may read it. One writer at a time.
- It holds no password and no token, only hashes (``secrets.py``).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ....schemas.errors import BadUsers, UsageError
from ...files import sync_folder
from .secrets import Hash, is_token_hash

Role = Literal["reader", "operator"]

#: Of the file.
FORMAT = 1

#: A file beyond this was not made by `merganser user`.
_LARGEST = 16 * 2**20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class User:
    """Who asks. A ``reader`` queries, an ``operator`` may also have backups and snapshots made.

    *tables* are those that the user may read; None is all of them, and ``_merganser`` too.
    """

    name: str
    role: Role
    tables: frozenset[str] | None = None
    password: Hash | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """The hash of a token."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError("a user's name is 1 to 64 of A-Z a-z 0-9 _ . @ -, and begins with a letter or digit")
        if self.role not in get_args(Role):
            raise UsageError(f"a role is {' or '.join(get_args(Role))}, not {self.role!r}")

    def may_read(self, table: str) -> bool:
        """SQL's names do not differ by case, nor do grants."""
        return self.tables is None or table.casefold() in {name.casefold() for name in self.tables}


@dataclass(frozen=True)
class Users:
    """All users of a file, by name."""

    by_name: Mapping[str, User]

    def get(self, name: str) -> User | None:
        return self.by_name.get(name)

    def with_user(self, user: User) -> Users:
        return Users({**self.by_name, user.name: user})

    def without(self, name: str) -> Users:
        if name not in self.by_name:
            raise UsageError(f"there is no user {name!r}")
        return Users({other: user for other, user in self.by_name.items() if other != name})

    def encoded(self) -> bytes:
        users = [_facts(user) for _, user in sorted(self.by_name.items())]
        return json.dumps({"format": FORMAT, "users": users}, indent=1).encode() + b"\n"


def read_users(path: Path) -> Users:
    """The users in *path*. BadUsers."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise BadUsers(str(path), error.strerror or str(error)) from error
    if mode & 0o077:
        hint = f"chmod 600 {path}: whoever reads the hashes can try passwords on them"
        raise BadUsers(str(path), f"others may read or change it (mode {mode & 0o777:o})", hint)
    try:
        return _decoded(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise BadUsers(str(path), f"not a file of users: {error}") from error


@contextmanager
def changing(path: Path) -> Iterator[_Change]:
    """The users in *path*, none if there is no file yet, to be replaced by what ``.users`` is at the end."""
    try:
        with _locked(path):
            change = _Change(read_users(path) if path.exists() else Users({}))
            before = change.users
            yield change
            if change.users != before:
                _write(path, change.users.encoded())
    except OSError as error:
        raise BadUsers(str(path), error.strerror or str(error)) from error


@dataclass
class _Change:
    users: Users

    def add(self, user: User, *, again: bool = False) -> None:
        """UsageError if there is one of that name, unless *again*: then it is replaced."""
        if user.name in self.users.by_name and not again:
            error = UsageError(f"there is a user {user.name!r} already")
            error.hint = "--again replaces the user"
            raise error
        self.users = self.users.with_user(user)

    def remove(self, name: str) -> None:
        self.users = self.users.without(name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # A lock file of its own: the users file itself is renamed over.
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(made, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _facts(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "tables": None if user.tables is None else sorted(user.tables),
        "password": None if user.password is None else str(user.password),
        "token": user.token,
    }


_FIELDS = {"name", "role", "tables", "password", "token"}


def _decoded(found: Any) -> Users:
    if not isinstance(found, dict) or set(found) != {"format", "users"}:
        raise ValueError("it has other keys than format and users")
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']!r}, this version reads {FORMAT}")
    users: dict[str, User] = {}
    for facts in found["users"]:
        user = _user(facts)
        if user.name in users:
            raise ValueError(f"{user.name!r} comes twice")
        users[user.name] = user
    return Users(users)


def _user(facts: Any) -> User:
    if not isinstance(facts, dict) or set(facts) != _FIELDS:
        raise ValueError(f"a user has the keys {', '.join(sorted(_FIELDS))}")
    tables, token = facts["tables"], facts["token"]
    if tables is not None and not (isinstance(tables, list) and all(isinstance(t, str) and t for t in tables)):
        raise ValueError("tables are null or a list of names")
    if token is not None and not (isinstance(token, str) and is_token_hash(token)):
        raise ValueError("a token is null or a SHA-256")
    user = User(str(facts["name"]), facts["role"], None if tables is None else frozenset(tables), token=token)
    return user if facts["password"] is None else replace(user, password=Hash.parse(facts["password"]))
