"""What a restore may draw from, and the position that it is asked for: the questions that planning needs answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...schemas.errors import BadPosition, LogUnavailable, NotRestorable, UnknownTable, UsageError, WrongArchive
from ...schemas.position import Position, TopicPartition
from ..archive.archive import Archive
from ..archive.log import ArchiveLog
from ..backup.catalog import all_whole, find
from ..backup.manifest import Backup
from ..log import Log
from ..moments import is_time, time_ms
from .plan import Covered, Live, RestorePlan, Segment, Sources, plan_restore

LATEST = "latest"
NO_BASE = "none"


@dataclass(frozen=True)
class Wish:
    """What is asked for: *to* is ``latest``, a position or a time; *base* the id of a backup, or ``none``. *topic_ids*
    say which topics are meant, where a name has had several. *group* is whose tables are meant, unless *tables* or a
    position says it."""

    to: str = LATEST
    tables: tuple[str, ...] = ()
    base: str | None = None
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None

    @classmethod
    def of(cls, backup: Backup) -> Wish:
        """A store as *backup* found it, by the way that was there when it was made."""
        base = backup.id if backup.type == "full" else backup.base or NO_BASE
        return cls(backup.position, tuple(t.topic for t in backup.tables), base, _ids(backup))


_CHANGED = "Kafka has other partitions of {} than the archive: what is not archived of it is not restored"


class Origin:
    """An archive with its backups, and the log if it answers: where a restore comes from."""

    def __init__(self, archive: Archive, log: Log | None) -> None:
        self.archive, self.log = archive, log
        self.below: ArchiveLog = archive.log()
        self._chosen: Mapping[str, str] = {}
        self.backups: list[Backup] = []
        """Those that the last plan knew."""
        if log is not None and log.cluster_id != self.below.cluster_id:
            why = f"it is the archive of cluster {self.below.cluster_id}, this is cluster {log.cluster_id}"
            raise WrongArchive(archive.url, why)

    @property
    def cluster_id(self) -> str:
        return self.below.cluster_id

    def plan(self, wish: Wish) -> RestorePlan:
        """How to fulfil *wish*. NotRestorable; UsageError and its kind if it names what is not there."""
        backups = self.backups = self._backups(wish.base)
        time_ms, position = _meant(wish.to)
        tables = self._tables(wish, backups, position)
        self._choose(self._topic_ids(wish, tables, backups, time_ms))
        partitions = self._partitions(tables, backups)
        sources = self._sources(backups, partitions)
        if position is not None:
            target = _complete(position, tables, partitions)
        elif time_ms is not None:
            target = self._at_time(sources, time_ms)
        else:
            target = _newest(sources, partitions)
        base = wish.base if wish.base in (None, NO_BASE) else backups[0].id
        remarks = [] if time_ms is None else _short(sources, target)
        if position is None:
            remarks += [_CHANGED.format(table) for table in sorted(sources.changed)]
        if time_ms is not None and target == _newest(sources, partitions):
            remarks.append("nothing of that time or later is there: this is the latest")
        return replace(plan_restore(wish.to, target, tables, sources, base), remarks=tuple(remarks))

    # -- inside ------------------------------------------------------------------------------

    def _backups(self, base: str | None) -> list[Backup]:
        """Those to begin with. Without a choice all have to be whole: who knows what a damaged one would be."""
        if base == NO_BASE:
            return []
        return all_whole(self.archive.objects) if base is None else [find(self.archive.objects, base)]

    def _tables(self, wish: Wish, backups: Sequence[Backup], position: Position | None) -> list[str]:
        """Those that are asked for; else those of the position, of the newest backup, of the archive."""
        known = set(self.archive.topics()) | {table.topic for backup in backups for table in backup.tables}
        named = set(wish.tables) or {tp.topic for tp in position or ()}
        if not named:
            newest = _newest_of(wish.group, backups)
            named = known if newest is None else {table.topic for table in newest.tables}
        for table in sorted(named - known):
            hint = f"the archive has: {', '.join(sorted(known)) or 'nothing'}"
            raise UnknownTable(table, hint=hint)
        if not named:
            raise NotRestorable(wish.to, "neither the archive nor a backup has any table")
        return sorted(named)

    def _topic_ids(
        self, wish: Wish, tables: Collection[str], backups: Sequence[Backup], time_ms: int | None
    ) -> Mapping[str, str]:
        """Which topic of a name is meant, if not the newest: that of the backup to begin with; of a time, the newest
        one that had a record by then."""
        if wish.topic_ids:
            return wish.topic_ids
        if wish.base not in (None, NO_BASE):
            return _ids(backups[0])
        if time_ms is None:
            return {}
        found = {table: self._there_at(table, time_ms) for table in tables}
        return {table: topic_id for table, topic_id in found.items() if topic_id is not None}

    def _there_at(self, table: str, time_ms: int) -> str | None:
        declared = self.archive.declared(table)
        for topic in reversed(declared if len(declared) > 1 else []):
            links = (link for place in topic.places for link in self.archive.chain(place).links)
            if any(link.rows and link.min_ms < time_ms for link in links):
                return topic.facts.topic_id
        return None

    def _choose(self, topic_ids: Mapping[str, str]) -> None:
        if topic_ids != self._chosen:
            self.below, self._chosen = ArchiveLog(self.archive, topic_ids), topic_ids

    def _partitions(self, tables: Collection[str], backups: Sequence[Backup]) -> list[TopicPartition]:
        counts = {t.topic: t.partitions for backup in backups for t in backup.tables}
        archived = self.below.identify(tables)
        counts |= {topic: found.partitions for topic, found in archived.items()}
        return [TopicPartition(table, p) for table in tables for p in range(counts[table])]

    def _sources(self, backups: Sequence[Backup], partitions: Collection[TopicPartition]) -> Sources:
        ids = {topic: found.topic_id for topic, found in self.below.identify({tp.topic for tp in partitions}).items()}
        archive = {}
        for tp in partitions:
            chain = self.below.chain(tp, refreshed=True)
            if chain is not None:
                covering = [link for link in chain.links if not link.erasure]
                links = tuple(Segment(link.first, link.next, link.size, link.lost) for link in covering)
                archive[tp] = Covered(ids[tp.topic], links)
        live, changed = self._live(partitions)
        older = {tp.topic for tp in archive if tp in live and live[tp].topic_id != ids[tp.topic]}
        for topic, topic_id in ids.items():
            if self.archive.declared(topic)[-1].facts.topic_id != topic_id:
                older.add(topic)
        return Sources(backups, archive, live, partitions, older, changed - older)

    def _live(self, partitions: Collection[TopicPartition]) -> tuple[dict[TopicPartition, Live], set[str]]:
        """What the log has of *partitions*, and the topics of which it has more."""
        if self.log is None:
            return {}, set()
        try:
            ids = self.log.identify({tp.topic for tp in partitions})
            there = [tp for tp in partitions if tp.topic in ids]
            starts, ends = self.log.starts(there), self.log.ends(there)
        except LogUnavailable:
            return {}, set()
        counts = Counter(tp.topic for tp in partitions)
        changed = {topic for topic, found in ids.items() if found.partitions != counts[topic]}
        live = {tp: Live(ids[tp.topic].topic_id, starts[tp], ends[tp]) for tp in there if tp in starts and tp in ends}
        return live, changed

    def _at_time(self, sources: Sources, time_ms: int) -> Position:
        """By the log's own timestamps, never by a client's clock (FAILURES 32)."""
        target = dict(self.below.at_time(list(sources.archive), time_ms))
        beyond = [tp for tp in sources.live if sources.leads_on(tp) and target.get(tp, 0) >= _archive_end(sources, tp)]
        if beyond and self.log is not None:
            later = self.log.at_time(beyond, time_ms)
            target |= {tp: max(later[tp], _archive_end(sources, tp)) for tp in beyond}
        return Position({tp: target.get(tp, 0) for tp in sources.partitions})


def _short(sources: Sources, target: Position) -> list[str]:
    """Where nobody can say that nothing more was written before the time: the archive ends, and the log is away."""
    ends = [tp for tp in sources.archive if target[tp] >= _archive_end(sources, tp) and tp not in sources.live]
    if not ends:
        return []
    where = ", ".join(str(tp) for tp in sorted(ends)[:3]) + (", …" if len(ends) > 3 else "")
    return [f"Kafka was not asked, and no record of that time or later is archived of {where}: some may be lacking"]


def _archive_end(sources: Sources, tp: TopicPartition) -> int:
    return sources.archive[tp].end if tp in sources.archive else 0


def _newest(sources: Sources, partitions: Collection[TopicPartition]) -> Position:
    """As far as anything leads that is of the topics which are restored."""
    ends = {tp: _archive_end(sources, tp) for tp in partitions}
    fulls = [b for b in sources.backups if b.type == "full" and _holds(b, sources, partitions)]
    if fulls:
        newest = max(fulls, key=lambda b: b.id).read
        ends = {tp: max(end, newest[tp]) for tp, end in ends.items()}
    return Position({tp: max(end, sources.live[tp].end) if sources.leads_on(tp) else end for tp, end in ends.items()})


def _newest_of(group: str | None, backups: Sequence[Backup]) -> Backup | None:
    """The backup whose tables are meant. UsageError if it cannot be told: stores of several groups, with other
    tables each, may be backed up into one archive."""
    ordered = sorted(backups, key=lambda b: b.id)
    newest = {b.group: b for b in ordered}
    if group in newest:
        return newest[group]
    tables = {name: ", ".join(sorted(t.topic for t in b.tables)) for name, b in newest.items()}
    if len(set(tables.values())) > 1:
        groups = "; ".join(f"{name}: {held}" for name, held in sorted(tables.items()))
        error = UsageError(f"the archive has backups of several groups, of other tables each ({groups})")
        error.hint = "--group says whose store is restored, or --tables what"
        raise error
    return ordered[-1] if ordered else None


def _holds(backup: Backup, sources: Sources, partitions: Collection[TopicPartition]) -> bool:
    ids = _ids(backup)
    return all(tp in backup.read and ids.get(tp.topic) == sources.topic_id(tp) for tp in partitions)


def _ids(backup: Backup) -> dict[str, str]:
    return {table.topic: table.topic_id for table in backup.tables}


def _complete(position: Position, tables: Sequence[str], partitions: Collection[TopicPartition]) -> Position:
    """*position*, which has to name each of *partitions* and no other: what is left out would be empty."""
    missing = [tp for tp in partitions if tp not in position]
    if missing:
        raise UsageError(f"--to names no offset of {missing[0]}: name every partition of {', '.join(tables)}")
    beyond = [tp for tp in position if tp.topic in tables and tp not in partitions]
    if beyond:
        raise UsageError(f"--to names {min(beyond)}, which does not exist")
    return Position({tp: position[tp] for tp in partitions})


def _meant(to: str) -> tuple[int | None, Position | None]:
    """The time in milliseconds, or the position, that *to* spells; neither is ``latest``. UsageError."""
    if to == LATEST:
        return None, None
    if is_time(to):
        return time_ms(to), None
    try:
        position = Position.parse(to)
    except BadPosition:
        position = Position()
    if not position:
        raise UsageError(f"--to is latest, a position (orders/0:120,orders/1:98) or a time, not {to!r}")
    return None, position
