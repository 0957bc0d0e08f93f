"""What a restore tells: which records of a key were rejected, and what a restore point comes to without the key.

Both are read out of a scratch store, which the ordinary restore makes (``pipeline/restore``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...consumers.dbfile import Limits
from ...consumers.statements import run
from ...consumers.storefile import StoreFile
from ...schemas.errors import NotErasable, NotRestorable
from ...schemas.position import TopicPartition
from ..archive.archive import Archive
from ..archive.chain import Chain
from ..backup.manifest import Backup
from ..backup.snapshot import Watch, state_of
from ..restore.restore import Restorer
from ..restore.sources import LATEST, NO_BASE, Origin, Wish
from .plan import Hit

_REJECTED_SQL = """
SELECT DISTINCT tx FROM _merganser.rejections WHERE tx IS NOT NULL
UNION SELECT id FROM _merganser.operations WHERE kind = 'tx' AND state = 'rejected'
"""
_REJECTED_ALONE_SQL = """
SELECT "offset" FROM _merganser.rejections WHERE topic = ? AND partition = ? AND tx IS NULL
UNION SELECT "offset" FROM _merganser.operations
WHERE topic = ? AND partition = ? AND kind = 'op' AND state = 'rejected'
"""


def rejected(
    archive: Archive, table: str, hits: Mapping[TopicPartition, Sequence[Hit]], folder: Path | None, watch: Watch
) -> dict[TopicPartition, set[int]]:
    """Of the records *hits*, by partition, the offsets of those that leave a stand-in and were rejected. The log is
    applied as a replica does, from the beginning, if any has a condition. NotErasable if that cannot be told."""
    found = {tp: {hit.offset for hit in mine if hit.leaves and hit.bad} for tp, mine in hits.items()}
    doubtful = {tp: [hit for hit in mine if hit.in_doubt and not hit.bad] for tp, mine in hits.items()}
    if not any(doubtful.values()):
        return found
    try:
        with _restored(archive, Wish(LATEST, tuple(archive.topics()), NO_BASE), folder, watch) as store:
            with store.reading() as cursor:
                held = run(cursor, 'SELECT topic, partition, "offset" FROM _merganser.pending')
                transactions = {tx for (tx,) in run(cursor, _REJECTED_SQL)}
                alone = {tp: {at for (at,) in run(cursor, _REJECTED_ALONE_SQL, [*tp, *tp])} for tp in doubtful}
    except NotRestorable as why:
        raise NotErasable(
            table, f"a record of it has a condition, and what that came to cannot be told: {why}"
        ) from why
    pending = {(TopicPartition(topic, partition), offset) for topic, partition, offset in held}
    for tp, mine in doubtful.items():
        for hit in mine:
            if (tp, hit.offset) in pending:
                open_ = f"its record at {tp}:{hit.offset} waits for a transaction that is not whole in the archive"
                raise NotErasable(
                    table, open_, "let the archive come up to the log: `merganser archive run --until-end`"
                )
            tx = None if hit.marks is None else hit.marks.tx
            if tx in transactions if tx is not None else hit.offset in alone[tp]:
                found[tp].add(hit.offset)
    return found


def behind(backup: Backup, chains: Sequence[Chain]) -> list[str]:
    """The ids of the erasures that *backup*, an incremental one, lies beyond, and that it has not been through."""
    known, ids = {each.id for each in backup.erased}, {facts.topic: facts.topic_id for facts in backup.tables}
    found: list[str] = []
    for chain in chains:
        if ids.get(chain.place.topic) != chain.place.topic_id:
            continue
        for link in chain.links:
            told = link.told
            if told is None or told.id in known or backup.type != "incr":
                continue
            first = min(chain.links[int(seq)].first for seq in told.links)
            if first < backup.read.get(chain.place.tp, 0):
                found.append(told.id)
    return list(dict.fromkeys(found))


def proved_anew(archive: Archive, backup: Backup, table: str, folder: Path | None, watch: Watch) -> Backup:
    """*backup*, an incremental one, with the digests of *table* that a restore to it comes to now. NotErasable if it
    comes to anything else in another table, or to more than fewer rows in this one."""
    with _restored(archive, Wish.of(backup), folder, watch) as store, store.reading() as cursor:
        now = {facts.topic: facts for facts in state_of(cursor).tables}
    tables = []
    for facts in backup.tables:
        found = now[facts.topic]
        same = (found.digest, found.quarantine) == (facts.digest, facts.quarantine)
        if not same and (facts.topic != table or _rows(found.digest) > _rows(facts.digest)):
            why = f"backup {backup.id} would come to {found.digest}/{found.quarantine} in table {facts.topic!r}"
            raise NotErasable(table, f"{why}, it was {facts.digest}/{facts.quarantine}", _VERIFY)
        tables.append(replace(facts, digest=found.digest, quarantine=found.quarantine))
    return replace(backup, tables=tuple(tables))


_VERIFY = "`merganser backup verify --drill` shows what is wrong; what was erased is gone all the same"


def _rows(digest: str) -> int:
    return int(digest.partition("-")[0])


@contextmanager
def _restored(archive: Archive, wish: Wish, folder: Path | None, watch: Watch) -> Iterator[StoreFile]:
    """A scratch store with what the archive alone comes to, proved by no backup's digests: they may be of before."""
    origin = Origin(archive, None)
    plan = origin.plan(wish)
    origin.backups = []
    with tempfile.TemporaryDirectory(prefix="merganser-erase-", dir=folder) as scratch:
        path = Path(scratch) / "store.duckdb"
        restorer = Restorer(origin, path, "erase", limits=Limits(head_room=0), watch=watch)
        restorer.run(plan)
        with StoreFile(path) as store:
            yield store
