"""The node under load: a ``merganser replica run`` of its own with both doors, and what it says of itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from merganser.schemas.errors import MerganserError
from merganser.schemas.position import Position, TopicPartition

MERGANSER = [sys.executable, "-m", "merganser"]

_EVERY_S = 0.5

_TOML = """
[replica]
store = "node.duckdb"
group = "{group}"
tables = {tables}
[log]
bootstrap-servers = "{servers}"
[serve]
http = "127.0.0.1:0"
flight = "127.0.0.1:0"
"""

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", re.M)


@dataclass(frozen=True)
class Sample:
    """The node at one moment. *lag* is of the log's ends as they were just before."""

    lag: int
    wal: int
    resident: int
    pauses: float


class Node:
    def __init__(self, folder: Path, servers: str, group: str, tables: list[str]) -> None:
        config = folder / "merganser.toml"
        config.write_text(_TOML.format(group=group, tables=json.dumps(tables), servers=servers))
        self.store = folder / "node.duckdb"
        command = [*MERGANSER, "replica", "run", "--config", str(config), "--json", "--every", "1"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._errors: list[str] = []
        self._listening = self._in_thread(self._errors.extend, self._process.stderr)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the node did not start:\n{self.stop()[1]}")
        self._in_thread(deque, self._process.stdout, 0)
        said: dict[str, Any] = json.loads(line)
        self.http: str = said["http"]["url"]
        self.flight: str = said["flight"]["url"].replace("grpc+tcp", "grpc")
        self._pool = urllib3.PoolManager(retries=False)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> bool:
        return self._get("/readyz").status == 200

    def metrics(self) -> dict[tuple[str, str], float]:
        """Each value of ``/metrics``, by name and labels. OSError."""
        told = self._get("/metrics")
        if told.status != 200:
            raise OSError(f"/metrics: status {told.status}")
        return {(name, labels): float(value) for name, labels, value in _LINE.findall(told.data.decode())}

    def sample(self, ends: Callable[[], Position]) -> Sample:
        log_ends = ends()
        found = self.metrics()
        name = "merganser_applied_offset"
        applied = Position({_place(labels): int(value) for (n, labels), value in found.items() if n == name})
        return Sample(
            sum(applied.behind(log_ends).values()),
            int(found["merganser_store_bytes", 'file="wal"']),
            int(found["process_resident_memory_bytes", ""]),
            found["merganser_query_pauses_total", ""],
        )

    def peak(self) -> int | None:
        """The most that the process ever had in memory, where the system tells."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.M)
        return None if found is None else int(found[1]) * 1024

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit code, and what it said of errors."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listening.join(10)
        return code, "".join(self._errors)

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request("GET", self.http + path, timeout=30)
        except urllib3.exceptions.HTTPError as error:
            raise OSError(f"{path}: {error}") from error

    def _in_thread(self, work: Callable[..., object], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        return thread


class Watch:
    """Takes a sample now and then, in a thread. What it cannot get is kept as an error."""

    def __init__(self, node: Node, ends: Callable[[], Position]) -> None:
        self._node, self._ends = node, ends
        self.samples: list[Sample] = []
        self.missed: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            try:
                self.samples.append(self._node.sample(self._ends))
            except (OSError, MerganserError) as error:  # told at the end
                self.missed.append(repr(error))


def until(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(0.05)


def audit(store: Path, servers: str) -> str:
    """Empty if the account of *store* adds up with the log; else what ``merganser audit`` says."""
    command = [*MERGANSER, "audit", "--store", str(store), "--log", "--bootstrap-servers", servers, "--timeout", "120"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _place(labels: str) -> TopicPartition:
    found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    return TopicPartition(found["table"], int(found["partition"]))
