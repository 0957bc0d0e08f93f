"""A ``replica run`` of its own, for tests that ask it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.cli import MERGANSER
from support.waiting import wait_for

TOML = """
[replica]
store = "{group}.duckdb"
group = "{group}"
tables = {tables}
[log]
bootstrap-servers = "{broker}"
[serve]
http = "127.0.0.1:0"
{more}
"""


class Node:
    """A node that runs."""

    def __init__(self, config: Path) -> None:
        line = [*MERGANSER, "replica", "run", "--config", str(config), "--json", "--every", "0.1"]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        wait_for("the node to say where it is", lambda: bool(self.said) or self.process.poll() is not None, 120)
        assert self.said, self.process.stderr and self.process.stderr.read()
        self.url: str = self.said[0]["http"]["url"]

    @property
    def flight(self) -> str:
        """HOST:PORT of its Flight SQL door."""
        return str(self.said[0]["flight"]["url"]).partition("://")[2]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(json.loads(line) for line in self.process.stdout)


@contextmanager
def node(folder: Path, broker: str, tables: Sequence[str], group: str, more: str = "") -> Iterator[Node]:
    """A node that serves *tables* over HTTP, until the end. *more* goes to the end of its ``[serve]``."""
    config = folder / f"{group}.toml"
    config.write_text(TOML.format(group=group, tables=json.dumps(list(tables)), broker=broker, more=more))
    started = Node(config)
    try:
        yield started
    finally:
        started.process.send_signal(signal.SIGCONT)
        started.process.send_signal(signal.SIGTERM)
        try:
            assert started.process.wait(60) == 0
            assert started.process.stderr is not None and "Traceback" not in started.process.stderr.read()
        finally:
            started.process.kill()
            started.process.wait()
