"""Publishing one closed segment: schemas, data, manifest, head, in this order. The archiver's worker.

Invariants
- The manifest's creation is the one step that counts (FAILURES 14). Before it nothing can be seen of the
  segment; after it all of it is there. Who is stopped anywhere and goes on later finds that number taken.
- A segment is published only if its topic was found to be the same one after its last record was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from ...consumers.checks import Seen, still_there, vanished
from ...consumers.log import Log
from ...schemas.errors import TopicRecreated
from ...schemas.position import TopicPartition
from ...schemas.table import Table, key_subject, value_subject
from .archive import Archive
from .chain import Chain, Manifest
from .key import new_salt
from .rolling import OpenSegment
from .segments import encode

#: The steps of publishing, in order; tests stop the process at each.
STEPS = ("begun", "described", "encoded", "data-put", "published", "noted")


@dataclass
class Course:
    """One partition on its way into the archive: the chain, and what is collected to follow it."""

    table: Table
    chain: Chain
    caught_up_ms: int
    open: OpenSegment
    start: int = 0
    """Where the archive begins, if it has nothing yet."""
    unproven: bool = False
    """The log has not shown the chain's last record yet."""

    @property
    def tp(self) -> TopicPartition:
        return self.chain.place.tp

    @property
    def end(self) -> int:
        """All below is archived, or was gone from the log before its archive began."""
        return self.chain.end if self.chain.tip is not None else self.start

    @property
    def read_from(self) -> int:
        """The offset to read on from: that of the last record archived, if that is unproven."""
        last = self.chain.last
        return last.offset if self.unproven and last is not None else self.open.next

    def prove(self, seen: Seen | None) -> None:
        """*seen* is the first record that the log shows from the last archived one on; None if it shows none.
        LogTruncated if that is another past than the archive's."""
        self.unproven = False
        last = self.chain.last
        if last is not None and seen is None:
            vanished(self.table, self.tp, last)
        elif last is not None and seen is not None:
            still_there(self.table, self.tp, last, seen)

    def restart(self) -> None:
        """Forget what was collected: the chain says where to go on."""
        self.open = OpenSegment(self.end, framed_keys=self.open.framed_keys)


class Publisher:
    """Used by one thread at a time."""

    def __init__(self, log: Log, archive: Archive, on_step: Callable[[str], None]) -> None:
        self._log, self._archive, self._step = log, archive, on_step
        self._known: dict[str, dict[bytes, int]] = {}  # by topic: schema ids, as records have them, to versions
        self._versions: dict[str, dict[str, int]] = {}

    def describe(self, topic: str) -> None:
        """Put every version of the topic's schemas into the archive."""
        known: dict[bytes, int] = {}
        highest: dict[str, int] = {}
        for subject in (value_subject(topic), key_subject(topic)):
            versions = self._log.versions(subject)
            self._archive.add_versions(versions)
            known |= {b"\0" + v.id.to_bytes(4, "big"): v.version for v in versions}
            if versions:
                highest[subject] = versions[-1].version
        self._known[topic], self._versions[topic] = known, highest

    def publish(self, course: Course, segment: OpenSegment) -> bool:
        """Make *segment* the next of the chain; False if the chain has gone on without it. TopicRecreated.

        Whatever else it raises leaves open whether it is published: the chain knows.
        """
        self._step("begun")
        place, chain = course.chain.place, course.chain
        self._archive.refresh(chain)
        if chain.tip is not None and chain.end != segment.first:
            return False  # or it is there already, from a try that was not answered: the chain says where to go on
        self._check_topic(course)
        if segment.ids - self._known.get(place.topic, {}).keys():
            self.describe(place.topic)
        self._step("described")
        manifest, data = self._encoded(course, segment)
        self._step("encoded")
        if data:
            self._archive.objects.create(manifest.file, data)
        self._step("data-put")
        if not self._archive.publish(chain, manifest):
            self._take_back(chain, manifest)
            return False
        self._step("published")
        self._archive.note(chain, course.caught_up_ms)
        self._step("noted")
        return True

    def _take_back(self, chain: Chain, lost: Manifest) -> None:
        """Remove the data of a segment that another one was before: it may hold records that were erased since. Its
        chain has gone on, so nobody can come to name it."""
        self._archive.refresh(chain)
        there = {link.file for link in chain.links[chain.at(lost.first) :]}
        if lost.file and chain.end > lost.first and lost.file not in there:
            self._archive.objects.delete(lost.file)

    def _check_topic(self, course: Course) -> None:
        table = course.table
        found = self._log.identify([table.name]).get(table.name)
        if found is None or found.topic_id != table.topic_id:
            why = "the topic was deleted" if found is None else f"the topic was created again (id {found.topic_id})"
            raise TopicRecreated(table.name, why)

    def _encoded(self, course: Course, segment: OpenSegment) -> tuple[Manifest, bytes]:
        place, key = course.chain.place, self._archive.key
        made = Manifest(
            place.topic,
            place.topic_id,
            place.partition,
            seq=0,
            first=segment.first,
            next=segment.next,
            versions=self._versions.get(place.topic, {}),
        )
        if not segment.rows:
            return course.chain.following(made), b""
        salt = new_salt() if key is not None else ""
        facts = {"topic": place.topic, "topic_id": place.topic_id, "partition": str(place.partition)}
        data = encode(segment.batches, facts, key, salt)
        digest, last = sha256(data).hexdigest(), segment.last
        assert last is not None  # a segment with rows has seen one
        made = replace(
            made,
            rows=segment.rows,
            raw=segment.raw,
            file=place.data(segment.first, segment.next, digest),
            size=len(data),
            sha256=digest,
            min_ms=segment.min_ms,
            max_ms=segment.max_ms,
            last_offset=last.offset,
            last_digest=last.digest.hex(),
            last_epoch=-1 if last.leader_epoch is None else last.leader_epoch,
            key=key.id if key is not None else "",
            salt=salt,
        )
        return course.chain.following(made), data


def lost(course: Course, until: int) -> Manifest:
    """A link that says: offsets up to *until* were gone from the log before they were read."""
    place = course.chain.place
    end = course.chain.end
    made = Manifest(place.topic, place.topic_id, place.partition, seq=0, first=end, next=until, lost=True)
    return course.chain.following(made)
