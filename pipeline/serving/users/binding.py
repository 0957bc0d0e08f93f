"""Where a door may be opened, and as whom it admits those who do not say who they are. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from ....schemas.errors import UnsafeDoor, UsageError
from .users import User

#: Without users, on this machine only: whoever is on it.
LOCAL = User("local", "operator")

#: Without users, and said to be meant so: anybody.
ANYBODY = User("anybody", "reader")


class Named(Protocol):
    """A user, of whichever door."""

    @property
    def name(self) -> str: ...


def name_of(user: Named) -> str | None:
    """By which *user* is known; None for those of whom it is not known who they are."""
    return None if user is LOCAL or user is ANYBODY else user.name


@dataclass(frozen=True)
class Address:
    """Where a door listens. ``str`` is its form on the command line."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``127.0.0.1:8080``, ``[::1]:8080``, ``localhost:8080``, ``:8080`` (loopback). UsageError."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if (
            not colon
            or not (port.isascii() and port.isdecimal())
            or int(port) > 65535
            or (":" in host and not bracketed)
        ):
            raise UsageError(f"not an address to listen at: {text!r} (HOST:PORT, like 127.0.0.1:8080)")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def refused(self, why: str) -> UsageError:
        """That nobody can listen here."""
        hint = "give another address or port (0 takes a free one), or end what listens there"
        return UsageError(f"cannot listen at {self}: {why}").hinted(hint)

    @property
    def loopback(self) -> bool:
        """True if only this machine can come here."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: nobody knows what it will mean


@dataclass(frozen=True)
class Safety:
    """What there is to keep strangers out."""

    users: bool = False
    tls: bool = False
    insecure: bool = False


def admit(door: str, address: Address, safety: Safety) -> User | None:
    """Who may come in at *address* without saying who they are; None if nobody may.

    UnsafeDoor unless the address is this machine's own, or there are users and TLS, or it is meant so.
    """
    if safety.users:
        if not (address.loopback or safety.tls or safety.insecure):
            raise UnsafeDoor(door, str(address), "without TLS passwords and rows could be read on the way")
        return None
    if address.loopback:
        return LOCAL
    if not safety.insecure:
        raise UnsafeDoor(door, str(address), "anybody who reaches it could read every row")
    return ANYBODY
