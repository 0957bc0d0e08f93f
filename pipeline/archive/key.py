"""The key that an archive's segments, and backups, are encrypted with.

Parquet's own encryption (AES-256-GCM) does the work. Each file gets a key of its own, made from the
key and the file's *salt*, so that no two files share nonces of one key.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...schemas.errors import BadKeyFile, WrongKey


@dataclass(frozen=True)
class Key:
    """32 secret bytes."""

    secret: bytes = field(repr=False)

    @classmethod
    def from_file(cls, path: str | Path) -> Key:
        """The key in *path*: 64 hexadecimal digits. BadKeyFile if there is none."""
        try:
            text = Path(path).read_bytes().strip()
        except OSError as error:
            raise BadKeyFile(str(path), str(error.strerror)) from error
        if not re.fullmatch(rb"[0-9a-fA-F]{64}", text):
            raise BadKeyFile(str(path), "it does not hold 64 hexadecimal digits")
        return cls(bytes.fromhex(text.decode()))

    @property
    def id(self) -> str:
        """Tells this key from others, and gives nothing of it away."""
        return self._derived(b"id").hex()[:16]

    def address(self, data: bytes) -> str:
        """A name for *data* that is the same each time, and tells nobody without the key what it is."""
        return hmac.new(self._derived(b"address"), data, sha256).hexdigest()

    def writing(self, salt: str) -> Any:
        """pyarrow's properties to write the file of *salt*."""
        from pyarrow.parquet.encryption import create_encryption_properties

        return create_encryption_properties(self._of_file(salt))

    def reading(self, salt: str) -> Any:
        """pyarrow's properties to read the file of *salt*."""
        from pyarrow.parquet.encryption import create_decryption_properties

        return create_decryption_properties(self._of_file(salt))

    def _of_file(self, salt: str) -> bytes:
        return self._derived(b"file:" + salt.encode())

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.new(self.secret, b"merganser:" + purpose, sha256).digest()


def new_salt() -> str:
    return os.urandom(16).hex()


def check_key(file: str, wanted: str, key: Key | None) -> None:
    """WrongKey unless *key* is the one with the id *wanted* (``""``: not encrypted)."""
    if wanted and key is None:
        raise WrongKey(file, f"it is encrypted (key {wanted}), and no key was given")
    if wanted and key is not None and key.id != wanted:
        raise WrongKey(file, f"it is encrypted with key {wanted}, the key given is {key.id}")
