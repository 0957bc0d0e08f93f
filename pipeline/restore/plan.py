"""How to come to a position: which backup, which part of the archive, which part of the live log. Pure.

Invariants
- A plan leads over every offset from the beginning, or from its base, to the target: what it does not cover has no
  plan (NotRestorable), never a shorter one.
- A base lies at or below the target on every partition, and is of the very topics that are restored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...schemas.errors import NotRestorable
from ...schemas.position import Position, TopicPartition
from ..backup.manifest import Backup


class Segment(NamedTuple):
    """A link of a chain, as far as planning goes. *lost* offsets were never in the archive."""

    first: int
    next: int
    bytes: int = 0
    lost: bool = False


@dataclass(frozen=True)
class Covered:
    """What the archive has of one partition."""

    topic_id: str
    segments: tuple[Segment, ...] = ()

    @property
    def start(self) -> int:
        return self.segments[0].first if self.segments else 0

    @property
    def end(self) -> int:
        return self.segments[-1].next if self.segments else 0

    def between(self, first: int, stop: int) -> list[Segment]:
        return [s for s in self.segments if s.next > first and s.first < stop]


@dataclass(frozen=True)
class Live:
    """What the log itself has of one partition."""

    topic_id: str
    start: int
    end: int


@dataclass(frozen=True)
class Sources:
    """All that a restore may draw from. *live* is empty while Kafka does not answer; *partitions* are those of
    the tables that can be restored. *older* are those whose topic was deleted and made anew since, *changed* those
    that the log has other partitions of by now."""

    backups: Sequence[Backup]
    archive: Mapping[TopicPartition, Covered]
    live: Mapping[TopicPartition, Live]
    partitions: Collection[TopicPartition]
    older: Collection[str] = ()
    changed: Collection[str] = ()

    def topic_id(self, tp: TopicPartition) -> str | None:
        """That of the topic which is restored."""
        covered, live = self.archive.get(tp), self.live.get(tp)
        return covered.topic_id if covered else live.topic_id if live else None

    def leads_on(self, tp: TopicPartition) -> bool:
        """True if the log itself has that topic, as it was."""
        return tp in self.live and self.live[tp].topic_id == self.topic_id(tp) and tp.topic not in self.changed


class Way(NamedTuple):
    """Of one partition: the base has what lies below *base*, the archive leads on to *archive*, and the log itself
    to *target*."""

    partition: TopicPartition
    base: int
    archive: int
    target: int
    segments: int
    bytes: int


@dataclass(frozen=True)
class RestorePlan:
    """What a restore will do. ``lines()`` says it in words. *topic_ids* are those of the tables, *older* the tables
    whose topic was deleted and made anew since; *remarks* are of how the target was found."""

    to: str
    tables: tuple[str, ...]
    base: Backup | None
    ways: tuple[Way, ...]
    topic_ids: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def target(self) -> Position:
        return Position({way.partition: way.target for way in self.ways})

    @property
    def from_archive(self) -> Position:
        """Where the archive leads to."""
        return Position({way.partition: way.archive for way in self.ways})

    @property
    def needs_archive(self) -> bool:
        return any(way.archive > way.base for way in self.ways)

    @property
    def needs_log(self) -> bool:
        return any(way.target > way.archive for way in self.ways)

    @property
    def partial(self) -> bool:
        """True if the base did not begin at the beginning."""
        return self.base is not None and any(Position.parse(self.base.since).of(set(self.tables)).values())

    def fields(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "tables": list(self.tables),
            "target": str(self.target),
            "base": self.base.id if self.base else None,
            "base_position": self.base.position if self.base else "",
            "partial": self.partial,
            "older_topics": list(self.older),
            "notes": self.notes(),
            "segments": sum(way.segments for way in self.ways),
            "archive_bytes": sum(way.bytes for way in self.ways),
            "archive_offsets": sum(way.archive - way.base for way in self.ways),
            "live_offsets": sum(way.target - way.archive for way in self.ways),
        }

    def notes(self) -> list[str]:
        """What has to be known of the store that comes out."""
        older = [f"the topic {name} was deleted and made again since: this is the older one" for name in self.older]
        empty = [] if any(self.target.values()) else ["nothing lies before that: the store will be empty"]
        return [*older, *self.remarks, *empty]

    def lines(self) -> list[str]:
        facts = self.fields()
        base = "none: from the beginning" if self.base is None else f"{self.base.id}, {self.base.rows:,} rows"
        lines = [f"restore {', '.join(self.tables)} to {self.to}", f"target   {self.target}", f"base     {base}"]
        if self.partial:
            lines.append("         it is of a store that did not begin at the beginning: so will this one be")
        lines += [f"         {note}" for note in self.notes()]
        lines.append(
            f"archive  {facts['segments']:,} segments, {facts['archive_bytes']:,} bytes,"
            f" {facts['archive_offsets']:,} offsets"
        )
        return [*lines, f"log      {facts['live_offsets']:,} offsets" if self.needs_log else "log      not needed"]


def plan_restore(
    to: str, target: Position, tables: Collection[str], sources: Sources, base: str | None = None
) -> RestorePlan:
    """The way to *target*, which names every partition of *tables*. *base* is the id of the backup to begin with,
    ``none`` for none; without it the newest that fits is taken. NotRestorable says why there is no way."""
    partitions = sorted(target)
    reasons: list[str] = []
    for candidate in _candidates(sources.backups, base):
        ways = [_way(tp, target[tp], candidate, sources) for tp in partitions]
        missing = _unfit(candidate, target, sources) or next((way for way in ways if isinstance(way, str)), None)
        if missing is None:
            names, whole = tuple(sorted(tables)), tuple(w for w in ways if isinstance(w, Way))
            ids = tuple(sorted({sources.topic_id(tp) or "" for tp in partitions}))
            return RestorePlan(to, names, candidate, whole, ids, tuple(sorted(sources.older)))
        reasons.append(missing if candidate is None else f"backup {candidate.id}: {missing}")
    raise NotRestorable(to, reasons[-1] if base else _told(reasons))


def _told(reasons: Sequence[str]) -> str:
    """Without a base is what everybody has; of backups, the newest says most."""
    return "; ".join(dict.fromkeys([*reasons[:1], *reasons[-1:]]))


def _candidates(backups: Sequence[Backup], base: str | None) -> list[Backup | None]:
    """What to begin with, the best first: the newest whole backup, the beginning, at last a partial backup."""
    if base == "none":
        return [None]
    fulls = sorted((b for b in backups if b.type == "full"), key=lambda b: b.id, reverse=True)
    if base is not None:
        return [b for b in fulls if b.id == base]
    return [*(b for b in fulls if not b.partial), None, *(b for b in fulls if b.partial)]


def _unfit(base: Backup | None, target: Position, sources: Sources) -> str | None:
    """Why *base* cannot be what the way to *target* begins with."""
    if base is None:
        return None
    facts = {table.topic: table for table in base.tables}
    for tp, offset in sorted(target.items()):
        table = facts.get(tp.topic)
        if table is None:
            return f"it has no table {tp.topic!r}"
        if table.topic_id != sources.topic_id(tp):
            return f"its table {tp.topic!r} is of another topic of that name"
        if table.stopped:
            return f"its table {tp.topic!r} had stopped: {table.stopped}"
        if tp not in base.read:
            return f"it does not hold {tp}"
        if base.read[tp] > offset:
            return f"it is past the target: {tp} at {base.read[tp]}, the target is {offset}"
    return None


def _way(tp: TopicPartition, target: int, base: Backup | None, sources: Sources) -> Way | str:
    """The way of one partition, or why there is none."""
    begin = 0 if base is None else base.read.get(tp, 0)
    covered, live = sources.archive.get(tp), sources.live.get(tp)
    reach, gap = begin, f"nothing has {tp} from offset {begin} on"
    if covered is not None and begin < target:
        reach, gap = _archived(tp, begin, target, covered)
    used = covered.between(begin, reach) if covered is not None and reach > begin else []
    if reach < target:
        if live is None:
            return f"{gap}, and the log does not answer"
        if covered is not None and live.topic_id != covered.topic_id:
            return f"{gap}, and the log has another topic of that name now"
        if tp.topic in sources.changed:
            return f"{gap}, and the log has other partitions of it now"
        if live.start > reach:
            return f"{gap}, and the log begins at offset {live.start}"
        if live.end < target:
            return f"{tp} ends at offset {max(live.end, reach)}, the target is {target}"
    return Way(tp, begin, reach, target, len(used), sum(segment.bytes for segment in used))


def _archived(tp: TopicPartition, begin: int, target: int, covered: Covered) -> tuple[int, str]:
    """How far from *begin* the archive leads without a gap, and what stops it."""
    if covered.start > begin:
        return begin, f"the archive of {tp} begins at offset {covered.start}, not {begin}"
    for segment in covered.between(begin, target):
        if segment.lost:
            # Up to the loss it may lead, but no farther.
            return max(begin, segment.first), f"the archive lost {tp} from offset {segment.first} to {segment.next}"
    return min(target, max(begin, covered.end)), f"the archive of {tp} ends at offset {covered.end}"
