"""What the story shows: one line that moves on a terminal, one now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.table import Table

from .check import Finding

_PLAIN_EVERY_S = 2.0
_SHOWN = 3


class Screen:
    """Lines, and a line of progress below them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._status = self._console.status("")
        self._told_s = time.monotonic()

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, line: str) -> None:
        self._console.print(line)

    def progress(self, line: str) -> None:
        if self._console.is_terminal:
            self._status.update(line)
        elif time.monotonic() - self._told_s > _PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            self.say("  " + line)

    def counts(self, counts: Sequence[tuple[str, int]]) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for what, number in counts:
            table.add_row(what, f"{number:,}")
        self._console.print(table)

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self.say(f"  {'BROKEN' if finding.broken_by else 'held  '}  {finding.promise}")
            for what in finding.broken_by[:_SHOWN]:
                self.say(f"            {what}")
            if len(finding.broken_by) > _SHOWN:
                self.say(f"            and {len(finding.broken_by) - _SHOWN} more")
