"""The digests of a live replica's tables, all of one state, to be compared with another's.

Invariant: one at a time, since each reads every row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import duckdb

from ....consumers.dbfile import stored_tables
from ....consumers.digest import quarantine_digest, table_digest
from ....consumers.reads import positions
from ....schemas.errors import TooBusy
from ...backup.snapshot import Source, patiently

_one = threading.Lock()


def digests_of(source: Source, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Of each table of *source* that is *wanted*. TooBusy."""
    if not _one.acquire(blocking=False):
        raise TooBusy("the tables are being read for somebody else")
    try:
        return patiently(source, lambda cursor: _digests(cursor, wanted))
    finally:
        _one.release()


def _digests(cursor: duckdb.DuckDBPyConnection, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    read, _ = positions(cursor)
    return [
        {
            "table": table,
            "position": str(read.of(frozenset([table]))),
            "digest": str(table_digest(cursor, table)),
            "quarantine_digest": str(quarantine_digest(cursor, table)),
        }
        for table in stored_tables(cursor)
        if wanted(table)
    ]
