"""An answer on its way from the store to a client, who may be slow, or gone.

The one who reads the store never waits for the one who sends: what does not stay in memory goes to a file
without a name, which ends with the process at the latest.

Invariants
- Batches come out in the order they went in, each once; what ended the query comes after the last of them.
- An answer takes no more memory and disk than its limits say, all answers together no more than the
  :class:`Room` has; what they took is given back when the spool is closed, however it ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from ....schemas.errors import MerganserError, QueryCancelled, TooLarge
from .ask import ServingLimits


class Room:
    """What all answers together may take: *limits*.spool in files under *folder*, and a share of its disk at most."""

    def __init__(self, folder: Path, limits: ServingLimits, head_room: int) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._memory = 8 * limits.answer_memory
        self._disk = limits.spool
        self._head_room = 2 * head_room  # the writer stops below its own

    def take_memory(self, nbytes: int) -> bool:
        with self._lock:
            if nbytes > self._memory:
                return False
            self._memory -= nbytes
            return True

    def take_disk(self, nbytes: int) -> None:
        """TooLarge if there is none."""
        free = shutil.disk_usage(self.folder).free
        with self._lock:
            if nbytes > self._disk:
                raise TooLarge("the answers that are waiting for their clients take all the room there is for them")
            if free - nbytes < self._head_room:
                raise TooLarge("the node has too little disk left to keep this answer")
            self._disk -= nbytes

    def give(self, memory: int, disk: int) -> None:
        with self._lock:
            self._memory += memory
            self._disk += disk


class _Span(NamedTuple):
    """Where in the file a batch lies."""

    start: int
    nbytes: int


class Spool:
    """Batches of *schema*: put by one thread, taken by another."""

    def __init__(self, schema: pa.Schema, limits: ServingLimits, room: Room) -> None:
        self._schema, self._limits, self._room = schema, limits, room
        self._changed = threading.Condition()
        self._waiting: deque[pa.RecordBatch | _Span] = deque()
        self._file: IO[bytes] | None = None
        self._memory = self._disk = 0
        self._ended = self._closed = False
        self._error: MerganserError | None = None
        self.rows = self.nbytes = 0

    def put(self, batch: pa.RecordBatch) -> None:
        """Keep *batch*. TooLarge if that is more than may be kept; QueryCancelled, or what it failed with, if
        nobody wants it any more."""
        size = int(batch.nbytes)
        if self.rows + batch.num_rows > self._limits.answer_rows:
            raise TooLarge(f"the answer has more than {self._limits.answer_rows:,} rows")
        if self.nbytes + size > self._limits.answer_bytes:
            raise TooLarge(f"the answer has more than {self._limits.answer_bytes / 2**20:,.0f} MiB")
        entry = batch if self._keeps(size) else self._write(batch)
        with self._changed:
            self._still_wanted()
            self._waiting.append(entry)
            self.rows, self.nbytes = self.rows + batch.num_rows, self.nbytes + size
            self._changed.notify_all()

    def end(self, error: MerganserError | None = None) -> None:
        """Nothing more comes: the answer is whole, or *error* says why it is not."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def fail(self, error: MerganserError) -> None:
        """What was put is not to be read either."""
        with self._changed:
            self._drop()
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self, timeout_s: float) -> pa.RecordBatch | None:
        """The next batch; None after the last. What ended the query is raised in its place."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._ended or self._closed, timeout_s):
                raise QueryCancelled("after it gave nothing in time")
            if self._closed:
                raise QueryCancelled()
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None
            entry = self._waiting.popleft()
            if not isinstance(entry, _Span):
                self._memory -= int(entry.nbytes)
                self._room.give(int(entry.nbytes), 0)
                return entry
            assert self._file is not None
            data = os.pread(self._file.fileno(), entry.nbytes, entry.start)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            return reader.read_next_batch()

    @property
    def error(self) -> MerganserError | None:
        """What ended the query early; None if nothing did, so far."""
        with self._changed:
            return self._error

    def wait(self, timeout_s: float) -> bool:
        """Until nothing more comes; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or self._closed, timeout_s)

    def close(self) -> None:
        """Give back what it has. The one who still puts hears of it."""
        with self._changed:
            self._closed = True
            self._drop()
            self._changed.notify_all()

    # -- inside ------------------------------------------------------------------------------

    def _still_wanted(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise QueryCancelled()

    def _keeps(self, size: int) -> bool:
        """Whether a batch of *size* stays in memory."""
        with self._changed:
            self._still_wanted()
            if self._memory + size > self._limits.answer_memory or not self._room.take_memory(size):
                return False
            self._memory += size
            return True

    def _write(self, batch: pa.RecordBatch) -> _Span:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            writer.write_batch(batch)
        data = sink.getvalue()
        with self._changed:
            self._still_wanted()
            self._room.take_disk(data.size)
            span = _Span(self._disk, data.size)
            self._disk += data.size
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(dir=self._room.folder, prefix=".merganser-answer-")  # noqa: SIM115  # closed in _drop
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                raise TooLarge(f"the node cannot keep this answer: {error.strerror}") from error
        return span

    def _drop(self) -> None:
        self._waiting.clear()
        self._room.give(self._memory, self._disk)
        self._memory = self._disk = 0
        if self._file is not None:
            self._file.close()
            self._file = None
