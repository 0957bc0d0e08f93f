"""Looking an archive over: every file is read, and what is wrong is named. Nothing is changed but by ``sweep``.

A *finding* is damage, or records that are gone: a restore may be refused because of it. A *note* is not: what
a run that was killed, or overtaken, has left behind, or what may become a loss.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal

from ...consumers.checks import Seen
from ...consumers.log import Log
from ...schemas.errors import ArchiveDamaged, ArchiveError, WrongArchive
from .archive import IDENTITY, Archive, Declared, table_name
from .chain import (
    BrokenChain,
    Chain,
    Head,
    Manifest,
    Place,
    check_head,
    decode,
    decode_head,
    follows,
    is_data,
    is_manifest,
    is_staged,
    overtaken,
    unfinished,
    unnamed,
)
from .objects import PART, Found
from .retention import risks
from .segments import batches, last_of

Kind = Literal[
    "missing",
    "changed",
    "misplaced",
    "gap",
    "unknown",
    "lost",
    "leftover",
    "behind",
    "retention",
    "erased",
    "unfinished",
]

_PLACE = re.compile(r"log/([^/]+)/([^/]+)/(\d+)/([^/]+)")

#: Folders of the backups, which have a check of their own.
_OTHERS = ("backups/", "files/")

#: What is half written and older than this is nobody's any more.
_FORGOTTEN_S = 86_400.0


@dataclass(frozen=True)
class Finding:
    """What is wrong with *file*, or worth a look."""

    kind: Kind
    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}: {self.why}"

    def fields(self) -> dict[str, Any]:
        return {"kind": self.kind, "file": self.file, "why": self.why}


@dataclass
class Coverage:
    """What the archive has of one partition."""

    place: Place
    first: int = 0
    next: int = 0
    segments: int = 0
    rows: int = 0
    size: int = 0
    newest_ms: int = -1
    erased: int = 0
    """Records that the segments had, and that were erased."""

    def fields(self) -> dict[str, Any]:
        topic, topic_id, partition = self.place
        facts = {"table": topic, "topic_id": topic_id, "partition": partition, "first": self.first, "next": self.next}
        sizes = {"segments": self.segments, "rows": self.rows, "bytes": self.size, "erased": self.erased}
        return {**facts, **sizes, "newest_ms": self.newest_ms if self.newest_ms >= 0 else None}


@dataclass
class Report:
    """What a check has seen."""

    url: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    files: int = 0
    read_bytes: int = 0
    log_asked: bool = False

    def fields(self) -> dict[str, Any]:
        return {
            "archive": self.url,
            "sound": not self.findings,
            "findings": [finding.fields() for finding in self.findings],
            "notes": [note.fields() for note in self.notes],
            "partitions": [each.fields() for each in self.coverage],
            "files": self.files,
            "read_bytes": self.read_bytes,
            "log_asked": self.log_asked,
        }


def check(
    archive: Archive, log: Log | None = None, quick: bool = False, tell: Callable[[int, int], None] = lambda n, of: None
) -> Report:
    """Look all of *archive* over; *quick*: without the bytes of data files. With *log*, what its retention has
    dropped or may drop too. *tell* hears how many bytes are read, of how many. ArchiveUnavailable, LogError."""
    return _Check(archive, quick, tell).run(log)


class _Check:
    def __init__(self, archive: Archive, quick: bool, tell: Callable[[int, int], None]) -> None:
        self._archive, self._quick, self._tell = archive, quick, tell
        self._report = Report(archive.url)
        self._files: dict[str, Found] = {}
        self._known: set[str] = set()
        self._orphans: dict[str, Place] = {}
        self._chains: list[Chain] = []
        self._versions: dict[str, set[int]] = {}
        self._total = 0

    def run(self, log: Log | None) -> Report:
        heads = {name: self._archive.objects.read(name) for name in self._heads()}  # before what they lead to
        self._files = {found.name: found for found in self._archive.objects.list("")}
        self._report.files = len(self._files)
        self._total = sum(f.size for n, f in self._files.items() if n.startswith("log/") and n.endswith(".parquet"))
        self._identity(log)
        declared = self._tables()
        self._schemas()
        for place in self._places(declared):
            self._partition(place, heads.get(place.head))
        self._rest()
        if log is not None:
            self._retention(log, declared)
        return self._report

    def _heads(self) -> list[str]:
        return [found.name for found in self._archive.objects.list("log/") if found.name.endswith("/head.json")]

    def _bad(self, kind: Kind, file: str, why: str) -> None:
        self._report.findings.append(Finding(kind, file, why))

    def _note(self, kind: Kind, file: str, why: str) -> None:
        self._report.notes.append(Finding(kind, file, why))

    # -- what describes the records ------------------------------------------------------------

    def _identity(self, log: Log | None) -> None:
        self._known.add(IDENTITY)
        try:
            found = self._archive.cluster_id()
        except (ArchiveDamaged, WrongArchive) as error:
            self._bad("changed", IDENTITY, _why(error))
            return
        if found is None:
            self._bad("missing", IDENTITY, "it is not there; the archive was not made, or not all of it is here")
        elif log is not None and log.cluster_id != found:
            raise WrongArchive(
                self._archive.url, f"it is the archive of cluster {found}, this is cluster {log.cluster_id}"
            )

    def _tables(self) -> list[Declared]:
        declared: list[Declared] = []
        for topic in sorted({name.split("/")[1] for name in self._files if name.startswith("tables/")}):
            names = [
                name for name in self._files if re.fullmatch(rf"tables/{re.escape(topic)}/[^/]+/table\.json", name)
            ]
            self._known.update(names)
            try:
                declared += self._archive.declared(topic)
            except (ArchiveDamaged, WrongArchive) as error:
                self._bad("changed", getattr(error, "file", f"tables/{topic}"), _why(error))
        return declared

    def _schemas(self) -> None:
        for subject in sorted({name.split("/")[1] for name in self._files if name.startswith("schemas/")}):
            folder = rf"schemas/{re.escape(subject)}/\d{{6}}\.json"
            self._known.update(name for name in self._files if re.fullmatch(folder, name))
            try:
                self._versions[subject] = {version.version for version in self._archive.versions(subject)}
            except (ArchiveDamaged, WrongArchive) as error:
                file = getattr(error, "file", f"schemas/{subject}")
                self._bad("changed" if file in self._files else "missing", file, _why(error))

    # -- chains ------------------------------------------------------------------------------

    def _places(self, declared: list[Declared]) -> list[Place]:
        """Each partition that is declared, or has files."""
        places = {place.folder: place for each in declared for place in each.places}
        for name in self._files:
            if (parts := _PLACE.fullmatch(name)) is not None:
                place = Place(parts[1], parts[2], int(parts[3]))
                table = table_name(place.topic, place.topic_id)
                if place.folder not in places:
                    if table not in self._files:
                        self._bad("missing", table, f"{place.folder} has files")
                    places[place.folder] = place
        return sorted(places.values())

    def _partition(self, place: Place, head: bytes | None) -> None:
        names = [name for name in self._files if name.rpartition("/")[0] == place.folder]
        seqs = sorted(int(name[-15:-5]) for name in names if is_manifest(name))
        links = list(self._links(place, seqs))
        self._head(place, head, links)
        covered = Coverage(place)
        for link in links:
            self._data(link)
            covered.rows += link.rows
            covered.size += link.size
            covered.segments += 1 if link.rows else 0
            covered.erased += link.erased
        if links:
            covered.first, covered.next, covered.newest_ms = links[0].first, links[-1].next, links[-1].newest_ms
        self._report.coverage.append(covered)
        self._erasures(place, links, names)
        leftovers = [n for n in names if n not in self._known]
        self._orphans |= {n: place for n in leftovers if is_data(n) or is_staged(n)}

    def _erasures(self, place: Place, links: list[Manifest], names: list[str]) -> None:
        """What links tell of erasures, and whether all that they tell has come about."""
        for link in links:
            if (told := link.told) is not None:
                stay = f", {told.stand_ins:,} of them stood in for" if told.stand_ins else ""
                why = f"{told.records:,} records of one key were erased at {told.at}{stay} (erasure {told.id})"
                self._note("erased", link.name, why)
        if len(self._chains[-1].links) < len(links) or len(links) < sum(1 for n in names if is_manifest(n)):
            return  # something is wrong with the chain, and told
        for link in unnamed(links):
            self._bad("changed", link.name, "it was replaced, and no erasure says so")
        for seq, hash_ in unfinished(links).items():
            self._known |= self._to_come(place.staged(seq, hash_), hash_)
            self._bad("unfinished", place.manifest(seq), "an erasure names what takes its place: run that again")
        below = max((link.next for link in links if link.erasure), default=0)
        for name in names:
            if name not in self._known and overtaken(name, below):
                self._known.add(name)
                self._bad("leftover", name, "it may hold erased records: `archive check --sweep` removes it")

    def _to_come(self, staged: str, hash_: str) -> set[str]:
        """The manifest *staged*, and the data that it names: from there on they are the only ones."""
        data = self._archive.objects.read(staged)
        if data is None or sha256(data).hexdigest() != hash_:
            return {staged}
        return {staged, decode(data).file}

    def _links(self, place: Place, seqs: list[int]) -> Iterator[Manifest]:
        """The manifests that are sound in themselves; what is wrong between them is noted."""
        before: Manifest | None = None
        proved = True  # whether *before* is the one before
        chain = Chain(place)
        for expected in range(seqs[-1] + 1 if seqs else 0):
            name = place.manifest(expected)
            self._known.add(name)
            data = self._archive.objects.read(name) if name in self._files else None
            if data is None:
                self._bad("missing", name, "a manifest in the middle of its chain is not there")
                proved = False
                continue
            try:
                link = decode(data)
                if proved:
                    follows(before, link)
                    if len(chain.links) == expected:  # nothing was wrong so far
                        chain.add(link)
                elif link.name != name:
                    raise BrokenChain(f"it is {link.name}")
            except BrokenChain as why:
                self._bad(*self._broken(name, data, before, proved, str(why)))
                proved = False
                continue
            if link.lost:
                self._note(
                    "lost", name, f"offsets {link.first} to {link.next} were gone from the log: see --accept-gap"
                )
            self._check_versions(link)
            before, proved = link, True
            yield link
        self._chains.append(chain)

    def _broken(self, name: str, data: bytes, before: Manifest | None, proved: bool, why: str) -> tuple[Kind, str, str]:
        try:
            link = decode(data)
        except BrokenChain:
            return "changed", name, why
        if link.name != name:
            return "misplaced", name, f"it is {link.name}"
        if proved and before is not None and link.first != before.next:
            return "gap", name, why
        return "changed", name, why

    def _head(self, place: Place, data: bytes | None, links: list[Manifest]) -> None:
        self._known.add(place.head)
        if data is None:
            if place.head not in self._files:  # else it was made after the heads were read
                self._bad("missing", place.head, "it is not there; the next `archive run` writes it anew")
            return
        chain = self._chains[-1] if self._chains else Chain(place)
        try:
            head = decode_head(data)
            if chain.place == place and len(chain.links) == len(links):
                check_head(chain, head)
        except BrokenChain as why:
            self._bad("changed" if "names" not in str(why) else "missing", place.head, str(why))
            return
        if links and head.seq < links[-1].seq and head != Head():
            self._note("behind", place.head, f"it leads to manifest {head.seq}, the newest is {links[-1].seq}")

    def _check_versions(self, link: Manifest) -> None:
        for subject, version in link.versions.items():
            if subject in self._versions and version not in self._versions[subject]:
                self._versions[subject].add(version)  # told once
                self._bad("missing", f"schemas/{subject}/{version:06d}.json", f"{link.name} needs it")
            elif subject not in self._versions and not any(n.startswith(f"schemas/{subject}/") for n in self._files):
                self._versions[subject] = {version}
                self._bad("missing", f"schemas/{subject}/{version:06d}.json", f"{link.name} needs it")

    # -- data --------------------------------------------------------------------------------

    def _data(self, link: Manifest) -> None:
        if not link.file:
            return
        self._known.add(link.file)
        found = self._files.get(link.file)
        if found is None and self._archive.objects.read(link.file) is None:  # asked for: it may be newer than the list
            self._bad("missing", link.file, f"{link.name} names it")
        elif found is not None and found.size != link.size:
            self._bad("changed", link.file, f"it has {found.size} bytes, {link.size} were written")
        elif not self._quick:
            try:
                for why in contents(self._archive, link):
                    self._bad("changed", link.file, why)
            except ArchiveDamaged as error:
                self._bad("changed", link.file, _why(error))
            self._report.read_bytes += link.size
            self._tell(self._report.read_bytes, self._total)

    # -- what belongs to nothing ---------------------------------------------------------------

    def _rest(self) -> None:
        for name in sorted(self._files.keys() - self._known):
            if name.startswith(_OTHERS):
                continue
            last = name.rpartition("/")[2]
            if last.endswith(PART) or last.startswith("probe-"):
                self._note("leftover", name, "a run ended while it was written")
            elif name in self._orphans:
                self._note("leftover", name, "no manifest names it: its archiver ended, or another one was first")
            else:
                self._bad("unknown", name, "no file of the archive has that name")

    def _retention(self, log: Log, declared: list[Declared]) -> None:
        self._report.log_asked = True
        newest = {each.facts.name: each.facts.topic_id for each in declared}  # in order of generation
        chains = [chain for chain in self._chains if newest.get(chain.place.topic) == chain.place.topic_id]
        for risk in risks(log, chains):
            (self._bad if risk.lost else self._note)("retention", str(risk.partition), risk.why)


def contents(archive: Archive, link: Manifest) -> Iterator[str]:
    """What the data of *link* has not of what its manifest says. ArchiveDamaged, WrongKey."""
    rows, before, low, high = 0, link.first - 1, None, -1
    last: Seen | None = None
    for batch in batches(archive.segment(link)):
        offsets, times = batch["offset"].to_pylist(), batch["timestamp_ms"].to_pylist()
        if offsets[0] <= before or any(b <= a for a, b in pairwise(offsets)):
            yield "its offsets are not in order, or come twice"
        rows, before = rows + len(offsets), offsets[-1]
        low = min(times) if low is None else min(low, min(times))
        high = max(high, max(times))
        last = last_of(batch, bool(link.was)) or last
    if last is None and link.was:  # nothing but stand-ins: the last record is of a link before
        last = Seen(link.last_offset, bytes.fromhex(link.last_digest))
    found = (last.offset, last.digest.hex()) if last is not None else None
    said = (link.rows, link.min_ms, link.max_ms, (link.last_offset, link.last_digest))
    if (rows, low, high, found) != said or before >= link.next:
        yield f"it holds {rows} rows up to offset {before}, its manifest says {link.rows} up to {link.last_offset}"


def sweep(archive: Archive, report: Report) -> list[str]:
    """Remove what *report* calls leftovers, and nobody can need any more: data that no manifest can come to name,
    since its chain has gone on, and parts a day old. The names of what was removed; it is no finding any longer."""
    ends = {each.place.folder: each.next for each in report.coverage}
    removed = []
    for note in [*report.notes, *report.findings]:
        if note.kind != "leftover" or not _forgotten(archive, note.file, ends):
            continue
        archive.objects.delete(note.file)
        removed.append(note.file)
    report.findings = [finding for finding in report.findings if finding.file not in removed]
    return removed


def _forgotten(archive: Archive, name: str, ends: dict[str, int]) -> bool:
    folder = name.rpartition("/")[0]
    if overtaken(name, ends.get(folder, 0)):
        return True
    if is_data(name):  # of offsets that a manifest may come to name yet
        return False
    ages = [time.time() - found.modified_s for found in archive.objects.list(folder) if found.name == name]
    return any(age > _FORGOTTEN_S for age in ages)


def _why(error: ArchiveError) -> str:
    return str(getattr(error, "why", error))
