"""A step that is taken again and again, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeating:
    """Takes *step* between :meth:`start` and :meth:`stop`, first after *first_s* seconds; it says in how many again."""

    def __init__(self, name: str, step: Callable[[], float], first_s: float = 0.0) -> None:
        self._step, self._pause_s = step, first_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the step that is being taken; there is no further one."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            self._pause_s = self._step()
