"""Asking what may be away, until it answers: the log, the registry, the archive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from ..schemas.errors import ArchiveUnavailable, LogUnavailable, RegistryUnavailable

T = TypeVar("T")


class Patience:
    """Waits longer each time, up to two seconds, until *stopping*; *tell* hears what is waited for."""

    def __init__(self, stopping: threading.Event, tell: Callable[[str | None], None], log: logging.Logger) -> None:
        self._stopping, self._tell, self._log = stopping, tell, log

    def ask(self, question: Callable[[], T]) -> T:
        """The answer; what was away is raised only if the loop is to end meanwhile."""
        pause_s = 0.1
        try:
            while True:
                try:
                    return question()
                except (LogUnavailable, RegistryUnavailable, ArchiveUnavailable) as away:
                    self._log.warning("%s; trying again", away)
                    self._tell(str(away))
                    if self._stopping.wait(pause_s):
                        raise
                    pause_s = min(2.0, pause_s * 2)
        finally:
            if pause_s > 0.1:
                self._tell(None)
