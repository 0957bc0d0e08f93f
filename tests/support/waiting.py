"""Tests wait for something that has a name; they do not sleep."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 120, every_s: float = 0.05) -> None:
    """Return when the condition holds; fail with its name when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(every_s)
