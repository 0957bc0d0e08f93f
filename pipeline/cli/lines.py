"""JSON lines that are read twice: once to check them all, once to write them.

Invariant: nothing is written of an input with a bad line, and the error names the line.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from ...schemas.errors import BadLine, InvalidRow, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar

    from ...schemas.jsonrows import JsonRows

#: What is done with a row.
Use = Callable[[dict[str, Any]], object]

#: Of input that cannot be read twice, what stays in memory.
_IN_MEMORY = 32 * 2**20

#: A message is at most 1 MB by Kafka's default; what is far longer is not meant as a row.
_LONGEST_LINE = 64 * 2**20

#: How many lines between two looks at the progress bar.
_STEP = 1000


class Lines:
    """An input of lines that can be read again. *rows* says how many the last pass met."""

    def __init__(self, name: str, source: IO[bytes], size: int) -> None:
        self.name = name
        self.size = size
        self.rows = 0
        self._source = source

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(line number, line), without empty ones, from the beginning each time."""
        self._source.seek(0)
        self.rows = number = 0
        while line := self._source.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise BadLine(self.name, number, f"longer than {_LONGEST_LINE // 2**20} MiB")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                self.rows += 1
                yield number, line


@contextmanager
def open_lines(path: Path | None) -> Iterator[Lines]:
    """The lines of a file; of stdin, or a pipe, by way of a temporary file."""
    if path is None or str(path) == "-":
        with _spooled(sys.stdin.buffer) as (kept, size):
            yield Lines("stdin", kept, size)
        return
    try:
        source = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with source:
        if source.seekable():
            yield Lines(str(path), source, path.stat().st_size)
        else:
            with _spooled(source) as (kept, size):
                yield Lines(str(path), kept, size)


@contextmanager
def _spooled(source: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as kept:
        try:
            shutil.copyfileobj(source, kept)
        except OSError as error:
            raise UsageError(f"input cannot be kept in {tempfile.gettempdir()}: {error.strerror}") from error
        yield kept, kept.tell()


def check_rows(lines: Lines, reader: JsonRows, check: Use, progress: Progress) -> None:
    """Give each row to *check*; BadLine names the first line that does not fit."""
    progress.begin("checking")
    for number, line in lines:
        try:
            check(reader.row(line))
        except _UNFIT as error:
            raise _bad(lines, number, error) from error
        progress.past(lines.rows, line)


def write_rows(lines: Lines, reader: JsonRows, write: Use, progress: Progress) -> None:
    """Give each row, checked before, to *write*."""
    progress.begin("writing")
    for number, line in lines:
        try:
            write(reader.row(line))
        except _UNFIT as error:
            raise replace(_bad(lines, number, error), written=lines.rows - 1) from error
        progress.past(lines.rows, line)


def _bad(lines: Lines, number: int, error: Exception) -> BadLine:
    if isinstance(error, InvalidRow):
        return BadLine(lines.name, number, str(error), error.hint)
    why = "nested too deeply" if isinstance(error, RecursionError) else f"not a row: {error}"
    if isinstance(error, JSONDecodeError):
        why = f"not a row: {error.msg} at character {error.pos + 1}"
    return BadLine(lines.name, number, why)


_UNFIT = (InvalidRow, ValueError, RecursionError)


class Progress:
    """A bar on stderr, if that is a terminal and the input is worth one."""

    _WORTH = 1_000_000

    def __init__(self, size: int) -> None:
        self._size, self._done = size, 0
        self._bar: RichBar | None = None
        if size > self._WORTH and sys.stderr.isatty():
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichBar

            from .output import console

            columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = RichBar(*columns, console=console(err=True))

    def begin(self, what: str) -> None:
        self._done = 0
        if self._bar:
            self._task = self._bar.add_task(what, total=self._size)

    def past(self, number: int, line: bytes) -> None:
        self._done += len(line)
        if self._bar and (number % _STEP == 0 or self._done == self._size):
            self._bar.update(self._task, completed=self._done)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
