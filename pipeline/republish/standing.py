"""What new topics have already: read back, and held against what they are to have.

The new log itself says how far a republish is, so a run that was killed leaves nothing to be believed. Whoever
has fenced the other writers first reads what is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, cast

from ...consumers.chunk import WholeChunk
from ...consumers.walk import walk
from ...schemas.errors import NotRepublishable
from ...schemas.headers import ORIGIN
from ...schemas.position import TopicPartition

if TYPE_CHECKING:
    from ..log import Log

#: The headers that the records of a partition are to bear, in order.
Expected = Iterator[tuple[str, bytes]]

#: How long nothing may come of partitions that have more.
PATIENCE_S = 60.0


def standing(
    log: Log, expected: Mapping[TopicPartition, Expected], told: Callable[[int], None]
) -> dict[TopicPartition, int]:
    """How many records each partition has: the first ones of those that are expected, each once, in order. *told*
    hears how many more were compared.

    NotRepublishable if one has any other record; NotFreshEnough.
    """
    starts, ends = log.starts(list(expected)), log.ends(list(expected))
    for tp, start in starts.items():
        if start > 0:
            why = f"{tp} begins at offset {start}: something has dropped records of the new topic"
            raise NotRepublishable(tp.topic, why)
    found = dict.fromkeys(expected, 0)
    for poll in walk(log, "republish", starts, ends, PATIENCE_S, WholeChunk):
        for topic, chunk in poll.chunks.items():
            for tp, count in _compared(topic, cast(WholeChunk, chunk), expected):
                found[tp] += count
                told(count)
    return found


def _compared(
    topic: str, chunk: WholeChunk, expected: Mapping[TopicPartition, Expected]
) -> Iterator[tuple[TopicPartition, int]]:
    """Each run of a partition's records, and how many they are."""
    first = 0
    for partition, run in groupby(chunk.partitions):
        tp, stop = TopicPartition(topic, partition), first + len(list(run))
        for i in range(first, stop):
            wanted = next(expected[tp], None)
            mine = [value for name, value in chunk.all_headers[i] or () if name == ORIGIN]
            if wanted is None or mine != [wanted[1]]:
                why = f"{tp} has a record at offset {chunk.offsets[i]} that {_whose(mine, wanted)}"
                raise NotRepublishable(topic, why)
        yield tp, stop - first
        first = stop


def _whose(origins: list[bytes | str | None], wanted: tuple[str, bytes] | None) -> str:
    if not origins:
        return "somebody else has written"
    if wanted is None:
        return "comes after all rows that are to be there"
    told = origins[0].decode(errors="replace") if isinstance(origins[0], bytes) else origins[0]
    return f"comes from {told}, not from {wanted[1].decode()}"
