"""A drill: a backup is restored for show, and has to come out as what was backed up."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from ...consumers.dbfile import Limits
from ...schemas.errors import MerganserError
from ..archive.archive import Archive
from ..restore.restore import Restorer
from ..restore.sources import Origin, Wish
from .manifest import Backup
from .snapshot import Unwatched, Watch


class Drilled(NamedTuple):
    """What came of it; *wrong* is empty if every digest was that of the backup."""

    backup: str
    rows: int
    wrong: str


def drill(archive: Archive, backup: Backup, folder: Path | None = None, watch: Watch | None = None) -> Drilled:
    """Restore *backup* into a scratch store under *folder*, from the archive alone, and compare all digests."""
    with tempfile.TemporaryDirectory(prefix="merganser-drill-", dir=folder) as scratch:
        try:
            origin = Origin(archive, None)
            plan = origin.plan(Wish.of(backup))
            origin.backups = [backup]
            restorer = Restorer(origin, Path(scratch) / "store.duckdb", backup.group, limits=Limits(head_room=0))
            restorer.watch = watch or Unwatched()
            restored = restorer.run(plan)
        except MerganserError as error:
            return Drilled(backup.id, 0, str(error))
    wrong = "" if restored.compared == backup.id else "its digests could not be compared"
    return Drilled(backup.id, restored.rows, wrong)
