"""A process of the story: it says JSON lines, and can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_STOP_S = 30

#: (who, what was said).
Said = tuple[str, dict[str, Any]]


class Failed(Exception):
    """The story cannot go on."""


class Process:
    """``python -m <module> <order>``. What it says goes into *said*."""

    def __init__(self, name: str, module: str, servers: str, said: SimpleQueue[Said]) -> None:
        self.name = name
        self._module = module
        self._environment = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": servers}
        self._said = said
        self._process: subprocess.Popen[str] | None = None

    def start(self, order: str) -> None:
        """Start it, or start it again."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, order],
            cwd=_ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the story, which ends its processes
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def check(self) -> None:
        """Failed, with its last words, if it ended badly by itself."""
        if self._process is not None and self._process.poll():
            raise Failed(f"{self.name} ended by itself (exit {self._process.returncode}): {self._last_words()}")

    def kill(self) -> bool:
        """SIGKILL, now. What it had said by then is in the queue afterwards. False if it had ended before."""
        if self._process is None:
            return False
        self._process.kill()
        code = self._process.wait()
        self._listener.join()
        self._close()
        return code == -signal.SIGKILL

    def stop(self) -> None:
        """Close its stdin, and wait for a good end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end: {self._last_words()}") from None
        self.check()
        self._listener.join()
        self._close()

    # -- inside ------------------------------------------------------------------------------

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._said.put((self.name, json.loads(line)))
            except ValueError:
                continue  # cut short by SIGKILL

    def _close(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith("hint:")]
        return said[-1] if said else "it said nothing"
