"""A file for Arrow to write to, whose bytes are taken away as they come."""

from __future__ import annotations


class Sink:
    """Keeps what is written until it is taken. For one thread, by way of ``pa.PythonFile``."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._written = b"".join(self._written), []
        return taken
