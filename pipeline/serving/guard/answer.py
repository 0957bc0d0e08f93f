"""Answer: the rows of one query, on their way to one client.

While it *runs* it has a cursor inside a read-only transaction, which holds back checkpoints and makes the
WAL grow. So it is read at full speed, whatever the client does, into a spool, and the cursor closed.

Invariants
- A query leaves the store at its end, at its time-out or when it is cancelled, whichever comes first;
  never does it wait for a client.
- It goes out in portions of about a megabyte, however wide its rows are: each step on the way has a copy of one.
- Whatever ends it early is raised to who reads the batches, and only once those before it are out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType

import duckdb
import pyarrow as pa

from ....consumers.reads import Reading, query_error
from ....schemas.errors import MerganserError, QueryCancelled, QueryTimeout, ReadError, StoreError, TooLarge
from ....schemas.position import Position
from .ask import ServingLimits
from .spool import Room, Spool

_log = logging.getLogger("merganser.serving")

#: Each step on the way to a client copies a batch, so it is cut into portions of about this size.
_PORTION_BYTES = 1 * 2**20

#: As much is read before the answer is handed to its client, so that a small one costs no thread.
_AT_ONCE_BYTES = 1 * 2**20


class Running:
    """One query in the store, between its transaction's begin and its end. A Watched."""

    def __init__(
        self,
        reading: Reading,
        stack: ExitStack,
        query_s: float,
        until_s: float,
        gone: threading.Event,
        user: str | None,
    ) -> None:
        self.reading, self.cursor, self._stack = reading, reading.cursor, stack
        self.until_s, self._query_s, self._gone = until_s, query_s, gone
        self.user = user
        self._lock = threading.Lock()
        self._why: MerganserError | None = None
        self._left = False
        self.failed = False
        """True once it met an error that the store does not survive."""

    @property
    def stopping(self) -> bool:
        return self._why is not None or self._gone.is_set()

    def stop(self, why: MerganserError | None = None) -> None:
        with self._lock:
            if not self._left:
                given_up = QueryCancelled() if self._gone.is_set() else None
                self._why = self._why or why or given_up or QueryTimeout("the query", self._query_s)
                self.cursor.interrupt()

    def leave(self) -> None:
        """Give the store back."""
        with self._lock:
            if self._left:
                return
            self._left = True
        self._stack.close()

    def error(self, error: Exception) -> MerganserError:
        """What the client hears of *error*. Before it is left, so that it is known whether the store failed."""
        if self._why is not None:
            return self._why
        if isinstance(error, MerganserError):
            return error
        self.failed |= fatal(error)
        return told(error)


def fatal(error: Exception) -> bool:
    """Whether DuckDB, or Arrow in its place, says that it has given the store up."""
    return isinstance(error, duckdb.FatalException) or "FATAL Error" in str(error)


def told(error: Exception) -> MerganserError:
    """What a client hears of what DuckDB, or Arrow in its place, says. No paths."""
    text = str(error)
    if fatal(error):
        return StoreError("the store failed and is being reopened: run the query again")
    if isinstance(error, (duckdb.OutOfMemoryException, MemoryError)) or "Out of Memory Error" in text:
        return TooLarge("the query needs more memory, or room to spill, than the node has")
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT" in text:
        return query_error(duckdb.InterruptException(text))  # Arrow tells of it by an error of its own
    if isinstance(error, duckdb.IOException):
        return ReadError("the store could not be read")
    if isinstance(error, (duckdb.InternalException, duckdb.SerializationException)):
        return ReadError("DuckDB failed on this query; write it in another way")
    if isinstance(error, (duckdb.Error, pa.ArrowException, OSError)):
        return query_error(duckdb.Error(text))
    _log.error("a query failed in an unforeseen way", exc_info=error)
    return ReadError("the node failed on this query; its log says how")


class Answer:
    """The rows of one query, of one committed state. Use it in a ``with``, or close it.

    One thread reads :meth:`batches`; :meth:`cancel` and :meth:`close` may come from another.
    """

    def __init__(
        self,
        running: Running,
        reader: pa.RecordBatchReader,
        types: tuple[str, ...],
        positions: tuple[Position, Position],
        room: Room,
        limits: ServingLimits,
        left: Callable[[Running], None],
        closed: Callable[[Answer], None],
    ) -> None:
        self.schema: pa.Schema = reader.schema
        self.types, self.user = types, running.user
        self.position, self.applied = positions
        self.until_s = time.monotonic() + limits.answer_s
        self._limits = limits
        self._running, self._reader = running, reader
        self._on_left, self._on_closed = left, closed
        self._spool = Spool(reader.schema, limits, room)
        self.stopping = False
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._fetched = False

    # -- for who has asked -------------------------------------------------------------------

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, as they come. What ends the query early is raised after those that it gave."""
        while (batch := self._spool.take(self._limits.query_s + self._limits.answer_s)) is not None:
            yield batch

    def table(self) -> pa.Table:
        """All rows. For what is known to be small."""
        return pa.Table.from_batches(list(self.batches()), self.schema)

    def wait(self) -> None:
        """Until all of it is out of the store; raises what ended it early. For a door whose protocol cannot tell
        of an error once rows have gone out."""
        self._spool.wait(self._limits.query_s + self._limits.answer_s)
        if self._spool.error is not None:
            raise self._spool.error

    @property
    def rows(self) -> int:
        """How many came out of the store so far."""
        return self._spool.rows

    @property
    def nbytes(self) -> int:
        return self._spool.nbytes

    def expire(self, seconds: float) -> None:
        """Drop the answer unless it is fetched within *seconds*."""
        self.until_s = min(self.until_s, time.monotonic() + seconds)

    @property
    def over(self) -> bool:
        """Nobody reads it any more."""
        return self.stopping or self._done.is_set()

    def fetch(self) -> bool:
        """Have it for oneself: False if somebody has it already, or it was dropped."""
        with self._lock:
            first = not self._fetched and not self._done.is_set()
            self._fetched = True
            self.until_s = time.monotonic() + self._limits.answer_s
        return first

    def cancel(self) -> None:
        """Stop the query. Who reads it hears of it."""
        self.stop(QueryCancelled())

    def close(self) -> None:
        """No more is wanted: a query that still runs is stopped."""
        if not self._done.is_set():
            self._done.set()
            self._spool.close()
            self.stop(QueryCancelled())

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- a Watched: how long it may be read ----------------------------------------------------

    def stop(self, why: MerganserError | None = None) -> None:
        self.stopping = True
        self._spool.fail(why or QueryTimeout("to read the answer", self._limits.answer_s))
        self._running.stop(why)
        self._on_closed(self)

    # -- for the guard -----------------------------------------------------------------------

    def begin(self) -> None:
        """Read what a small answer has, and leave the rest to a thread."""
        if not self._pull(_AT_ONCE_BYTES):
            threading.Thread(target=self._pull, name="merganser-answer", daemon=True).start()

    def _pull(self, nbytes: int | None = None) -> bool:
        """Read on, *nbytes* or to the end; True if it came to an end."""
        try:
            for batch in self._reader:
                for portion in portions(batch, _PORTION_BYTES):
                    self._spool.put(portion)
                if nbytes is not None and self._spool.nbytes >= nbytes:
                    return False
        except Exception as error:  # noqa: BLE001  # whatever it is: its client must hear, the store be left
            why = self._running.error(error)
            self._leave()
            self._spool.end(why)
        else:
            self._leave()
            self._spool.end()
        return True

    def _leave(self) -> None:
        try:
            self._reader.close()
        finally:
            self._on_left(self._running)


def portions(batch: pa.RecordBatch, nbytes: int) -> Iterator[pa.RecordBatch]:
    """*batch* in slices of about *nbytes*, of a row at least."""
    size = int(batch.nbytes)
    if size <= nbytes:
        yield batch
        return
    rows = max(1, batch.num_rows * nbytes // size)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
