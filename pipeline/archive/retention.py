"""How near the log's retention is to what is not archived yet.

The decision is pure: :func:`risk`. What retention drops goes by the records' own timestamps, and so does this;
the one other clock in it is this host's, as the broker's stands against its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...consumers.log import Log
from ...schemas.position import TopicPartition
from .chain import Chain

_log = logging.getLogger("merganser.archive")

#: Of the time, or of the records, that retention leaves: warned of from here on.
_NEAR = 0.5


@dataclass(frozen=True)
class Risk:
    """Records of *partition* that are not archived may soon be gone, or are: *why*."""

    partition: TopicPartition
    why: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.partition}: {self.why}"


def risk(
    tp: TopicPartition, settings: Mapping[str, str], archived: int, newest_ms: int, start: int, end: int, now_ms: int
) -> Risk | None:
    """What threatens *tp*, of which the archive has all below *archived*, the newest record of *newest_ms*; the
    log begins at *start* and ends at *end*."""
    if archived < start:
        return Risk(tp, f"offsets {archived} to {start} are gone from the log, and not archived", lost=True)
    if archived >= end:
        return None
    policy = settings.get("cleanup.policy", "delete")
    if "delete" in policy:
        limit_ms = int(settings.get("retention.ms", "-1"))
        if limit_ms >= 0 and newest_ms >= 0 and now_ms - newest_ms > _NEAR * limit_ms:
            behind = f"{end - archived:,} offsets are not archived, the first {_hours(now_ms - newest_ms)} old or less"
            return Risk(tp, f"{behind}; retention.ms keeps records for {_hours(limit_ms)}")
        bounded = limit_ms >= 0 or int(settings.get("retention.bytes", "-1")) >= 0
        if bounded and start > 0 and archived - start < (1 - _NEAR) * (end - start):
            why = f"the log has dropped all below {start:,}, and {archived:,} to {end:,} are not archived"
            return Risk(tp, why)
    if "compact" in policy:
        limit_ms = int(settings.get("delete.retention.ms", "86400000"))
        if newest_ms >= 0 and now_ms - newest_ms > _NEAR * limit_ms:
            behind = f"{end - archived:,} offsets are not archived, deletes among them may go"
            return Risk(tp, f"{behind}; delete.retention.ms keeps them for {_hours(limit_ms)}")
    return None


def risks(log: Log, chains: Sequence[Chain]) -> list[Risk]:
    """What threatens the partitions of *chains*, asked of *log* now. LogUnavailable."""
    known = {chain.place.tp: chain for chain in chains}
    facts = log.describe({tp.topic for tp in known})
    partitions = [tp for tp, c in known.items() if tp.topic in facts and facts[tp.topic].topic_id == c.place.topic_id]
    starts, ends = log.starts(partitions), log.ends(partitions)
    now_ms = time.time_ns() // 1_000_000
    found = []
    for tp in partitions:
        tip, settings = known[tp].tip, facts[tp.topic].settings
        archived, newest_ms = (tip.next, tip.newest_ms) if tip is not None else (starts.get(tp, 0), -1)
        threat = risk(tp, settings, archived, newest_ms, starts.get(tp, 0), ends.get(tp, 0), now_ms)
        if threat is not None:
            found.append(threat)
    return found


class RetentionWatch:
    """Looks again and again, and tells each risk once while it lasts."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.risks: list[Risk] = []

    def look(self, chains: Sequence[Chain]) -> None:
        told = {risk.partition for risk in self.risks}
        self.risks = risks(self._log, chains)
        for found in self.risks:
            if found.partition not in told:
                _log.warning("%s", found)


def _hours(ms: int) -> str:
    return f"{ms / 3_600_000:.1f} h" if ms >= 3_600_000 else f"{ms / 1000:.0f} s"
