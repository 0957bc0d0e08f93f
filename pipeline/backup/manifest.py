"""What a backup says of itself.

Invariants
- A manifest is sealed (:mod:`..archive.sealed`): any changed bit is found.
- Ids sort by time, and no two backups share one.
- A backup exists once its *mark* is there, in a folder of its own: of a backup that was deleted by accident
  the mark remains, and tells.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from ...consumers.contents import Columns
from ...schemas.errors import BadPosition
from ...schemas.position import Position
from ..archive.sealed import BrokenSeal, seal, unseal
from .files import Entry

FORMAT = 1
FOLDER = "backups"
MARKS = f"{FOLDER}/index"

Type = Literal["full", "incr"]

_ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{6}")


class BadManifest(ValueError):
    """Bytes that are no manifest of a backup; ``str`` says why."""


@dataclass(frozen=True)
class TableFacts:
    """A table as it was backed up. Digests are those of ``consumers/digest.py``, as text."""

    topic: str
    topic_id: str
    partitions: int
    columns: tuple[tuple[str, str], ...]
    digest: str
    quarantine: str
    stopped: str = ""

    @property
    def as_columns(self) -> Columns:
        return Columns(self.topic, self.columns)


class Erased(NamedTuple):
    """An erasure that a backup has been through: its *id*, and when its digests were made anew (UTC)."""

    id: str
    at: str


@dataclass(frozen=True)
class Backup:
    """One backup. A full one has *files*; an incremental one is a restore point: *base* is the full one that
    it was made after, and the archive leads from there to *position*.

    *position* is the read position, *applied* stops before what is held back there. *since* is where the
    store began to read. *schedule* is the cron line that asked for it, *due* for when; *late*: it was made up for.
    *erased* is in the file only if something was.
    """

    id: str
    type: Type
    created: str
    cluster_id: str
    group: str
    position: str
    applied: str
    since: str
    tables: tuple[TableFacts, ...]
    files: tuple[Entry, ...] = ()
    base: str = ""
    key: str = ""
    seconds: float = 0.0
    new_bytes: int = 0
    schedule: str = ""
    due: str = ""
    late: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    erased: tuple[Erased, ...] = ()
    format: int = FORMAT

    @property
    def read(self) -> Position:
        return Position.parse(self.position)

    @property
    def created_at(self) -> datetime:
        return datetime.fromisoformat(self.created)

    @property
    def rows(self) -> int:
        return sum(int(table.digest.partition("-")[0]) for table in self.tables)

    @property
    def size(self) -> int:
        """Bytes of all its files, those of them too that other backups share."""
        return sum({listed.address: listed.size for listed in self.files}.values())

    @property
    def partial(self) -> bool:
        """True if the store did not begin at the beginning."""
        return any(Position.parse(self.since).values())

    def encoded(self) -> bytes:
        facts = {**asdict(self), "files": [list(listed) for listed in self.files]}
        facts["erased"] = [list(each) for each in self.erased]
        return seal({name: fact for name, fact in facts.items() if fact or name != "erased"})

    @property
    def hash(self) -> str:
        return sha256(self.encoded()).hexdigest()


def new_id(now: datetime) -> str:
    at = now.astimezone(UTC)
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z-{secrets.token_hex(3)}"


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def manifest_name(id_: str) -> str:
    return f"{FOLDER}/{id_}/manifest.json"


def mark_name(id_: str) -> str:
    return f"{MARKS}/{id_}.json"


def mark(backup: Backup) -> bytes:
    return seal({"format": FORMAT, "id": backup.id, "manifest": backup.hash})


def read_mark(id_: str, data: bytes) -> str:
    """The hash of the manifest that the mark of *id_* names; BadManifest."""
    facts = _unsealed(data)
    if facts.keys() != {"format", "id", "manifest"} or facts["format"] != FORMAT or facts["id"] != id_:
        raise BadManifest(f"it is no mark of backup {id_}")
    return str(facts["manifest"])


def decode(id_: str, data: bytes) -> Backup:
    """The manifest of backup *id_* in *data*; BadManifest if it is none, of another one, or was changed."""
    facts = _unsealed(data)
    if facts.get("format") != FORMAT:
        raise BadManifest(f"it has format {facts.get('format')!r}, this version reads {FORMAT}")
    try:
        if facts.keys() | {"erased"} != {f.name for f in fields(Backup)} or not facts.get("erased", True):
            raise KeyError("names")
        erased = tuple(Erased(*each) for each in facts.pop("erased", ()))
        tables = tuple(_table(found) for found in facts.pop("tables"))
        files = tuple(Entry(*listed) for listed in facts.pop("files"))
        backup = Backup(**facts, tables=tables, files=files, erased=erased)
        Position.parse(backup.position), Position.parse(backup.applied), Position.parse(backup.since)
    except (TypeError, KeyError, ValueError, AttributeError, BadPosition):
        raise BadManifest("it has not the facts of a backup") from None
    if backup.id != id_:
        raise BadManifest(f"it is of backup {backup.id}")
    return backup


def _table(found: dict[str, Any]) -> TableFacts:
    columns = tuple((name, type_) for name, type_ in found.pop("columns"))
    return TableFacts(**found, columns=columns)


def _unsealed(data: bytes) -> dict[str, Any]:
    try:
        return unseal(data)
    except BrokenSeal as why:
        raise BadManifest(str(why)) from None
