"""Encoded rows, cut into chunks: what one Kafka transaction takes.

Invariant: every row from *skip* on is in exactly one chunk, in order; `Chunk.taken` is where the next run goes on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from .encoding import Encoded


@dataclass
class Chunk:
    """*taken* records of the file, *bad* ones among them, are accounted for once this is written."""

    taken: int
    bad: int = 0
    keys: list[bytes] | None = None
    values: list[bytes] = field(default_factory=list)
    last: bool = False


def chunks(parts: Iterator[Encoded], skip: int, rows: int, size: int) -> Generator[Chunk, None, None]:
    """The rows numbered *skip* and above, at most *rows* and *size* bytes at a time. The last chunk, which may have
    no rows, is marked."""
    taken, bad, current, held = skip, 0, Chunk(skip), 0
    for part in parts:
        bad += len(part.bad)
        at = bisect_left(part.at, skip)
        sizes = map(len, part.values)
        if part.keys is not None:
            sizes = map(sum, zip(sizes, map(len, part.keys), strict=True))
        before = list(accumulate(sizes, initial=0))
        while at < len(part.values):
            end = min(at + rows - len(current.values), bisect_right(before, before[at] + size - held) - 1)
            if end <= at and not current.values:
                end = at + 1  # one row that is larger than a chunk is a chunk
            if end > at:
                _append(current, part, at, end)
                held += before[end] - before[at]
                at = end
            if at < len(part.values):
                current.bad = bad
                yield current
                current, held = Chunk(current.taken), 0
        taken = max(taken, part.taken)
    yield Chunk(taken, bad, current.keys, current.values, last=True)


def _append(chunk: Chunk, part: Encoded, start: int, end: int) -> None:
    chunk.values += part.values[start:end]
    if part.keys is not None:
        chunk.keys = (chunk.keys or []) + part.keys[start:end]
    chunk.taken = part.at[end - 1] + 1
