"""The prompt for SQL: history, completion, paging, timing.

A statement ends with a semicolon. What was typed is kept in a file that only its owner may read; answers are not.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...schemas.errors import MerganserError, UsageError
from .output import emit, emit_table, say

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

    from ...consumers.result import Result
    from ...consumers.storefile import StoreFile
    from ..serving.client.client import Client
    from .query import Fresh

#: So many rows of an answer are shown.
SHOWN = 1_000

_HELP = r"""SQL that ends with ; is run. Tab completes, Ctrl-R searches, Ctrl-C gives a line up, Ctrl-D ends.
\d            tables
\d TABLE      columns of a table
\level LEVEL  how fresh answers have to be: eventual, session, strong
\q            the end"""

KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP", "BY", "ORDER", "HAVING", "LIMIT", "OFFSET", "JOIN", "LEFT", "RIGHT",
    "FULL", "INNER", "CROSS", "ON", "USING", "AS", "AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE",
    "BETWEEN", "EXISTS", "CASE", "WHEN", "THEN", "ELSE", "END", "DISTINCT", "UNION", "ALL", "EXCEPT", "INTERSECT",
    "WITH", "RECURSIVE", "ASC", "DESC", "NULLS", "FIRST", "LAST", "CAST", "EXPLAIN", "DESCRIBE", "SUMMARIZE",
    "OVER", "PARTITION", "QUALIFY", "FILTER", "EXCLUDE", "REPLACE", "COLUMNS", "VALUES", "count", "sum", "avg",
    "min", "max", "coalesce", "date_trunc",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a prompt asks: *ask* answers SQL at a level, *tables* names tables and their columns with types."""

    name: str
    ask: Callable[[str, str], Result]
    tables: Callable[[], dict[str, list[tuple[str, str]]]]
    level: str = "eventual"


def of_client(client: Client, fresh: Fresh, timeout: float) -> Asked:
    def ask(sql: str, level: str) -> Result:
        staleness = fresh.max_staleness if level == fresh.level else None  # not of a level that was set since
        return client.query(sql, level=level, after=fresh.after, max_staleness=staleness, timeout=timeout)  # type: ignore[arg-type]

    def tables() -> dict[str, list[tuple[str, str]]]:
        return {t["table"]: [(c["name"], c["type"]) for c in t["columns"]] for t in client.tables(timeout)}

    return Asked("node", ask, tables, fresh.level)


def of_store(store: StoreFile) -> Asked:
    from ...consumers.contents import columns_of

    def tables() -> dict[str, list[tuple[str, str]]]:
        with store.reading() as cursor:
            return {c.table: list(c.columns) for c in columns_of(cursor, store.tables())}

    def ask(sql: str, level: str) -> Result:
        if level != "eventual":
            raise UsageError("a store at rest is as it is: only level eventual")
        return store.query(sql)

    return Asked(store.path.name, ask, tables)


class Shell:
    """A session at a terminal. *show* prints a result."""

    def __init__(self, asked: Asked, show: Callable[[Result], None]) -> None:
        self._asked, self._show = asked, show
        self._level = asked.level

    def run(self) -> None:
        """Until the end of input."""
        try:
            from prompt_toolkit import PromptSession
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is missing: pip install 'merganser[replica]'") from error
        from prompt_toolkit.history import FileHistory

        session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history_file())),
            completer=completer(self._names()),
            complete_while_typing=False,
            enable_history_search=True,
        )
        say(r"merganser: SQL ends with ; and \? helps")
        for statement in self._statements(session.prompt):
            self.do(statement)

    def do(self, statement: str) -> None:
        """Run one statement, or one command that begins with a backslash; an error is told."""
        try:
            if statement.startswith("\\"):
                self._command(statement.rstrip("; \n"))
                return
            began_s = time.monotonic()
            result = self._asked.ask(statement.rstrip().rstrip(";"), self._level)
            took_s = time.monotonic() - began_s
            paged(lambda: self._show(first(result, SHOWN)))
            if len(result) > SHOWN:
                say(f"the first {SHOWN:,} of {len(result):,} rows")
            say(f"{took_s * 1000:,.1f} ms")
        except MerganserError as error:
            say(f"error: {' '.join(str(error).split())}")
            say(f"hint: {error.hint}")
        except KeyboardInterrupt:
            say("given up")

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        match word:
            case "\\d" if rest:
                columns = self._asked.tables().get(rest)
                if columns is None:
                    raise UsageError(f"there is no table {rest!r}")
                emit_table(["column", "type"], columns)
            case "\\d":
                emit_table(["table", "columns"], [(n, len(c)) for n, c in self._asked.tables().items()], ["columns"])
            case "\\level" if rest in ("eventual", "session", "strong"):
                self._level = rest
            case "\\?" | "\\h" | "\\help":
                emit(_HELP)
            case _:
                raise UsageError(f"unknown command {word}; \\? lists them")

    def _names(self) -> dict[str, list[str]]:
        try:
            return {table: [name for name, _ in columns] for table, columns in self._asked.tables().items()}
        except MerganserError as error:
            say(f"nothing to complete: {error}")
            return {}

    def _statements(self, ask: Callable[[str], str]) -> Iterator[str]:
        lines: list[str] = []
        while True:
            try:
                line = ask("... " if lines else "sql> ")
            except KeyboardInterrupt:
                lines = []
                continue
            except EOFError:
                return
            if not lines and line.strip() in ("\\q", "exit", "quit", "exit;", "quit;"):
                return
            lines.append(line)
            text = "\n".join(lines).strip()
            if not text:
                lines = []
            elif text.endswith(";") or text.startswith("\\"):
                yield text
                lines = []


def first(result: Result, rows: int) -> Result:
    """*result* with so many rows at most."""
    return result if len(result) <= rows else result.head(rows)


def paged(show: Callable[[], None]) -> None:
    """What *show* prints: through a pager if a screen is too small for it."""
    out = StringIO()
    with redirect_stdout(out):
        show()
    text = out.getvalue()
    lines = text.splitlines()
    columns, rows = shutil.get_terminal_size()
    fits = len(lines) < rows and all(len(line) <= columns for line in lines)
    if sys.stdout.isatty() and not fits:
        import pydoc

        os.environ.setdefault("LESS", "-RSFX")
        pydoc.pager(text)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def history_file() -> Path:
    """Where what was typed is kept; made, for its owner alone."""
    home = os.environ.get("MERGANSER_HOME")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = (Path(home) if home else Path(state) / "merganser") / "query-history"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return path


def candidates(before: str, word: str, names: dict[str, list[str]]) -> list[str]:
    """What *word*, after the text *before*, may become: columns after ``table.``, else tables, columns, keywords."""
    table, dot, start = word.rpartition(".")
    if dot:
        known = {name.casefold(): columns for name, columns in names.items()}
        return [f"{table}.{c}" for c in known.get(table.casefold(), []) if c.casefold().startswith(start.casefold())]
    last = before.split()[-1].upper() if before.split() else ""
    columns = sorted({column for each in names.values() for column in each})
    choices: Sequence[str] = [*names] if last in ("FROM", "JOIN") else [*names, *columns, *KEYWORDS]
    return [choice for choice in choices if choice.casefold().startswith(word.casefold())]


def completer(names: dict[str, list[str]]) -> Any:
    from prompt_toolkit.completion import Completer, Completion

    class Names(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            word = document.get_word_before_cursor(WORD=True)
            word = word[max(word.rfind(c) for c in "(,=<>+-*/ ") + 1 :]
            before = document.text_before_cursor[: len(document.text_before_cursor) - len(word)]
            for choice in candidates(before, word, names):
                yield Completion(choice, -len(word))

    return Names()
