"""TLS of the doors: one certificate for all of them.

Invariant: files that do not fit together change nothing; what was good before goes on.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from ....schemas.errors import UsageError

_log = logging.getLogger("merganser.tls")


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

    def renewing(self) -> ssl.SSLContext:
        """As :meth:`context`, and from when the files change a connection gets what they have then."""
        made = self.context()
        # OpenSSL asks which name a client wants, also if it says none, before it takes a certificate.
        made.sni_callback = _Renewal(self, made).choose
        return made

    def pem(self) -> tuple[bytes, bytes]:
        """Certificate and key, for who reads them itself."""
        try:
            return self.cert.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise UsageError(f"no TLS with {self.cert} and {self.key}: {error.strerror}") from error


class _Renewal:
    """What a Tls comes to, read again when its files are not those of before."""

    def __init__(self, tls: Tls, context: ssl.SSLContext) -> None:
        self._tls, self._context = tls, context
        self._seen = self._stamp()

    def choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._context = self._tls.context()
                _log.info("%s has changed: connections get it from now on", self._tls.cert)
            except UsageError as error:
                _log.warning("%s; the certificate before stays", error)
        connection.context = self._context

    def _stamp(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for path in (self._tls.cert, self._tls.key):
            try:
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode))
            except OSError:
                found.append(())
        return found
