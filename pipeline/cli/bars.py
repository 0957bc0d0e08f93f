"""Progress bars of long work: on stderr, and only if that is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars


class Bars:
    """A bar for each part of a piece of work, one below the other; what comes again has the bar that it had. Silent
    where no one looks."""

    def __init__(self) -> None:
        self._bars: RichBars | None = None
        self._task: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichBars

            from .output import console

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            rate = TextColumn("{task.fields[rate]}")
            self._bars = RichBars(*columns, rate, TimeRemainingColumn(), console=console(err=True))
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, what: str, total: int) -> None:
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, rate="")
            self._task = self._tasks[what]
            self._bars.reset(self._task, total=max(total, 1), completed=0 if total else 1, rate="")

    def advance(self, by: int) -> None:
        if self._bars is not None:
            self._bars.advance(self._task, by)
            speed = self._bars.tasks[self._task].speed  # over the last half minute; a TaskID is its index here
            if speed is not None:
                self._bars.update(self._task, rate=f"{speed:,.0f}/s")
