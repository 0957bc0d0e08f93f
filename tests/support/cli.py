"""What a command left behind, and what a failed one has to look like."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MERGANSER = [sys.executable, "-m", "merganser"]


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def failed(self, code: int, *words: str) -> None:
        """One line, with *words* in it, a hint, and nothing else; that exit code."""
        assert self.code == code, self
        error, hint, *more = self.err.splitlines()
        assert error.startswith("error: ") and hint.startswith("hint: ") and not more, self.err
        assert len(hint) > len("hint: ")
        for word in words:
            assert word in error, self.err


@dataclass(frozen=True)
class Shop:
    """A table, and a store of it at rest."""

    table: str
    store: Path

    def copy_to(self, path: Path) -> Path:
        shutil.copyfile(self.store, path)
        return path


#: Runs a command in this process.
Cli = Callable[..., Done]


def shell(*args: object) -> bytes:
    """Stdout of a command in a process of its own; it has to end well."""
    return subprocess.run([*MERGANSER, *map(str, args)], capture_output=True, check=True, timeout=300).stdout
