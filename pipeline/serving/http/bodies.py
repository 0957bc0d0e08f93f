"""An answer as bytes, a piece at a time: in each format, and compressed.

Invariant: a body that does not come to its end is never taken for a whole one: what ends it is written last, and
HTTP's own framing is broken off.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.csv

from ....consumers.result import apart
from ....schemas.position import Position
from ..jobs.sink import Sink
from ..marks import marked
from .forms import bare, dumps, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Pieces are at least this large, but for the last one.
PIECE = 64 * 2**10


class Answered(Protocol):
    """What is written: an Answer of the guard."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def types(self) -> Sequence[str]:
        """What SQL calls the types of its columns."""
        ...

    @property
    def position(self) -> Position: ...
    @property
    def applied(self) -> Position: ...
    def batches(self) -> Iterator[pa.RecordBatch]: ...


def body(answer: Answered, format_: str, encoding: str | None) -> Iterator[bytes]:
    """The body of *answer*, in pieces."""
    pieces = _WRITERS[format_](answer)
    if encoding is not None:
        pieces = _COMPRESSORS[encoding](pieces)
    return gathered(pieces)


def gathered(pieces: Iterable[bytes], least: int = PIECE) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a system call."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


def parts(piece: bytes) -> Iterator[bytes]:
    """*piece*, in what a slow client takes a good deal of before it is taken for one that takes nothing
    (``connection.py``): its connection waits until nearly all that it was given is out. One part at least."""
    for begin in range(0, max(1, len(piece)), PIECE):
        yield piece[begin : begin + PIECE]


# -- formats ---------------------------------------------------------------------------------


def _arrow(answer: Answered) -> Iterator[bytes]:
    sink = Sink()
    schema = marked(answer.schema, answer.types, answer.position, answer.applied)
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema) as stream:
        for batch in answer.batches():
            stream.write_batch(batch)
            yield sink.take()
    yield sink.take()


def _json(answer: Answered) -> Iterator[bytes]:
    """One object, with its rows as arrays: two columns may have one name. A row a line: who has seen enough can
    stop there, as the page of the node does."""
    columns = [{"name": f.name, "type": t} for f, t in zip(answer.schema, answer.types, strict=True)]
    yield f'{{"columns":{dumps(columns)},"rows":['.encode()
    first = True
    for batch in answer.batches():
        if batch.num_rows:
            text = ",\n".join(dumps(row) for row in rows(batch))
            yield (("\n" if first else ",\n") + text).encode()
            first = False
    places = {"position": str(answer.position), "applied": str(answer.applied)}
    yield f"\n],{dumps(places)[1:]}\n".encode()


def _ndjson(answer: Answered) -> Iterator[bytes]:
    names = apart(answer.schema.names)
    for batch in answer.batches():
        if batch.num_rows:
            yield "".join(dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows(batch)).encode()


def _csv(answer: Answered) -> Iterator[bytes]:
    yield (",".join(_quoted(name) for name in answer.schema.names) + "\n").encode()
    for batch in answer.batches():
        if batch.num_rows and batch.num_columns:
            columns = [bare(column) for column in batch.columns]
            plain = pa.RecordBatch.from_arrays(columns, [str(i) for i in range(len(columns))])
            out = pa.BufferOutputStream()
            pa.csv.write_csv(plain, out, pa.csv.WriteOptions(include_header=False))
            yield out.getvalue().to_pybytes()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_WRITERS: dict[str, Callable[[Answered], Iterator[bytes]]] = {
    "arrow": _arrow,
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
}


# -- compressed ------------------------------------------------------------------------------


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(5, wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # Arrow brings zstd; Python has it from 3.14 on.
    sink = Sink()
    with pa.CompressedOutputStream(pa.PythonFile(sink, "w"), "zstd") as packer:
        for piece in pieces:
            packer.write(piece)
            yield sink.take()
    yield sink.take()


_COMPRESSORS: dict[str, Callable[[Iterable[bytes]], Iterator[bytes]]] = {"gzip": _gzip, "zstd": _zstd}
