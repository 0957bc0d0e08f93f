"""How the demo is seen: bars on a terminal, a line now and then elsewhere. 80 columns are enough."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ..cli.output import emit, emit_table
from .child import Seen
from .compare import Comparison

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars

    from ...consumers.result import Result

_PLAIN_EVERY_S = 2.0


class Bars:
    """Two bars: rows written to the log, and rows applied by the replica."""

    def __init__(self, total: int, writing: bool) -> None:
        self._total, self._writing = total, writing
        self._told_s = time.monotonic()
        self._bars: RichBars | None = None
        if sys.stdout.isatty():
            self._bars = _rich_bars()

    def __enter__(self) -> Bars:
        if self._bars:
            self._bars.start()
            self._written = self._bars.add_task("log", total=self._total, note="", visible=self._writing)
            self._applied = self._bars.add_task("replica", total=self._total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, written: int, seen: Seen) -> None:
        note = f"lag {written - seen.applied:,}, {seen.rate:,.0f}/s"
        if self._bars:
            self._bars.update(self._written, completed=written)
            self._bars.update(self._applied, completed=seen.applied, note=note)
        elif time.monotonic() - self._told_s > _PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            log = f"log {written:,} of {self._total:,} rows · " if self._writing else ""
            emit(f"  {log}replica {seen.applied:,} applied, {note}")

    def say(self, line: str) -> None:
        if self._bars:
            self._bars.console.print(line)
        else:
            emit(line)


def _rich_bars() -> RichBars:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichBars

    from ..cli.output import console

    columns = (
        TextColumn("  {task.description:<7}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return RichBars(*columns, console=console())


def show_result(title: str, result: Result) -> None:
    emit(f"\n{title}")
    rows = result.rows()
    numeric = [name for i, name in enumerate(result.columns) if rows and isinstance(rows[0][i], (int, float))]
    emit_table(result.columns, rows, numeric)


def show_comparisons(found: list[Comparison]) -> None:
    rows = [
        (c.table, f"{c.in_csv:,}", f"{c.in_replica:,}", c.missing, c.extra, "equal" if c.held else "DIFFERS")
        for c in found
    ]
    columns = ["table", "rows by CSV", "rows in replica", "missing", "extra", ""]
    emit_table(columns, rows, numeric=columns[1:5])
