"""What a person, or a script, gets to see."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough for any row where no screen sets a bound.
_NO_BOUND = 100_000


def say(line: str) -> None:
    """One line of news, beside the result."""
    print(line, file=sys.stderr, flush=True)


def emit(line: str) -> None:
    """One line of the result."""
    print(line, flush=True)


def emit_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def console(err: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _NO_BOUND
    return Console(file=stream, width=width, highlight=False, markup=False, soft_wrap=False)


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Iterable[str] = ()) -> None:
    """Rows under headings; on a screen long values are folded, in a pipe each row is one line."""
    from rich import box
    from rich.table import Table

    right = set(numeric)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row))
    out = console()
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    text = json.dumps(plain(value), ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain(value: Any) -> Any:
    from ...schemas.jsonrows import to_json

    return to_json(value)


def count(many: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{many:,} {noun}" + ("" if many == 1 else "s")


def number(value: int | None) -> str:
    """``2,000``; ``?`` for what is not known."""
    return "?" if value is None else f"{value:,}"
