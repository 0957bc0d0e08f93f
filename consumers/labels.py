"""From records to entries and back: what the headers of a chunk say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache

from ..schemas.headers import ERASED, BadHeader, Marks, decode
from ..schemas.position import TopicPartition
from .atomic import Entry, KeyValues, Place
from .chunk import Chunk
from .whole import Labelled

_NO_MARKS = Marks()

#: What longer headers say is not remembered, so that memory is bounded.
_REMEMBERED_BYTES = 256


#: What each of some keys says; see :class:`Entry`.
ReadKeys = Callable[[Sequence[bytes | None]], Sequence[KeyValues | None]]


def label(chunk: Chunk, read_keys: ReadKeys) -> tuple[Labelled, dict[int, str]]:
    """What keys and headers of *chunk* say, and of which records headers say nothing that can be read, and why."""
    txs: list[str | None] = [None] * len(chunk)
    more: dict[int, Marks] = {}
    bad: dict[int, str] = {}
    for i, headers in chunk.headers.items():
        try:
            txs[i], marks = _said(tuple(headers))
        except BadHeader as why:
            bad[i] = str(why)
            continue
        if marks is not None:
            more[i] = marks
            if marks.erased and not (chunk.keys[i] is None and chunk.values[i] is None):
                bad[i] = f"header {ERASED} on a record that has a key or a value"
    keys = read_keys(chunk.keys)
    if any(marks.erased for marks in more.values()):
        keys = [key_of(more[i], key) if i in more else key for i, key in enumerate(keys)]
    return Labelled(chunk.partitions, chunk.offsets, keys, txs, more), bad


def key_of(marks: Marks, said: KeyValues | None) -> KeyValues | None:
    """What puts a record in order with others of its key: what that *said*, or for a stand-in what is like no key."""
    return said if marks.erased is None else ((ERASED, marks.erased.key),)


Ours = tuple[tuple[str, bytes | str | None], ...]


def _said(headers: Ours) -> tuple[str | None, Marks | None]:
    """The transaction, and all that they say if that is more. Most records of a transaction say the same, and
    partitions come one after the other, each with a part of many transactions; a long manifest comes seldom."""
    short = sum(len(value or "") for _, value in headers) <= _REMEMBERED_BYTES
    return _remembered(headers) if short else _decoded(headers)


def _decoded(headers: Ours) -> tuple[str | None, Marks | None]:
    marks = decode(headers) or _NO_MARKS
    return marks.tx, None if marks == Marks(marks.tx) else marks


_remembered = lru_cache(maxsize=4096)(_decoded)


def entries(topic: str, chunk: Chunk, labelled: Labelled, indices: Iterable[int]) -> list[Entry]:
    """The records of *chunk* at *indices*, to be decided on."""
    return [
        Entry(
            Place(TopicPartition(topic, chunk.partitions[i]), chunk.offsets[i]),
            chunk.times_ms[i],
            chunk.keys[i],
            chunk.values[i],
            labelled.marks.get(i) or _bare(labelled.txs[i]),
            labelled.keys[i],
        )
        for i in indices
    ]


@lru_cache(maxsize=4096)
def _bare(tx: str | None) -> Marks:
    return Marks(tx)


def chunk_of(records: Collection[Entry]) -> Chunk:
    """*records*, in their order, as they came."""
    chunk = Chunk()
    chunk.partitions = [entry.place.partition.partition for entry in records]
    chunk.offsets = [entry.place.offset for entry in records]
    chunk.times_ms = [entry.time_ms for entry in records]
    chunk.keys = [entry.key for entry in records]
    chunk.values = [entry.value for entry in records]
    return chunk
