"""Which tables have to be read together: those that the transactions of one have written to.

What a replica shows of a table depends on the other tables of its transactions, and on no others. Nobody has a list of
those, but the first record of a transaction in each partition names all that it wrote to.

Invariant: a reader either delivers records whose transactions stay within the tables that are read (as far as the
store follows them), or raises :class:`MoreTables`, before any such record was delivered.
"""

from __future__ import annotations

from collections.abc import Collection

from ...consumers.chunk import Chunk
from ...consumers.log import Poll, Reader
from ...schemas.headers import TX, BadHeader, Headers, decode
from ...schemas.position import Position
from ..archive.bounded import BoundedLog, BoundedReader
from ..archive.bridged import Live


class MoreTables(Exception):
    """Transactions have written to these tables too: begin again, with them."""

    def __init__(self, tables: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(tables)))
        self.tables = tables


class WatchedLog(BoundedLog):
    """*log*, cut at *until*. *others* are the tables of the store that are not read."""

    def __init__(self, log: Live, until: Position, others: Collection[str]) -> None:
        super().__init__(log, until)
        self._others = frozenset(others)

    def reader(self, group: str, kind: type[Chunk] | None = None) -> BoundedReader:
        return WatchedReader(self._log.reader(group, kind), self, self._others)


class WatchedReader(BoundedReader):
    """A reader that looks at what transactions have written to."""

    def __init__(self, reader: Reader, log: BoundedLog, others: frozenset[str]) -> None:
        super().__init__(reader, log)
        self._others = others

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        poll = super().poll(max_records, timeout_s, gather_s)
        if self._others:
            found: set[str] = set()
            for chunk in poll.chunks.values():
                for headers in chunk.headers.values():
                    found |= _written_to(headers) & self._others
            if found:
                raise MoreTables(frozenset(found))
        return poll


def _written_to(headers: Headers) -> set[str]:
    """The topics of the transaction, if this is one of its records that names them."""
    if not any(name == TX and value and b" " in _bytes(value) for name, value in headers):
        return set()
    try:
        marks = decode(headers)
    except BadHeader:
        return set()
    return {tp.topic for tp in marks.manifest} if marks and marks.manifest else set()


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
