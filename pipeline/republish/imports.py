"""What a new log knows of the files that were imported into the old one: the archived ledger, carried over.

Which entries are carried is pure (:func:`carried`). Invariants
- An entry says of the new table what is in it, at the most: one whose rows may not all be there is not taken.
- Where rows of a chunk may be there that the entry does not tell of, and would come twice, the import is in
  doubt: the same file is refused until it is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...consumers.walk import walk
from ...schemas.position import Position, TopicPartition
from ..archive.log import ArchiveLog
from ..loading.ledger import LEDGER, Entry

_PLACE = TopicPartition(LEDGER, 0)

#: An archive has what it says that it has.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Renewed:
    """A table that has become another: of its old log all below *applied* is in the new one, and nothing from
    *target* on; *until* is where the new one ends."""

    topic_id: str
    new_topic_id: str
    keyed: bool
    applied: Position
    target: Position
    until: Position


def carried(entries: Iterable[Entry], tables: Mapping[str, Renewed]) -> list[Entry]:
    """The ledger of the new log, of *entries* in the order of the old one."""
    known: dict[bytes, list[Entry]] = {}
    for entry in entries:
        table = tables.get(entry.table)
        if table is not None and table.topic_id == entry.topic_id:
            known.setdefault(entry.key, []).append(entry)
    found = (_one(history, tables[history[0].table]) for history in known.values())
    return [entry for entry in found if entry is not None]


def _one(history: list[Entry], table: Renewed) -> Entry | None:
    """Of one import, the last entry whose rows are all there; None if there is none, and nothing to fear."""
    whole = [entry for entry in history if entry.until and table.applied.reaches(Position.parse(entry.until))]
    last = whole[-1] if whole else None
    # Of what came after *last* nothing is there if the new log ends where that one's rows end.
    before = Position.parse(last.until) if last else Position()
    more = history[-1] is not last and not before.reaches(table.target)
    doubt = (more and not table.keyed) or history[-1].doubt
    if last is None and not doubt:
        return None
    kept = last or replace(history[0], chunks=0, rows=0, taken=0, bad=0, done=False)
    return replace(kept, topic_id=table.new_topic_id, until=str(table.until), doubt=doubt, done=kept.done and not doubt)


def archived_entries(log: ArchiveLog) -> list[Entry]:
    """Every entry that the archive has, in order. [] if it has no ledger."""
    ends = log.ends([_PLACE])
    found: list[Entry] = []
    for poll in walk(log, "imports", log.starts(ends), ends, _PATIENCE_S):
        for chunk in poll.chunks.values():
            pairs = zip(chunk.values, chunk.times_ms, strict=True)
            found += [Entry.parse(value, when_ms) for value, when_ms in pairs if value is not None]
    return found
