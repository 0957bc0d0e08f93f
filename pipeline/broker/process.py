"""Processes: start one that outlives us, know it again later, end it; and taking turns between ours.

A node's process is known by its command line, which names the node's configuration file. A pid alone
proves nothing: it may be another program's by now.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...schemas.errors import BrokerError
from .config import HOST
from .home import missing_extra

PAUSE_S = 0.05


def psutil() -> Any:
    """The psutil module."""
    try:
        import psutil as module
    except ImportError:
        raise missing_extra("psutil") from None
    return module


def wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    """Poll a condition until it holds (True) or ``time.monotonic()`` passes the deadline (False)."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def spawn(line: Sequence[str], console: Path, cwd: Path) -> int:
    """Start a process that belongs to nobody and return its pid.

    It goes through a shell that ends at once, in a session of its own. So the process is no child of
    ours: Ctrl-C here does not reach it, it survives us, and it leaves us no zombie when it ends.
    """
    script = f"exec {shlex.join(line)} </dev/null >{shlex.quote(str(console))} 2>&1 & echo $!"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=cwd,
        start_new_session=True,
        check=True,
    )
    return int(done.stdout)


def is_running(pid: int, argument: str) -> bool:
    """Whether this pid lives and has ``argument`` as one word of its command line."""
    process = psutil()
    try:
        found = process.Process(pid)
        return found.status() != process.STATUS_ZOMBIE and argument in found.cmdline()
    except process.Error:
        return False


def find_running(argument: str) -> int | None:
    """The pid of our process (of whatever pid) with ``argument`` as one word of its command line."""
    for process in psutil().process_iter(["cmdline"]):
        if argument in (process.info["cmdline"] or ()) and is_running(process.pid, argument):
            return int(process.pid)
    return None


def name_of(pid: int) -> str:
    """What a pid is now, for a message."""
    process = psutil()
    try:
        found = process.Process(pid)
        return "nothing" if found.status() == process.STATUS_ZOMBIE else str(found.name())
    except process.Error:
        return "nothing"


def resident_bytes(pid: int) -> int:
    process = psutil()
    try:
        return int(process.Process(pid).memory_info().rss)
    except process.Error:
        return 0


def end(pid: int, argument: str, signal_number: int) -> None:
    """Signal our process, if it still is ours."""
    if is_running(pid, argument):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def port_is_free(port: int) -> bool:
    """Whether Kafka could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Who listens on a port, as far as the system tells us."""
    process = psutil()
    with contextlib.suppress(process.Error, OSError):
        for link in process.net_connections("tcp"):
            if link.status == process.CONN_LISTEN and link.laddr.port == port and link.pid:
                return f"{name_of(link.pid)} (pid {link.pid})"
    return "another program"


@contextlib.contextmanager
def exclusive(lock: Path, wait_s: float, waiting: Callable[[], None]) -> Iterator[None]:
    """One process (and one thread) at a time, by ``flock``: the kernel frees it when its holder dies."""
    try:
        import fcntl
    except ImportError:
        raise BrokerError("the local broker runs on Linux and macOS only", hint="use --bootstrap-servers") from None

    def taken() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if not taken():
            waiting()
            if not wait_until(taken, time.monotonic() + wait_s):
                raise BrokerError(
                    f"another process has been starting or stopping this broker for {wait_s:g} s",
                    hint=f"look for a hanging merganser process; its lock is {lock}",
                )
        yield
