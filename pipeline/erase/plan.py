"""What becomes of the records of one key, and of the links that have them. Pure.

Invariants
- A record goes without a trace, and its offset is a gap, unless something depends on it: a transaction that counts it,
  an operation id or a schema that has to be known. Then it leaves a stand-in, which says that, and whether it was
  rejected.
- A key is erased only once its last record in a partition is a plain delete: then what comes after finds what it finds
  on every replica, no row.
- A link changes if it has such a record, or remembers one as the last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...consumers.checks import Seen
from ...schemas.headers import Erased, Marks
from ..archive.chain import Erasure, Manifest, remembering


class Hit(NamedTuple):
    """A record of the key. *marks* are what its headers say, if that is anything and can be read; *bad*: no row could
    be made of it, and it is in quarantine."""

    offset: int
    deletes: bool = False
    marks: Marks | None = None
    bad: bool = False

    @property
    def leaves(self) -> bool:
        """True if something depends on it: it leaves a stand-in."""
        marks = self.marks
        return marks is not None and (marks.tx is not None or bool(marks.ops) or marks.schema is not None)

    @property
    def in_doubt(self) -> bool:
        """True if it may have been rejected, and what depends on it would not be without it."""
        return self.leaves and (self.bad or (self.marks is not None and self.marks.condition is not None))


def not_deleted(hits: Sequence[Hit]) -> str | None:
    """Why the key of *hits*, all that a partition has of it, cannot be erased there; None if it can."""
    if not hits:
        return None
    last = hits[-1]
    if not last.deletes or last.bad:
        return f"its last record, at offset {last.offset}, is no delete"
    if last.marks is not None:
        return f"its last record, at offset {last.offset}, is a delete in a transaction, or with a condition or an id"
    return None


@dataclass(frozen=True)
class Redaction:
    """What is to become of one segment: the offsets that go, and what stands in for others."""

    gone: frozenset[int]
    stand_ins: Mapping[int, Marks]


def stand_ins(hits: Sequence[Hit], name: str, rejected: Collection[int]) -> dict[int, Marks]:
    """What is left of *hits*, by offset, where others depend on them. *name* is the key's, from now on, and tells
    nothing of it; those at the offsets *rejected* were that."""
    return {
        hit.offset: replace(hit.marks, condition=None, erased=Erased(name, hit.offset in rejected))
        for hit in hits
        if hit.leaves and hit.marks is not None
    }


def redaction(hits: Sequence[Hit], name: str, rejected: Collection[int]) -> Redaction:
    """What becomes of a segment that has *hits*; see :func:`stand_ins`."""
    left = stand_ins(hits, name, rejected)
    return Redaction(frozenset(hit.offset for hit in hits) - left.keys(), left)


def changing(links: Sequence[Manifest], hits: Mapping[int, Sequence[Hit]]) -> list[Manifest]:
    """Those of *links* that change; *hits* are by the numbers of the links that have them."""
    offsets = {hit.offset for found in hits.values() for hit in found}
    return [link for link in links if link.seq in hits or (not link.rows and link.last_offset in offsets)]


def redacted(link: Manifest, data: Manifest | None, last: Seen | None, erased: int) -> Manifest:
    """What takes the place of *link*: the facts of *data* about its new file, if it has one still; *last* is the last
    record up to there that the log has too. *erased* more of its records are gone without a trace."""
    facts = data or replace(link, rows=0, raw=0, file="", size=0, sha256="", key="", salt="")
    return remembering(replace(facts, erased=link.erased + erased, was=link.hash), last)


def telling(name: str, at: str, hits: Sequence[Hit], changed: Sequence[Manifest]) -> Erasure:
    """The erasure of *hits*, by which *changed* take their places."""
    stand_ins = sum(hit.leaves for hit in hits)
    return Erasure(name, at, len(hits), stand_ins, {str(link.seq): link.own_hash for link in changed})
