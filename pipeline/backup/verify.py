"""Reading every byte of backups again, and of the archive under them, and saying what is wrong.

Invariant: a backup of which nothing is found can be restored: each file is there, has the bytes that were
written, and is Parquet of so many rows; and all that the archive's chains name is there and as it was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from ...schemas.errors import ArchiveDamaged
from ..archive.archive import Archive
from ..archive.check import Report as ArchiveReport
from ..archive.check import check
from ..archive.key import check_key
from . import files
from .catalog import Found
from .manifest import Backup, manifest_name
from .policy import unreferenced
from .snapshot import Unwatched, Watch


class Finding(NamedTuple):
    """Something that is wrong with *file*, which these *backups* need."""

    file: str
    why: str
    backups: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What was read, and what is wrong. *loose* files are named by no backup: an interrupted one left them."""

    backups: int
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    loose: tuple[str, ...] = ()


def verify(archive: Archive, found: Collection[Found], watch: Watch | None = None, everything: bool = True) -> Report:
    """Read every byte of the backups *found*; and of the archive, if *everything* is asked for. WrongKey if some
    are encrypted with another key."""
    objects, key = archive.objects, archive.key
    backups = [each.backup for each in found if each.backup is not None]
    for backup in backups:
        check_key(manifest_name(backup.id), backup.key, key)
    wrong = [Finding(each.file, each.wrong, (each.id,)) for each in found if each.wrong]
    listed = _listed(backups)
    watch = watch or Unwatched()
    watch.begin("verify", sum(entry.size for entry, _, _ in listed))
    for entry, encrypted, needed_by in listed:
        try:
            files.read(objects, entry, key if encrypted else None)
        except ArchiveDamaged as damage:
            wrong.append(Finding(damage.file, damage.why, needed_by))
        watch.advance(entry.size)
    count, size = len(listed), sum(entry.size for entry, _, _ in listed)
    if not everything:
        return Report(len(found), count, size, tuple(wrong))
    loose = unreferenced((file.name for file in objects.list(files.FOLDER)), backups)
    below = _archive(archive, watch)
    wrong += [Finding(each.file, f"{each.kind}: {each.why}", ()) for each in below.findings]
    return Report(len(found), count + below.files, size + below.read_bytes, tuple(wrong), tuple(loose))


def _archive(archive: Archive, watch: Watch) -> ArchiveReport:
    """Every chain and every data file of *archive*."""
    read = 0

    def tell(done: int, of: int) -> None:
        nonlocal read
        if read == 0:
            watch.begin("archive", of)
        watch.advance(done - read)
        read = done

    return check(archive, tell=tell)


def _listed(backups: Collection[Backup]) -> list[tuple[files.Entry, bool, tuple[str, ...]]]:
    """Each file as manifests list it, whether it is encrypted, and which backups need it. If two manifests say
    otherwise of one file, it is read by both."""
    needed: dict[tuple[files.Entry, bool], list[str]] = {}
    for backup in backups:
        for entry in backup.files:
            needed.setdefault((_of_bytes(entry), bool(backup.key)), []).append(backup.id)
    return [(entry, encrypted, tuple(dict.fromkeys(ids))) for (entry, encrypted), ids in needed.items()]


def _of_bytes(entry: files.Entry) -> files.Entry:
    """*entry* without what it is of: two tables may have equal chunks."""
    return entry._replace(table="", topic="", system=False, partition=-1, first=-1, last=-1)
