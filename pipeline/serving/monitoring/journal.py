"""The log of requests: one JSON line each, in a file that stays small.

Invariant: no secret is in it: no Authorization, no parameter, and of SQL its shape only, in which each number and
each text is a ``?``.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

_LARGEST, _KEPT = 10 * 2**20, 5

#: How much of a statement's shape is kept, and how long a statement may be to be looked at.
_SHAPE, _LONGEST = 500, 100_000

_LITERALS = (duckdb.token_type.numeric_const, duckdb.token_type.string_const, duckdb.token_type.comment)

logger = logging.getLogger("merganser.requests")


def shape(sql: str) -> str:
    """*sql* without its literals and comments, on one line; empty if it cannot be told what they are."""
    if len(sql) > _LONGEST:
        return ""
    try:
        tokens = duckdb.tokenize(sql)
    except (duckdb.Error, UnicodeError, ValueError):
        return ""
    # Offsets are of UTF-8.
    data = sql.encode("utf-8", "replace")
    starts = [start for start, _ in tokens] + [len(data)]
    parts = []
    for (start, kind), end in zip(tokens, starts[1:], strict=False):
        text = data[start:end].decode("utf-8", "replace")
        parts.append("" if kind == duckdb.token_type.comment else "? " if kind in _LITERALS else text)
    return " ".join("".join(parts).split())[:_SHAPE]


class Journal:
    """Notes requests, into *path* and to whoever listens to the logger ``merganser.requests``."""

    def __init__(self, path: Path | None) -> None:
        self._handler: logging.Handler | None = None
        if path is not None:
            self._handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LARGEST, backupCount=_KEPT)
            self._handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)

    def note(self, door: str, **facts: Any) -> None:
        if logger.isEnabledFor(logging.INFO):
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            told = {"at": at, "door": door, **{name: value for name, value in facts.items() if value is not None}}
            logger.info("%s", json.dumps(told, ensure_ascii=True, default=str))

    def close(self) -> None:
        if self._handler is not None:
            logger.removeHandler(self._handler)
            self._handler.close()
