"""The moment in which nobody may read: a schema change, a reopen, the end.

Invariant: a reader is inside only while the gate is open, and the one who closes it has the store alone
once :meth:`Gate.closed` is entered. Apart from such moments readers and the writer never wait for each
other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from ..schemas.errors import StoreError


class Gate:
    """Lets readers in, unless it is closed for a moment by the writer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._ended: str | None = None
        self._inside = 0
        self._cursors: set[duckdb.DuckDBPyConnection] = set()

    @contextmanager
    def entered(self, timeout_s: float) -> Iterator[Gate]:
        with self._changed:
            free = self._changed.wait_for(lambda: self._ended is not None or not self._closed, timeout_s)
            if self._ended is not None:
                raise StoreError(self._ended)
            if not free:
                raise StoreError(f"the store is changing a schema or reopening; waited {timeout_s:g} s")
            self._inside += 1
        try:
            yield self
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def end(self, why: str) -> None:
        """Let nobody in any more; they hear *why*."""
        with self._changed:
            self._ended = why
            self._changed.notify_all()

    def add(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._changed:
            self._cursors.add(cursor)

    def discard(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._changed:
            self._cursors.discard(cursor)

    @contextmanager
    def closed(self, grace_s: float) -> Iterator[None]:
        """No reader inside: waits *grace_s*, then interrupts those that still are."""
        with self._changed:
            self._closed = True
            empty = self._changed.wait_for(lambda: self._inside == 0, grace_s)
            while not empty:
                for cursor in self._cursors:
                    cursor.interrupt()
                empty = self._changed.wait_for(lambda: self._inside == 0, 0.1)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
