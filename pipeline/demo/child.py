"""The replica, as a process of its own, so that it can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...consumers.storefile import StoreFile
from ...schemas.errors import DemoFailed
from ...schemas.position import Position

GROUP = "demo"

_STOP_S = 30


@dataclass(frozen=True)
class Seen:
    """What the process said last."""

    position: Position = field(default_factory=Position)
    applied: int = 0
    lag: int | None = None
    rate: float = 0.0


class Child:
    """``merganser replica run`` on one store, with its page at *http*. Its own errors end in :meth:`check`."""

    def __init__(
        self, store: Path, servers: str, registry: str | None, tables: Sequence[str], http: str | None = None
    ) -> None:
        self.store = store
        self._tables, self._http = tables, http
        self._environment = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": servers}
        if registry:
            self._environment["MERGANSER_REGISTRY"] = registry
        self.seen = Seen()
        self.start()

    def start(self) -> None:
        """Start it, or start it again: it goes on where its file says."""
        line = [sys.executable, "-m", "merganser", "replica", "run", "--json", "--every", "0.1"]
        line += ["--store", str(self.store), "--group", GROUP, "--tables", ",".join(self._tables)]
        line += ["--http", self._http] if self._http else []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(
            line,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # a Ctrl-C is ours to pass on
        )
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """DemoFailed, with its last words, if it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise DemoFailed(f"the replica ended by itself (exit {code}): {self._last_words()}")

    def kill(self) -> Position:
        """SIGKILL, now; what the file says afterwards."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        with StoreFile(self.store) as found:
            position = found.position
        self.seen = Seen(position, sum(position.values()))
        return position

    def stop(self) -> None:
        """SIGTERM, and wait for a clean end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        if code != 0:
            raise DemoFailed(f"the replica did not end well (exit {code}): {self._last_words()}")

    def abandon(self) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    # -- inside ------------------------------------------------------------------------------

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                said: Mapping[str, object] = json.loads(line)
            except ValueError:
                continue  # cut short by SIGKILL
            self.seen = Seen(
                Position.parse(str(said["position"])),
                int(str(said["applied"])),
                None if said["lag"] is None else int(str(said["lag"])),
                float(str(said["rate"])),
            )

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (told or lines or ["it said nothing"])[-1]
