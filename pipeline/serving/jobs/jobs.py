"""Long work that somebody asked a node for: done in a thread, one at a time, and asked after by its number.

Invariant: of what was done the last few are remembered, and no more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ....schemas.errors import MerganserError, TooBusy

_KEPT = 20


@dataclass(frozen=True)
class Job:
    """*result* is there once it is done, *error* if it failed."""

    id: str
    what: str
    state: Literal["running", "done", "failed"] = "running"
    result: Any = None
    error: MerganserError | None = None


class Jobs:
    """Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._count = 0

    def begin(self, what: str, work: Callable[[], Any]) -> Job:
        """Do *work*. TooBusy while another is done."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise TooBusy(f"{next(reversed(self._jobs.values())).what} is being done already")
            self._count += 1
            job = Job(str(self._count), what)
            self._jobs[job.id] = job
            while len(self._jobs) > _KEPT:
                self._jobs.popitem(last=False)
            self._thread = threading.Thread(target=self._do, args=(job, work), name="merganser-job", daemon=True)
            self._thread.start()
            return job

    def get(self, id_: str) -> Job | None:
        with self._lock:
            return self._jobs.get(id_)

    def join(self) -> None:
        """Until what is being done has ended."""
        if self._thread is not None:
            self._thread.join()

    def _do(self, job: Job, work: Callable[[], Any]) -> None:
        try:
            ended = replace(job, state="done", result=work())
        except MerganserError as error:
            ended = replace(job, state="failed", error=error)
        except Exception as error:  # noqa: BLE001  # whoever asked has to hear of it
            ended = replace(job, state="failed", error=MerganserError(f"it failed: {type(error).__name__}"))
        with self._lock:
            self._jobs[job.id] = ended
