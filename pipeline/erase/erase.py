"""Erasing all records of one key from an archive, and its rows from the backups there.

Invariants
- Nothing is done before all of it was looked at, and nothing speaks against it.
- No backup is made or removed meanwhile, and nobody else erases (``backup/lease.py``). Archivers go on.
- Full backups first, then chains, then restore points: killed at any step, the same command goes on. What is left
  undone shows in `archive check` and `backup verify`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ...consumers.log import Log
from ...schemas import headers
from ...schemas.errors import (
    BackupBusy,
    LogUnavailable,
    NotErasable,
    NotFreshEnough,
    NotRestorable,
    RestoredWrong,
    TableStopped,
    UnknownTable,
)
from ...schemas.position import TopicPartition
from ..archive.archive import Archive
from ..archive.chain import Place
from ..archive.objects import PART
from ..backup import files
from ..backup.catalog import Found as Listed
from ..backup.catalog import catalog, whole
from ..backup.lease import Alone, expiring
from ..backup.manifest import Backup, Erased, manifest_name, mark, mark_name
from ..backup.policy import unreferenced
from ..backup.snapshot import Unwatched, Watch
from . import chains
from .chains import Partition
from .keyed import TheKey
from .plan import Hit, not_deleted, stand_ins
from .points import behind, proved_anew, rejected
from .report import Done, ErasePlan, Holder, Part
from .snapshots import Snapshots

#: The steps of an erasure; tests stop the process at each.
STEPS = (
    "looked",
    "file-put",
    "unmarked",
    "manifest-put",
    "marked",
    *chains.STEPS,
    "file-removed",
    "point-proved",
)


@dataclass
class Eraser:
    """Erases the key that *words* spell, of *table*. *log*, if it is there, tells what Kafka still has. *scratch* is
    where stores are restored to. UnknownTable, UsageError, InvalidRow."""

    archive: Archive
    table: str
    words: Sequence[str]
    log: Log | None = None
    scratch: Path | None = None
    watch: Watch = field(default_factory=Unwatched)
    step: Callable[[str], None] = lambda step: None

    def __post_init__(self) -> None:
        below = self.archive.log()
        self.key = TheKey(below.table(self.table), self.words, below.versions)
        self._snapshots = Snapshots(self.archive, self.key)
        places = [place for each in self.archive.declared(self.table) for place in each.places]
        if not places:
            raise UnknownTable(self.table)
        self._partitions = [Partition(self.archive, self.archive.chain(p), self.key, self.step) for p in places]

    # -- looking -----------------------------------------------------------------------------

    def plan(self) -> ErasePlan:
        """Look all through: nothing is changed. NotErasable, ArchiveDamaged, WrongKey, LogUnavailable."""
        self._look()
        fulls = {b.id: found for b in self._whole() if (found := self._snapshots.look(b, self.watch.advance))}
        for partition in self._partitions:
            self._deleted(partition)
        holders = [
            Holder(id_, _count(found.rows), _count(found.quarantine), _count(found.pending), found.files)
            for id_, found in fulls.items()
        ]
        return ErasePlan(self.table, tuple(self._parts()), tuple(holders), tuple(self._points()))

    def _deleted(self, partition: Partition) -> None:
        """NotErasable unless the key's row is deleted in *partition*, or nobody can write to that topic any more."""
        place, newest = partition.place, self._partitions[-1].place  # in the order of generations
        over = place.topic_id != newest.topic_id
        if not over and self.log is not None:
            found = self.log.identify([self.table]).get(self.table)
            over = found is None or found.topic_id != place.topic_id
        if not over and (why := not_deleted(partition.found)) is not None:
            raise NotErasable(self.table, f"{place.tp}: {why}", _DELETE_IT)

    def _look(self) -> None:
        """Every segment of the table, and how much of each backup there is to look at beside."""
        sizes = sum(link.size for partition in self._partitions for link in partition.chain.links)
        sizes += sum(b.size for b in self._whole() if self._snapshots.concerns(b))
        self.watch.begin("looking", sizes)
        for partition in self._partitions:
            partition.look(self.watch.advance)

    def _parts(self) -> list[Part]:
        starts = self._log_starts()
        parts = []
        for partition in self._partitions:
            start = starts.get((partition.place.topic_id, partition.place.partition))
            in_log = None if self.log is None else 0
            if start is not None:
                in_log = sum(hit.offset >= start for hit in partition.found)
            unfinished = bool(partition.chain.unfinished)
            parts.append(Part(partition.place, partition.found, len(partition.hits), unfinished, in_log))
        return parts

    def _log_starts(self) -> dict[tuple[str, int], int]:
        """Where the log begins, of the very topics; nothing if it does not answer."""
        if self.log is None:
            return {}
        try:
            ids = self.log.identify([self.table])
            there = [TopicPartition(self.table, p) for p in range(ids[self.table].partitions)] if ids else []
            starts = self.log.starts(there)
        except LogUnavailable:
            return {}
        return {(ids[self.table].topic_id, tp.partition): start for tp, start in starts.items()}

    def _listed(self) -> list[Listed]:
        """The backups; ArchiveDamaged if one is anything but whole, or unmarked."""
        found = catalog(self.archive.objects)
        for each in found:
            if not each.unmarked:
                whole(self.archive.objects, each)
        return found

    def _whole(self) -> list[Backup]:
        return [each.backup for each in self._listed() if each.backup is not None]

    def _points(self) -> list[str]:
        """The restore points that will have to be proved anew."""
        firsts = {(p.place.topic_id, p.place.tp): p.chain.links[min(p.hits)].first for p in self._partitions if p.hits}
        found = []
        for backup in self._whole():
            ids = {facts.topic_id for facts in backup.tables if facts.topic == self.table}
            beyond = any(id_ in ids and first < backup.read.get(tp, 0) for (id_, tp), first in firsts.items())
            if backup.type == "incr" and (beyond or behind(backup, [p.chain for p in self._partitions])):
                found.append(backup.id)
        return found

    # -- erasing -----------------------------------------------------------------------------

    def run(self) -> Done:
        """Do it. BackupBusy; what :meth:`plan` raises, and then nothing was done."""
        with expiring(self.archive.objects) as alone:
            if not alone.alone:
                raise BackupBusy(self.archive.objects.url, "a backup is being made")
            self.watch = _Renewing(self.watch, alone)
            self.archive.claim(self.archive.log().cluster_id)  # its store has to keep a file from being created twice
            self._finish_backups()
            for partition in self._partitions:
                self.archive.refresh(partition.chain)
                partition.finish(alone.renew)
            self.plan()
            refused = self._rejected()
            self.step("looked")
            at, names = _now(), self._names()
            id_ = next(iter(names.values()))
            backups = self._snapshots_anew(at, names, refused, alone)
            records = left = 0
            for partition in self._partitions:
                place = partition.place
                hits = self._erased(partition, names[place], at, refused.get(place, ()), alone)
                records, left = records + len(hits), left + sum(hit.leaves for hit in hits)
            swept = self._swept(alone)
            points, unproved = self._proved(alone)
            return Done(id_, records, left, tuple(backups), tuple(points), tuple(unproved), swept)

    def _finish_backups(self) -> None:
        """Mark backups that a killed process has left without a mark; one that lacks files is none, and goes. Nobody
        is about to do either: no backup is being made."""
        objects = self.archive.objects
        sizes = {found.name: found.size for found in objects.list(files.FOLDER)}
        for each in self._listed():
            if each.unmarked and each.backup is not None:
                if all(sizes.get(listed.name) == listed.size for listed in each.backup.files):
                    objects.create(mark_name(each.id), mark(each.backup))
                else:
                    objects.delete(manifest_name(each.id))

    def _rejected(self) -> dict[Place, list[int]]:
        """The offsets of what was rejected. Only of the newest topic of the name can that be in doubt."""
        newest = {p.place.tp: p for p in self._partitions}  # in the order of generations
        for partition in self._partitions:
            if newest[partition.place.tp] is not partition and any(h.in_doubt and not h.bad for h in partition.found):
                why = f"a record of an older topic of that name (id {partition.place.topic_id}) has a condition"
                raise NotErasable(self.table, why)
        found = rejected(self.archive, self.table, {tp: p.found for tp, p in newest.items()}, self.scratch, self.watch)
        bad = {p.place: [h.offset for h in p.found if h.leaves and h.bad] for p in self._partitions}
        return bad | {newest[tp].place: sorted(offsets) for tp, offsets in found.items()}

    def _names(self) -> dict[Place, str]:
        """What the key is called from now on, and the erasure: as a run that was killed called it, if that has left
        something in its place where a backup holds it back; else anything."""
        name = secrets.token_hex(8)
        names = {partition.place: name for partition in self._partitions}
        for backup in self._whole():
            facts = self._snapshots.concerns(backup)
            standing = self._snapshots.look(backup).stand_ins if facts is not None else {}
            for partition in self._partitions:
                mine = {hit.offset for hit in partition.found if hit.leaves}
                for (number, offset), stands_in in standing.items():
                    same = facts is not None and facts.topic_id == partition.place.topic_id
                    if same and number == partition.place.partition and offset in mine:
                        names[partition.place] = stands_in.key
        return names

    def _snapshots_anew(
        self, at: str, names: Mapping[Place, str], refused: Mapping[Place, Sequence[int]], alone: Alone
    ) -> list[str]:
        """Full backups without the key, in the place of those with it."""
        changed = []
        for listed in self._listed():
            backup = listed.backup
            facts = self._snapshots.concerns(backup) if backup is not None else None
            if backup is None or facts is None:
                continue
            found = self._snapshots.look(backup)
            mine = [p for p in self._partitions if p.place.topic_id == facts.topic_id]
            known = {p.place.partition: {hit.offset for hit in p.found} for p in mine}
            left: dict[tuple[int, int], headers.Erased] = {}
            for p in mine:
                now = stand_ins(p.found, names[p.place], refused.get(p.place, ()))
                held = p.stand_ins | {offset: marks.erased for offset, marks in now.items() if marks.erased}
                left |= {(p.place.partition, offset): each for offset, each in held.items()}
            made = self._snapshots.made_anew(backup, found, known, left, self.step)
            if made != backup:
                ids = dict.fromkeys(names[p.place] for p in mine)
                self._replace(replace(made, erased=(*backup.erased, *(Erased(i, at) for i in ids))), alone)
                changed.append(backup.id)
        return changed

    def _replace(self, made: Backup, alone: Alone) -> None:
        """Let *made* take the place of the backup of its id. Between these steps it lacks its mark only."""
        objects = self.archive.objects
        alone.renew()
        objects.delete(mark_name(made.id))
        self.step("unmarked")
        objects.put(manifest_name(made.id), made.encoded())
        self.step("manifest-put")
        objects.create(mark_name(made.id), mark(made))
        self.step("marked")

    def _erased(self, partition: Partition, id_: str, at: str, refused: Sequence[int], alone: Alone) -> list[Hit]:
        """The records that were erased in *partition*. Should an archiver be first, its segment is looked at too."""
        hits: list[Hit] = []
        published = False
        while partition.found:
            if not published:
                self._deleted(partition)
            alone.renew()
            hits = max(hits, partition.found, key=len)
            published |= partition.erase(id_, at, refused)
            partition.finish(alone.renew)
            partition.look()  # should a sweep have taken what was put, it is all still there
            if not published:
                refused = self._rejected().get(partition.place, ())  # there may be more of it now
        return hits

    def _swept(self, alone: Alone) -> int:
        """Remove the files that no backup names any more: those of before are among them."""
        objects, swept = self.archive.objects, 0
        there = [found.name for found in objects.list(files.FOLDER)]
        named = self._whole()
        alone.renew()
        parts = [name for name in there if name.endswith(PART)]
        for name in [*unreferenced((n for n in there if not n.endswith(PART)), named), *parts]:
            alone.renew()
            objects.delete(name)
            self.step("file-removed")
            swept += 1
        return swept

    def _proved(self, alone: Alone) -> tuple[list[str], list[tuple[str, str]]]:
        """Restore points beyond what was erased, with the digests that they come to now."""
        proved, unproved = [], []
        chains_ = [partition.chain for partition in self._partitions]
        for backup in self._whole():
            if not (ids := behind(backup, chains_)):
                continue
            alone.renew()
            try:
                made = proved_anew(self.archive, backup, self.table, self.scratch, self.watch)
            except (NotErasable, NotFreshEnough, NotRestorable, RestoredWrong, TableStopped) as why:
                unproved.append((backup.id, str(why)))
                continue
            at = _now()
            self._replace(replace(made, erased=(*backup.erased, *(Erased(id_, at) for id_ in ids))), alone)
            self.step("point-proved")
            proved.append(backup.id)
        return proved, unproved


class _Renewing:
    """Says that this goes on, while the watched work does."""

    def __init__(self, watch: Watch, alone: Alone) -> None:
        self._watch, self._alone = watch, alone

    def begin(self, what: str, total: int) -> None:
        self._watch.begin(what, total)

    def advance(self, by: int) -> None:
        self._alone.renew()
        self._watch.advance(by)


def _count(offsets: Mapping[int, set[int]]) -> int:
    return sum(map(len, offsets.values()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


_DELETE_IT = (
    "delete the row first (`merganser delete`), and let the archive come up to there"
    " (`archive run --tables TABLE --until-end`): else the log, and all who follow it, still show it"
)
