"""Which backups an archive has.

Invariant: what is wrong with one is told with it, never passed over: a manifest that was changed, a mark
without its backup, a backup without its mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from ...schemas.errors import ArchiveDamaged, UnknownBackup
from ..archive.objects import Objects
from .manifest import FOLDER, MARKS, Backup, BadManifest, decode, is_id, manifest_name, mark_name, read_mark

if TYPE_CHECKING:
    from .snapshot import State


@dataclass(frozen=True)
class Found:
    """A backup, or what is left of one. It is whole if nothing is *wrong*."""

    id: str
    backup: Backup | None
    file: str = ""
    wrong: str = ""
    unmarked: bool = False
    """Its manifest is whole, and it has no mark."""


def catalog(objects: Objects) -> list[Found]:
    """Every backup of the archive, oldest first."""
    names = {found.name for found in objects.list(FOLDER)}
    marks = {n.removeprefix(f"{MARKS}/").removesuffix(".json") for n in names if n.startswith(f"{MARKS}/")}
    manifests = {name.split("/")[1] for name in names if name.endswith("/manifest.json")}
    return [_found(objects, id_) for id_ in sorted(marks | manifests)]


def find(objects: Objects, id_: str) -> Backup:
    """The backup of that id, or of the one id that begins so; UnknownBackup, ArchiveDamaged."""
    matching = [found for found in catalog(objects) if found.id.startswith(id_)] if id_ else []
    exact = [found for found in matching if found.id == id_] or matching
    if len(exact) != 1:
        raise UnknownBackup(objects.url, id_, f"{len(exact)} ids begin so: say more of it" if exact else "")
    return whole(objects, exact[0])


def whole(objects: Objects, found: Found) -> Backup:
    """The backup of *found*; ArchiveDamaged if something is wrong with it."""
    if found.backup is None or found.wrong:
        raise ArchiveDamaged(objects.url, found.file, found.wrong, hint=_HINT)
    return found.backup


def all_whole(objects: Objects) -> list[Backup]:
    """Every backup, oldest first; ArchiveDamaged if something is wrong with any."""
    return [whole(objects, found) for found in catalog(objects)]


_UNMARKED = "it is missing: the backup was not finished (the next `backup create` does), or its mark was deleted"
_HINT = "`merganser backup verify` lists all that is wrong; `restore --base ID` (or none) goes without the others"


def _found(objects: Objects, id_: str) -> Found:
    manifest_file, mark_file = manifest_name(id_), mark_name(id_)
    if not is_id(id_):
        return Found(id_, None, manifest_file, "it is named as no backup is")
    data, marked = objects.read(manifest_file), objects.read(mark_file)
    if data is None:
        return Found(id_, None, manifest_file, "it is missing: the backup was deleted, and not by `expire`")
    try:
        backup = decode(id_, data)
    except BadManifest as why:
        return Found(id_, None, manifest_file, str(why))
    if marked is None:
        return Found(id_, backup, mark_file, _UNMARKED, unmarked=True)
    try:
        named = read_mark(id_, marked)
    except BadManifest as why:
        return Found(id_, backup, mark_file, str(why))
    if named != sha256(data).hexdigest():
        return Found(id_, None, manifest_file, "it is another one than was marked")
    return Found(id_, backup)


def newest_full(backups: Sequence[Backup], group: str, state: State) -> Backup | None:
    """The newest full backup of the store of *group* that leads to *state*: it has those very topics, all of them,
    and none further. A store may follow more tables since, or have been restored to a point before the newest."""
    fulls = (b for b in reversed(backups) if b.type == "full" and b.group == group)
    return next((b for b in fulls if _leads_to(b, state)), None)


def _leads_to(full: Backup, state: State) -> bool:
    ids, read = {table.topic: table.topic_id for table in full.tables}, full.read
    same = all(ids.get(table.topic) == table.topic_id for table in state.tables)
    return same and all(tp in read and read[tp] <= offset for tp, offset in state.read.items())
