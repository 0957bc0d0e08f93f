"""Passwords and tokens as they are kept: what is on the disk opens nothing.

Passwords are hashed by scrypt, with its parameters beside the hash, so that they can be raised later. Tokens
are 256 random bits, for which one SHA-256 is enough.

Invariant: comparing takes the same time whatever differs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass

from ....schemas.errors import UsageError

SHORTEST, LONGEST = 8, 1024

_SALT_BYTES, _HASH_BYTES, _TOKEN_BYTES = 16, 32, 32

#: Bounds of what a users file may ask of a log-in: 1 GiB of memory would be a weapon.
_MOST_MEMORY = 256 * 2**20


@dataclass(frozen=True)
class Cost:
    """Of one hash: 128 * 2**log_n * r bytes of memory, p times over."""

    log_n: int = 15
    r: int = 8
    p: int = 3

    @property
    def memory(self) -> int:
        return int(128 * 2**self.log_n * self.r)

    @property
    def work(self) -> int:
        return self.memory * self.p

    def __post_init__(self) -> None:
        if not (1 <= self.log_n <= 24 and 1 <= self.r <= 32 and 1 <= self.p <= 16 and self.memory <= _MOST_MEMORY):
            raise ValueError(f"not parameters of scrypt: {self.log_n}, {self.r}, {self.p}")


@dataclass(frozen=True)
class Hash:
    """A password, hashed. ``str`` is its form in a file; :meth:`parse` reads it, ValueError if it is none."""

    cost: Cost
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str, cost: Cost | None = None) -> Hash:
        salt, cost = secrets.token_bytes(_SALT_BYTES), cost or Cost()
        return cls(cost, salt, _scrypt(password, cost, salt))

    @classmethod
    def parse(cls, text: str) -> Hash:
        name, *numbers, salt, digest = text.split(":")
        if name != "scrypt" or len(numbers) != 3 or not all(n.isascii() and n.isdecimal() for n in numbers):
            raise ValueError("not a hash that this version knows")
        try:
            found = cls(Cost(*map(int, numbers)), *(base64.b64decode(t, validate=True) for t in (salt, digest)))
        except binascii.Error:
            raise ValueError("not base64") from None
        if len(found.salt) < 8 or len(found.digest) != _HASH_BYTES:
            raise ValueError("salt or hash is cut off")
        return found

    def __str__(self) -> str:
        numbers = (self.cost.log_n, self.cost.r, self.cost.p)
        return ":".join(
            ["scrypt", *map(str, numbers), *(base64.b64encode(b).decode() for b in (self.salt, self.digest))]
        )

    def matches(self, password: str) -> bool:
        return hmac.compare_digest(self.digest, _scrypt(password, self.cost, self.salt))


def nobody(cost: Cost) -> Hash:
    """What a log-in under an unknown name is compared with: as costly, and never equal."""
    return Hash(cost, bytes(_SALT_BYTES), bytes(_HASH_BYTES))


def check_password(password: str) -> str:
    """*password*, if it may be one. UsageError, which does not repeat it."""
    if len(password) < SHORTEST:
        error = UsageError(f"a password has {SHORTEST} characters at least, this one has {len(password)}")
        error.hint = "it is read from MERGANSER_PASSWORD, from a prompt, or from the first line of stdin"
        raise error
    if len(password) > LONGEST or any(ord(c) < 32 or ord(c) == 127 for c in password):
        raise UsageError(f"a password has {LONGEST} characters at most, and none that control a terminal")
    return password


def new_token(user: str) -> str:
    """A token for *user*, whose name it begins with, so that it is found at once."""
    return f"{user}.{secrets.token_urlsafe(_TOKEN_BYTES)}"


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_token_hash(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def token_matches(hashed: str | None, token: str) -> bool:
    return hashed is not None and hmac.compare_digest(hashed, token_hash(token))


def _scrypt(password: str, cost: Cost, salt: bytes) -> bytes:
    # One password may be typed in two Unicode forms (RFC 8265).
    given = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    n, r, p = 2**cost.log_n, cost.r, cost.p
    return hashlib.scrypt(given, salt=salt, n=n, r=r, p=p, maxmem=2 * cost.memory + 2**20, dklen=_HASH_BYTES)
