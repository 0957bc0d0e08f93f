"""Bad lines: how many an import may have, and where they are kept, with their reasons."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from ...schemas.errors import BadLine, UsageError
from .encoding import Bad
from .inputs import REJECTS

#: What is kept of a record's text. Its line is the way to all of it.
_LONGEST_TEXT = 10_000


class Rejects:
    """The bad lines of one file, into a file of JSON lines that is made with the first of them.

    BadLine once there are more than *most*: then no further chunk is written.
    """

    def __init__(self, source: str, unit: str, path: Path, most: int) -> None:
        self.path, self.count = path, 0
        self._source, self._unit, self._most = source, unit, most
        self._file: IO[str] | None = None

    def take(self, bad: Iterable[Bad], written: int) -> None:
        """Keep *bad*; *written* rows of the file are in the table by now."""
        for each in bad:
            self.count += 1
            if self.count > self._most:
                raise self._too_many(each, written)
            self._write(each)

    def _too_many(self, bad: Bad, written: int) -> BadLine:
        hint = "mend the file; or --max-bad N goes on without up to N bad lines, and keeps them in a file"
        if written:
            hint = f"--max-bad {max(1, 2 * self.count)} goes on after those rows and keeps bad lines in a file to mend"
        why = bad.why if not self._most else f"{bad.why} (and {self.count - 1} bad {self._unit}s before it)"
        return BadLine(self._source, bad.line, why, hint, written)

    def _write(self, bad: Bad) -> None:
        if self._file is None:
            try:
                self._file = self.path.open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"rejects {self.path}: {error.strerror}") from error
        facts = {self._unit: bad.line, "why": bad.why, "text": bad.text[:_LONGEST_TEXT]}
        self._file.write(json.dumps(facts, ensure_ascii=False) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def default_path(source: str) -> Path:
    """Beside a file of this machine; in the working folder for all others, under their whole name: those of
    ``monday/a.csv`` and ``tuesday/a.csv`` are two."""
    if source == "-":
        return Path("stdin" + REJECTS)
    if "://" in source and not source.startswith("file:"):
        return Path(source.partition("://")[2].strip("/").replace("/", "_") + REJECTS)
    here = Path(unquote(urlsplit(source).path)) if source.startswith("file:") else Path(source)
    return here.with_name(here.name + REJECTS)
