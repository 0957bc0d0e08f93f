"""What new topics have already: read back, and held against what they are to have.

The new log itself says how far a republish is, so a run that was killed leaves nothing to be believed. Whoever
has fenced the other writers first reads what is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, cast

from ...consumers.chunk import WholeChunk
from ...schemas.errors import LogUnavailable, NotRepublishable
from ...schemas.headers import ORIGIN
from ...schemas.kafka import Deadline
from ...schemas.position import Position, TopicPartition, next_offset

if TYPE_CHECKING:
    from ..log import Log

#: The headers that the records of a partition are to bear, in order.
Expected = Iterator[tuple[str, bytes]]

_POLL_RECORDS = 10_000

#: How long nothing may come of partitions that have more.
PATIENCE_S = 60.0


class ReadingBack:
    """One reader, for one table after the other. *told* hears how many more records were compared."""

    def __init__(self, log: Log, told: Callable[[int], None]) -> None:
        self._log, self._told = log, told
        self._reader = log.reader("merganser-republish", WholeChunk)

    def standing(self, expected: Mapping[TopicPartition, Expected]) -> dict[TopicPartition, int]:
        """How many records each partition has: the first ones of those that are expected, each once, in order.

        NotRepublishable if one has any other record; LogUnavailable.
        """
        ends, at = self._log.ends(list(expected)), dict(self._log.starts(list(expected)))
        for tp, start in at.items():
            if start > 0:
                why = f"{tp} begins at offset {start}: something has dropped records of the new topic"
                raise NotRepublishable(tp.topic, why)
        found = dict.fromkeys(expected, 0)
        self._reader.assign(Position(at))
        deadline = Deadline(PATIENCE_S)
        while behind := {tp for tp, end in ends.items() if at[tp] < end}:
            poll = self._reader.poll(_POLL_RECORDS, 0.5)
            for topic, chunk in poll.chunks.items():
                for tp, count, after in _compared(topic, cast(WholeChunk, chunk), expected):
                    found[tp], at[tp] = found[tp] + count, after
                    self._told(count)
            for reached in poll.ends:
                at[reached.partition] = max(at[reached.partition], reached.offset)
            for problem in poll.problems:
                raise LogUnavailable(self._log.bootstrap_servers, f"{problem.partition}: {problem.why}")
            if poll.chunks or poll.ends:
                deadline = Deadline(PATIENCE_S)
            elif deadline.passed:
                tp = min(behind)
                raise LogUnavailable(self._log.bootstrap_servers, f"{tp} read back to {at[tp]} of {ends[tp]}")
        return found

    def __enter__(self) -> ReadingBack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()


def _compared(
    topic: str, chunk: WholeChunk, expected: Mapping[TopicPartition, Expected]
) -> Iterator[tuple[TopicPartition, int, int]]:
    """Each run of a partition's records: how many they are, and the offset after them."""
    first = 0
    for partition, run in groupby(chunk.partitions):
        tp, stop = TopicPartition(topic, partition), first + len(list(run))
        for i in range(first, stop):
            wanted = next(expected[tp], None)
            mine = [value for name, value in chunk.all_headers[i] or () if name == ORIGIN]
            if wanted is None or mine != [wanted[1]]:
                why = f"{tp} has a record at offset {chunk.offsets[i]} that {_whose(mine, wanted)}"
                raise NotRepublishable(topic, why)
        yield tp, stop - first, next_offset(chunk.offsets[stop - 1])
        first = stop


def _whose(origins: list[bytes | str | None], wanted: tuple[str, bytes] | None) -> str:
    if not origins:
        return "somebody else has written"
    if wanted is None:
        return "comes after all rows that are to be there"
    told = origins[0].decode(errors="replace") if isinstance(origins[0], bytes) else origins[0]
    return f"comes from {told}, not from {wanted[1].decode()}"
