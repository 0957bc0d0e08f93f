"""Removing backups that no policy keeps, and the files that no backup names any more.

Invariants
- First the mark goes, then the manifest, then files: killed at any step, what is left is either a backup, or
  an unmarked manifest or unnamed files, which the next run takes away.
- Files are removed only while no backup is being made (:mod:`.lease`).
- What is wrong with any backup stops it: nobody knows then which files are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...schemas.errors import UnknownBackup, UsageError
from ..archive.objects import Found as File
from ..archive.objects import Objects
from . import files
from .catalog import Found, catalog, whole
from .lease import expiring
from .manifest import Backup, manifest_name, mark_name
from .policy import Policy, Verdict, judge, unreferenced

STEPS = ("mark-removed", "manifest-removed", "file-removed")


@dataclass(frozen=True)
class Expired:
    """What was, or would be, removed. *waiting* if files stay for now, since a backup is being made."""

    verdicts: Sequence[Verdict]
    files: Sequence[File]
    waiting: bool = False

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def preview(objects: Objects, policy: Policy, now: datetime) -> Expired:
    """What :func:`expire` would do, if nothing changes before."""
    verdicts, _ = _judged(objects, policy, now)
    return Expired(verdicts, _loose(objects, [v.backup for v in verdicts if v.kept]))


def expire(objects: Objects, policy: Policy, now: datetime, step: Callable[[str], None] = lambda step: None) -> Expired:
    """Remove what *policy* does not keep. ArchiveDamaged, BackupBusy."""
    with expiring(objects) as held:
        verdicts, unmarked = _judged(objects, policy, now)
        going = [v.backup for v in verdicts if not v.kept]
        # An unmarked manifest may be one that is being published right now.
        going += [found.backup for found in unmarked if held.alone and found.backup is not None]
        for backup in going:
            objects.delete(mark_name(backup.id))
            step("mark-removed")
            objects.delete(manifest_name(backup.id))
            step("manifest-removed")
        if not held.alone:
            return Expired(verdicts, (), waiting=True)
        loose = _loose(objects, [v.backup for v in verdicts if v.kept])
        for file in loose:
            objects.delete(file.name)
            step("file-removed")
        return Expired(verdicts, loose)


def forget(objects: Objects, id_: str, damaged: Callable[[Found], bool] = lambda found: False) -> None:
    """Take away what is left of a damaged backup. *damaged* reads one that is whole at first sight. UnknownBackup;
    UsageError if nothing is wrong with it."""
    for found in catalog(objects):
        if found.id == id_:
            if not (found.wrong or damaged(found)):
                raise UsageError(f"backup {id_} is whole: a policy removes it (--keep-full, --keep-days)")
            objects.delete(mark_name(id_))
            objects.delete(manifest_name(id_))
            return
    raise UnknownBackup(objects.url, id_)


def _judged(objects: Objects, policy: Policy, now: datetime) -> tuple[list[Verdict], list[Found]]:
    found = catalog(objects)
    unmarked = [each for each in found if each.unmarked]
    return judge([whole(objects, each) for each in found if not each.unmarked], policy, now), unmarked


def _loose(objects: Objects, kept: Sequence[Backup]) -> list[File]:
    there = {file.name: file for file in objects.list(files.FOLDER)}
    return [there[name] for name in unreferenced(there, kept)]
