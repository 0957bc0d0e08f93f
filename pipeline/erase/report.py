"""What an erasure finds, will do, and did: for programs and people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..archive.chain import Place
from .plan import Hit


@dataclass(frozen=True)
class Part:
    """What one partition has of the key. *in_log* of its records Kafka may still have; None if it was not asked."""

    place: Place
    hits: Sequence[Hit]
    segments: int
    unfinished: bool
    in_log: int | None

    def fields(self) -> dict[str, Any]:
        stand_ins = sum(hit.leaves for hit in self.hits)
        return {
            "table": self.place.topic,
            "topic_id": self.place.topic_id,
            "partition": self.place.partition,
            "records": len(self.hits),
            "stand_ins": stand_ins,
            "bad": sum(hit.bad for hit in self.hits),
            "segments": self.segments,
            "unfinished": self.unfinished,
            "in_log": self.in_log,
        }


@dataclass(frozen=True)
class Holder:
    """A full backup with rows of the key."""

    id: str
    rows: int
    quarantined: int
    pending: int
    files: int

    def fields(self) -> dict[str, Any]:
        held = {"rows": self.rows, "quarantined": self.quarantined, "pending": self.pending}
        return {"backup": self.id, **held, "files": self.files}


@dataclass(frozen=True)
class ErasePlan:
    """What an erasure finds, and will do. *points* are the incremental backups whose digests are made anew."""

    table: str
    parts: tuple[Part, ...]
    backups: tuple[Holder, ...]
    points: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        return not (self.backups or self.points or any(part.hits or part.unfinished for part in self.parts))

    def fields(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "partitions": [part.fields() for part in self.parts if part.hits or part.unfinished],
            "backups": [holder.fields() for holder in self.backups],
            "points": list(self.points),
        }


@dataclass(frozen=True)
class Done:
    """What an erasure did. *id* is the one under which it is in the chains. *unproved* restore points cannot be
    restored, or come to something else, for the reason beside each; *swept* files that no backup names went too."""

    id: str
    records: int
    stand_ins: int
    backups: tuple[str, ...]
    points: tuple[str, ...]
    unproved: tuple[tuple[str, str], ...] = ()
    swept: int = 0

    def fields(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "records": self.records,
            "stand_ins": self.stand_ins,
            "backups": list(self.backups),
            "points": list(self.points),
            "unproved": [{"backup": id_, "why": why} for id_, why in self.unproved],
            "swept": self.swept,
        }
