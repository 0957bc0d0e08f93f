"""Archive: a place in an object store with the log's facts, schemas, chains and segments.

Invariants
- Every file but ``head.json`` is created once and never changed; but for the manifests whose records were erased: those
  are replaced, by what a later manifest of their chain names (``pipeline/erase``).
- What describes records is there before they are: the cluster, the table, its schema versions, the data, and
  the manifest last. So whatever a manifest names can be read.
- A file that is not what it was written as is named in :class:`ArchiveDamaged`, and nothing of it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...schemas.errors import ArchiveDamaged, WrongArchive
from ...schemas.kafka import TopicFacts
from ...schemas.registry_records import canonical
from ...schemas.table import SchemaVersion
from .chain import BrokenChain, Chain, Head, Manifest, Place, check_head, decode, decode_head, is_manifest, topic_folder
from .key import Key, check_key
from .objects import Objects, open_objects
from .sealed import BrokenSeal, seal, unseal

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from ...consumers.replica import Replica
    from ...consumers.storefile import StoreFile
    from ...schemas.position import Position
    from ..backup.manifest import Backup, Type
    from ..log import Log as Writable
    from ..restore.restore import Restored
    from .bridged import BridgedLog, Live
    from .log import ArchiveLog

FORMAT = 1

#: What the archive says of itself.
IDENTITY = "archive.json"

_TABLE = ("name", "topic_id", "partitions", "settings", "generation")
_SCHEMA = ("subject", "version", "id", "schema", "previous")

#: Small files that are asked for at one time.
_AT_ONCE = 8


@dataclass(frozen=True)
class Declared:
    """A topic as it was when its archive began. *generation* counts the topics of one name, from 1."""

    facts: TopicFacts
    generation: int

    @property
    def places(self) -> list[Place]:
        return [Place(self.facts.name, self.facts.topic_id, p) for p in range(self.facts.partitions)]


class Archive:
    """The archive at *url*: a folder, or ``s3://bucket/prefix`` and what else obstore knows.

    *key* (or the file that holds it) encrypts new segments and reads encrypted ones. Safe across threads.
    """

    def __init__(self, url: str | Path | Objects, key: Key | str | Path | None = None) -> None:
        self.objects = open_objects(str(url)) if isinstance(url, (str, Path)) else url
        self.key = Key.from_file(key) if isinstance(key, (str, Path)) else key
        self._sealed: dict[str, dict[str, Any]] = {}  # files that never change

    @property
    def url(self) -> str:
        return self.objects.url

    def log(self) -> ArchiveLog:
        """What is archived, as a log: a replica can be built of it without Kafka."""
        from .log import ArchiveLog

        return ArchiveLog(self)

    def under(self, log: Live) -> BridgedLog:
        """*log*, filled up from below: what it no longer has comes from the archive."""
        from .bridged import BridgedLog

        return BridgedLog(self.log(), log)

    # -- backups -----------------------------------------------------------------------------

    def backup(
        self,
        replica: Replica | StoreFile,
        log: Writable,
        *,
        type: Type = "full",
        annotations: Mapping[str, str] | None = None,
        timeout: float = 3600.0,
    ) -> Backup:
        """Back *replica* up at one position, while it goes on, and archive *log* up to there. See
        :func:`..backup.api.backup`."""
        from ..backup.api import backup

        return backup(self, replica, log, type=type, annotations=annotations, timeout=timeout)

    def restore(
        self,
        store: str | Path,
        *,
        to: str | Position = "latest",
        log: Writable | None = None,
        tables: Sequence[str] = (),
        group: str | None = None,
        base: str | None = None,
        force: bool = False,
    ) -> Restored:
        """Make *store* what a replica held at *to*. See :func:`..backup.api.restore`."""
        from ..backup.api import restore

        return restore(self, store, to=to, log=log, tables=tables, group=group, base=base, force=force)

    # -- whose it is -------------------------------------------------------------------------

    def cluster_id(self) -> str | None:
        """The cluster whose log is archived; None if nothing is yet."""
        facts = self._facts(IDENTITY, "cluster_id")
        return None if facts is None else str(facts["cluster_id"])

    def claim(self, cluster_id: str) -> None:
        """Make it the archive of *cluster_id*, if it is nobody's. WrongArchive if it is another's, or if its
        store replaces what it should only create: then two archivers would break each other's chains."""
        probe = f"probe-{uuid4().hex}.json"
        try:
            if not self.objects.create(probe, b"1") or self.objects.create(probe, b"2"):
                raise WrongArchive(self.url, "its store does not keep a file from being created twice", _NO_CREATE)
        finally:
            self.objects.delete(probe)
        self.objects.create(IDENTITY, seal({"format": FORMAT, "cluster_id": cluster_id}))
        found = self.cluster_id()
        if found != cluster_id:
            raise WrongArchive(self.url, f"it is the archive of cluster {found}, this is cluster {cluster_id}")

    # -- tables ------------------------------------------------------------------------------

    def topics(self) -> list[str]:
        """Names of all tables that were ever archived, sorted; not our own topics', which no table has."""
        names = {found.name.split("/")[1] for found in self.objects.list("tables/")}
        return sorted(name for name in names if not name.startswith("_"))

    def declared(self, topic: str) -> list[Declared]:
        """The topics of that name, the newest last: one that is deleted and made again is another."""
        names = [found.name for found in self.objects.list(f"tables/{topic}/") if found.name.endswith("/table.json")]
        made = [self._declared(name, facts) for name in names if (facts := self._facts(name, *_TABLE)) is not None]
        return sorted(made, key=lambda each: each.generation)

    def declare(self, facts: TopicFacts) -> Declared:
        """Begin to archive a topic: its facts, and the heads of its chains. A no-op if that was done."""
        name = table_name(facts.name, facts.topic_id)
        made = self._facts(name, *_TABLE)
        if made is None:
            generation = 1 + max((each.generation for each in self.declared(facts.name)), default=0)
            made = {
                "format": FORMAT,
                "name": facts.name,
                "topic_id": facts.topic_id,
                "partitions": facts.partitions,
                "settings": dict(facts.settings),
                "generation": generation,
            }
            if not self.objects.create(name, seal(made)):
                made = self._facts(name, *_TABLE) or made  # another archiver's
        declared = self._declared(name, made)
        for place in declared.places:
            # Only before the first manifest: later, a head that is missing was taken away.
            if self.objects.read(place.head) is None and self.objects.read(place.manifest(0)) is None:
                self.objects.create(place.head, Head().encoded())
        return declared

    def _declared(self, name: str, facts: dict[str, Any]) -> Declared:
        topic = TopicFacts(facts["name"], facts["topic_id"], facts["partitions"], facts["settings"])
        if name != table_name(topic.name, topic.topic_id):
            raise ArchiveDamaged(self.url, name, f"it is that of {topic.name}, id {topic.topic_id}")
        return Declared(topic, facts["generation"])

    # -- schemas -----------------------------------------------------------------------------

    def versions(self, subject: str) -> list[SchemaVersion]:
        """All archived versions of *subject*, oldest first."""
        folder = f"schemas/{subject}/"
        names = sorted(found.name for found in self.objects.list(folder) if found.name.endswith(".json"))
        found: dict[int, SchemaVersion] = {}
        expected: dict[int, int] = {}
        for name in names:
            facts = self._facts(name, *_SCHEMA)
            if facts is None:
                raise ArchiveDamaged(self.url, name, "it is missing")
            version = SchemaVersion(facts["subject"], facts["version"], facts["id"], facts["schema"])
            expected[version.version] = facts["previous"]
            if name != _schema_name(version.subject, version.version):
                raise ArchiveDamaged(self.url, name, f"it is version {version.version} of {version.subject}")
            found[version.version] = version
        for version_, previous in expected.items():
            if previous and previous not in found:
                gone = f"{folder}{previous:06d}.json"
                raise ArchiveDamaged(self.url, gone, f"it is missing; version {version_} came after it")
        return [found[number] for number in sorted(found)]

    def add_versions(self, versions: Sequence[SchemaVersion]) -> None:
        """Keep *versions* of one subject, all that the registry has. WrongArchive if one of them differs here."""
        previous = 0
        for version in versions:
            name = _schema_name(version.subject, version.version)
            facts = {
                "format": FORMAT,
                "subject": version.subject,
                "version": version.version,
                "id": version.id,
                "schema": version.schema,
                "previous": previous,
            }
            if not self.objects.create(name, seal(facts)):
                kept = self._facts(name, *_SCHEMA) or {}
                if (kept.get("id"), canonical(kept.get("schema", ""))) != (version.id, canonical(version.schema)):
                    what = f"{version.subject} version {version.version} (id {version.id})"
                    raise WrongArchive(self.url, f"it has another schema for {what} than the registry", _OTHER_SCHEMA)
            previous = version.version

    # -- chains ------------------------------------------------------------------------------

    def chain(self, place: Place, mend: bool = False) -> Chain:
        """The chain of *place*, all of it proved. *mend*: a head that is missing or behind is written anew;
        for who is about to publish."""
        head, why = self._head(place)  # before the manifests: what it knows has to be there then
        if why is not None and not mend:
            raise ArchiveDamaged(self.url, place.head, why)
        chain = Chain(place)
        names = [found.name for found in self.objects.list(place.folder)]
        seqs = sorted(int(name[-15:-5]) for name in names if is_manifest(name))
        if head is None and seqs and not mend:
            raise ArchiveDamaged(self.url, place.head, "it is missing", _MEND)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for expected, (seq, data) in enumerate(zip(seqs, pool.map(self._manifest(place), seqs), strict=True)):
                if seq != expected:
                    raise ArchiveDamaged(self.url, place.manifest(expected), "it is missing")
                self._link(chain, seq, data)
        try:
            check_head(chain, head or Head())
        except BrokenChain as broken:
            raise ArchiveDamaged(self.url, place.head, str(broken)) from None
        if chain.unnamed:
            self.refresh(chain)  # what names them may be newer than the list
        for link in chain.unnamed:
            raise ArchiveDamaged(self.url, link.name, "it was replaced, and no erasure says so")
        if mend and chain.tip is not None and (head is None or head.seq < chain.tip.seq):
            self.note(chain, -1 if head is None else head.caught_up_ms)
        return chain

    def refresh(self, chain: Chain) -> bool:
        """Add what was published since; True if something was."""
        before = len(chain.links)
        while (data := self.objects.read(chain.place.manifest(len(chain.links)))) is not None:
            self._link(chain, len(chain.links), data)
        return len(chain.links) > before

    def publish(self, chain: Chain, manifest: Manifest) -> bool:
        """Make *manifest* the next of *chain*; False if another one is that already."""
        if not self.objects.create(manifest.name, manifest.encoded()):
            return False
        chain.add(manifest)
        return True

    def note(self, chain: Chain, caught_up_ms: int) -> None:
        """Let the head point to the newest manifest of *chain*."""
        tip = chain.tip
        head = Head(caught_up_ms=caught_up_ms) if tip is None else Head(tip.seq, tip.hash, caught_up_ms)
        self.objects.put(chain.place.head, head.encoded())

    def caught_up_ms(self, place: Place) -> int:
        """When the archive last stood at the end of *place*'s log; -1 if that is not known."""
        head, _ = self._head(place)
        return -1 if head is None else head.caught_up_ms

    def _head(self, place: Place) -> tuple[Head | None, str | None]:
        data = self.objects.read(place.head)
        if data is None:
            return None, None
        try:
            return decode_head(data), None
        except BrokenChain as why:
            return None, str(why)

    def _manifest(self, place: Place) -> Any:
        return lambda seq: self.objects.read(place.manifest(seq))

    def _link(self, chain: Chain, seq: int, data: bytes | None) -> None:
        name = chain.place.manifest(seq)
        if data is None:
            raise ArchiveDamaged(self.url, name, "it is missing")
        try:
            chain.add(decode(data))
        except BrokenChain as why:
            raise ArchiveDamaged(self.url, name, str(why)) from None

    # -- segments ----------------------------------------------------------------------------

    def data(self, link: Manifest) -> bytes:
        """The data file of *link*, every byte of it proved. ArchiveDamaged, WrongKey."""
        check_key(link.file, link.key, self.key)
        data = self.objects.read(link.file)
        if data is None:
            raise ArchiveDamaged(self.url, link.file, "it is missing")
        if len(data) != link.size or sha256(data).hexdigest() != link.sha256:
            raise ArchiveDamaged(self.url, link.file, f"it was changed ({len(data)} bytes, {link.size} were written)")
        return data

    def segment(self, link: Manifest) -> pq.ParquetFile:
        """The data of *link*, to be read by :func:`segments.batches`; its schemas are there, or it is ArchiveDamaged:
        a record of one that is missing would be taken for a bad one."""
        try:
            return self._segment(link)
        except ArchiveDamaged:
            now = self._instead(link)
            if now is None:
                raise
            return self._segment(now)

    def _instead(self, link: Manifest) -> Manifest | None:
        """What took the place of *link* since it was read, if records of it were erased meanwhile."""
        data = self.objects.read(link.name)
        if data is None or sha256(data).hexdigest() == link.own_hash:
            return None
        now = self.chain(link.place).links[link.seq]
        return now if now.hash == link.hash and now.own_hash != link.own_hash else None

    def _segment(self, link: Manifest) -> pq.ParquetFile:
        import pyarrow as pa

        from .segments import decode as decode_segment
        from .segments import nothing

        if not link.file:
            return nothing()
        for subject, number in link.versions.items():
            name = _schema_name(subject, number)
            if self._facts(name, *_SCHEMA) is None:
                raise ArchiveDamaged(self.url, name, f"it is missing; {link.file} needs it")
        data = self.data(link)
        try:
            return decode_segment(data, self.key if link.key else None, link.salt)
        except (pa.ArrowException, OSError) as error:
            raise ArchiveDamaged(self.url, link.file, f"it cannot be read: {str(error).splitlines()[0]}") from error

    # -- inside ------------------------------------------------------------------------------

    def _facts(self, name: str, *expected: str) -> dict[str, Any] | None:
        """What the sealed file *name* says, which has just these facts; None if it is not there."""
        known = self._sealed.get(name)
        if known is not None:
            return known
        data = self.objects.read(name)
        if data is None:
            return None
        try:
            facts = unseal(data)
        except BrokenSeal as why:
            raise ArchiveDamaged(self.url, name, str(why)) from None
        if facts.get("format") != FORMAT:
            raise WrongArchive(self.url, f"{name} has format {facts.get('format')!r}, this version reads {FORMAT}")
        if facts.keys() != {"format", *expected}:
            raise ArchiveDamaged(self.url, name, "it is another file's content")
        self._sealed[name] = facts
        return facts


_NO_CREATE = "use a store that honours If-None-Match: * on PUT (S3, MinIO, R2, Ceph, GCS, Azure, local files)"
_OTHER_SCHEMA = "the registry was rebuilt, or a version deleted and made anew: archive into another URL"
_MEND = "`merganser archive run` writes it anew; without it, a manifest that is missing at the end goes unnoticed"


def table_name(topic: str, topic_id: str) -> str:
    return f"tables/{topic_folder(topic, topic_id)}/table.json"


def _schema_name(subject: str, number: int) -> str:
    return f"schemas/{subject}/{number:06d}.json"


def open_archive(url: str, key_file: str | Path | None = None) -> Archive:
    """The archive at *url* that must be there: WrongArchive if there is none."""
    archive = Archive(url, key_file)
    if archive.cluster_id() is None:
        raise WrongArchive(archive.url, "there is no archive", "`merganser archive run` makes one; check the URL")
    return archive
