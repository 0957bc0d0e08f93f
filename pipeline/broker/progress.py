"""Telling a person what takes so long: a bar on a terminal, plain lines elsewhere, nothing for a library."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar

MEGABYTE = 1_000_000


class Progress:
    """Says nothing. Every method may be called from several threads."""

    def say(self, line: str) -> None:
        """One line of news."""

    def fetch_begin(self, jars: int) -> None:
        """That many jars will now be fetched."""

    def fetch_bytes(self, count: int) -> None:
        """So many more bytes have arrived."""

    def fetch_jar(self) -> None:
        """One more jar is here and checked."""

    def fetch_end(self) -> None:
        """The fetching is over, well or not."""


class PlainProgress(Progress):
    """One line when something long begins, one when it is done."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._wanted = self._jars = self._bytes = 0

    def say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()

    def fetch_begin(self, jars: int) -> None:
        self._wanted, self._jars, self._bytes = jars, 0, 0
        self.say(f"fetching {jars} jars of Apache Kafka, once")

    def fetch_bytes(self, count: int) -> None:
        with self._lock:
            self._bytes += count

    def fetch_jar(self) -> None:
        with self._lock:
            self._jars += 1

    def fetch_end(self) -> None:
        self.say(f"fetched {self._jars} of {self._wanted} jars, {self._bytes / MEGABYTE:.1f} MB")


class BarProgress(Progress):
    """A Rich bar: jars of all jars, and bytes so far."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._bytes = 0
        self._bar: RichBar | None = None

    def say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()

    def fetch_begin(self, jars: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichBar

        columns = (
            TextColumn("fetching Apache Kafka, once"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jars, {task.fields[megabytes]:.1f} MB"),
            TimeElapsedColumn(),
        )
        self._bar = RichBar(*columns, console=Console(file=self._out))
        self._task = self._bar.add_task("jars", total=jars, megabytes=0.0)
        self._bar.start()

    def fetch_bytes(self, count: int) -> None:
        with self._lock:
            self._bytes += count
        if self._bar:
            self._bar.update(self._task, megabytes=self._bytes / MEGABYTE)

    def fetch_jar(self) -> None:
        if self._bar:
            self._bar.advance(self._task)

    def fetch_end(self) -> None:
        if self._bar:
            self._bar.stop()


def stderr_progress() -> Progress:
    """The way that fits stderr: a bar on a terminal (if Rich is installed), plain lines elsewhere."""
    if not sys.stderr.isatty():
        return PlainProgress(sys.stderr)
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return PlainProgress(sys.stderr)
    return BarProgress(sys.stderr)
