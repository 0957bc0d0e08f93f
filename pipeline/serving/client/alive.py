"""Connections that notice when the one who should answer is there no more, though the network is: a process that is
frozen, a host that swaps.

A query may take long, so silence alone says nothing. While it lasts, the node is asked on another connection whether it
is alive; if it does not say so either, the wait is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.wait import wait_for_read

#: How long a node may be silent before it is asked, and how long that may take.
LOOK_S, ANSWER_S = 2.0, 1.0

#: Says whether the node at a URL is alive.
Alive = Callable[[str], bool]


def watchful(manager: urllib3.PoolManager, alive: Alive) -> urllib3.PoolManager:
    """*manager*, whose connections give a response up when its node is not *alive*."""

    class Plain(HTTPConnection):
        def getresponse(self) -> Any:
            _wait(self, f"http://{_host(self)}:{self.port}", alive)
            return super().getresponse()

    class Safe(HTTPSConnection):
        def getresponse(self) -> Any:
            _wait(self, f"https://{_host(self)}:{self.port}", alive)
            return super().getresponse()

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SafePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Safe

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SafePool}
    return manager


def _host(connection: HTTPConnection) -> str:
    """As a URL has it: urllib3 takes the brackets off."""
    return f"[{connection.host}]" if ":" in connection.host else connection.host


def _wait(connection: HTTPConnection, url: str, alive: Alive) -> None:
    """Until a response begins, for as long as the node is alive. TimeoutError."""
    timeout_s = connection.timeout
    until_s = time.monotonic() + (timeout_s if isinstance(timeout_s, (int, float)) else 60.0)
    while (left_s := until_s - time.monotonic()) > 0:
        if connection.sock is None or wait_for_read(connection.sock, min(LOOK_S, left_s)):
            return
        if not alive(url):
            raise TimeoutError("it does not even say that it is alive")
    raise TimeoutError("no answer in time")
