"""Position: how far along the log, per partition.

Invariants: offsets are *next* offsets (everything below is covered); a partition that is absent
counts as 0; a Position never changes. The one ``+ 1`` from a record's offset to the position just
past it is :func:`next_offset`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple

from .errors import BadPosition


def next_offset(offset: int) -> int:
    """The position just past the record at *offset*."""
    return offset + 1


class TopicPartition(NamedTuple):
    """One partition of one topic; ``str`` gives ``orders/0``."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Position(Mapping[TopicPartition, int]):
    """An immutable map of partition → next offset.

    As a *token* it is the position just past a write. Text form: ``orders/0:120,orders/1:98``.
    """

    __slots__ = ("_offsets",)

    def __init__(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        self._offsets = {TopicPartition(*tp): int(n) for tp, n in (offsets or {}).items()}

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that *text* spells; BadPosition if it spells none."""
        offsets = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, offset = part.rpartition(":")
            topic, _, partition = name.rpartition("/")
            if not (topic and partition.isdecimal() and offset.isdecimal() and len(part) - len(topic) < 40):
                raise BadPosition(text)
            offsets[TopicPartition(topic, int(partition))] = int(offset)
        return cls(offsets)

    @classmethod
    def past(cls, topic: str, partition: int, offset: int) -> Position:
        """The position just past the record at *offset*."""
        return cls({TopicPartition(topic, partition): next_offset(offset)})

    def __getitem__(self, tp: TopicPartition) -> int:
        return self._offsets[tp]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __hash__(self) -> int:
        return hash(frozenset(self._offsets.items()))

    def __str__(self) -> str:
        return ",".join(f"{tp}:{n}" for tp, n in sorted(self._offsets.items()))

    def __repr__(self) -> str:
        return f"Position({str(self)!r})"

    def __or__(self, other: Mapping[TopicPartition, int]) -> Position:
        """The furthest of both, partition by partition."""
        merged = dict(self._offsets)
        for tp, offset in other.items():
            merged[tp] = max(offset, merged.get(tp, 0))
        return Position(merged)

    def reaches(self, target: Mapping[TopicPartition, int]) -> bool:
        """True if everything below *target* is below this position too."""
        return all(self._offsets.get(tp, 0) >= offset for tp, offset in target.items())

    def behind(self, target: Mapping[TopicPartition, int], but: Container[str] = ()) -> dict[TopicPartition, int]:
        """How many offsets this position lacks of *target*; only partitions that lack some, and of no topic in *but*:
        those that cannot go on."""
        gaps = {tp: offset - self._offsets.get(tp, 0) for tp, offset in target.items() if tp.topic not in but}
        return {tp: gap for tp, gap in gaps.items() if gap > 0}

    def of(self, topics: set[str] | frozenset[str]) -> Position:
        """The part of this position that lies in *topics*."""
        return Position({tp: n for tp, n in self._offsets.items() if tp.topic in topics})
