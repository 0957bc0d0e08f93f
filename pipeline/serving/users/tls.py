"""TLS of the doors: one certificate for all of them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ....schemas.errors import UsageError


@dataclass(frozen=True)
class Tls:
    """Files in PEM: a certificate with its chain, and its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and newer. UsageError if the files do not fit."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise UsageError(f"no TLS with {self.cert} and {self.key}: {why}") from error
        return made

    def pem(self) -> tuple[bytes, bytes]:
        """Certificate and key, for who reads them itself."""
        try:
            return self.cert.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise UsageError(f"no TLS with {self.cert} and {self.key}: {error.strerror}") from error
