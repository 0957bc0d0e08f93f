"""Erasing a key's records out of the chain of one partition.

A segment that has some is written anew, under the name of what is in it now; so is its manifest, beside the one that
is there. Then a further link is published, by create-if-absent as any: the *erasure*. It names the hashes of the new
manifests, and from then on these are the ones that count: each takes its old one's place, and the old data goes.

Invariants
- Until the erasure is there, nothing has changed; after it, who comes next carries it out, whoever that is.
- An archiver that publishes meanwhile is seen: the erasure has its number, or it has the erasure's, and then the
  chain is looked at again. No archiver is stopped, none has to know.
- At each moment each manifest that is there names data that is there.
- What no manifest names, and begins below the erasure, is removed: an archiver that was overtaken put it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.checks import Seen
from ...schemas.headers import BadHeader, Erased, Marks, decode, encode
from ..archive import chain as chains
from ..archive.archive import Archive
from ..archive.chain import Chain, Manifest, Place
from ..archive.key import new_salt
from ..archive.segments import batches, headers_at, last_of, without
from ..archive.segments import encode as encode_segment
from .keyed import TheKey
from .plan import Hit, Redaction, changing, redacted, redaction, telling

#: The steps of erasing in a chain, in order; tests stop the process at each.
STEPS = ("data-put", "staged", "published", "replaced", "data-removed", "unstaged", "swept")


@dataclass
class Partition:
    """One partition in which a key is erased. *hits* are the records of it, by the number of their links."""

    archive: Archive
    chain: Chain
    key: TheKey
    step: Callable[[str], None] = lambda step: None
    hits: dict[int, list[Hit]] = field(default_factory=dict)
    stand_ins: dict[int, Erased] = field(default_factory=dict)
    """What stands in for records that were erased before, by offset."""
    _looked: dict[int, str] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        return self.chain.place

    @property
    def found(self) -> list[Hit]:
        """All records of the key, in order."""
        return [hit for seq in sorted(self.hits) for hit in self.hits[seq]]

    # -- looking -----------------------------------------------------------------------------

    def look(self, tell: Callable[[int], None] = lambda size: None) -> None:
        """Find the records of the key in what was not looked at yet. *tell* hears of the bytes that were read."""
        for link in self.chain.links:
            if self._looked.get(link.seq) == link.own_hash:
                continue
            self.hits.pop(link.seq, None)
            if found := self._hits(link):
                self.hits[link.seq] = found
            self._looked[link.seq] = link.own_hash
            tell(link.size)

    def _hits(self, link: Manifest) -> list[Hit]:
        found: list[Hit] = []
        for batch in batches(self.archive.segment(link)) if link.rows else ():
            if link.was:
                self.stand_ins |= _stand_ins(batch)
            mine = self.key.among(batch["key"])
            keys, values = ([batch[name][i].as_py() for i in mine] for name in ("key", "value"))
            bad = self.key.bad(keys, values)
            for n, i in enumerate(mine):
                marks, readable = _marks(headers_at(batch, i))
                found.append(Hit(batch["offset"][i].as_py(), values[n] is None, marks, n in bad or not readable))
        return found

    # -- erasing -----------------------------------------------------------------------------

    def erase(self, name: str, at: str, rejected: Sequence[int]) -> bool:
        """Publish the erasure of all that was found; False if the chain has gone on: look again."""
        changed = self._staged(name, rejected)
        told = telling(name, at, self.found, changed)
        end = self.chain.end
        made = Manifest(*self.place, seq=0, first=end, next=end, erasure=told.facts())
        if not self.archive.publish(self.chain, self.chain.following(made)):
            self.archive.refresh(self.chain)
            return False
        self.step("published")
        return True

    def _staged(self, name: str, rejected: Sequence[int]) -> list[Manifest]:
        """The new manifests of the links that change; they, and their data, are there then."""
        links, made = self.chain.links, []
        changes = {link.seq for link in changing(links, self.hits)}
        last = chains.last_before(links, min(changes))
        for link in links[min(changes) :]:
            if link.seq not in changes:
                last = last if link.erasure else link.last
                continue
            wanted = redaction(self.hits.get(link.seq, ()), name, rejected)
            data, found = self._written(link, wanted) if link.seq in self.hits else (None, None)
            last = found or last
            made.append(redacted(link, data, last, len(wanted.gone)))
            self.archive.objects.put(self.place.staged(link.seq, made[-1].own_hash), made[-1].encoded())
            self.step("staged")
        return made

    def _written(self, link: Manifest, wanted: Redaction) -> tuple[Manifest | None, Seen | None]:
        """What *link* says of its data once it is written anew, if any is left; and the last record in it."""
        headers = {offset: encode(marks) for offset, marks in wanted.stand_ins.items()}
        kept, last = [], None
        for batch in batches(self.archive.segment(link)):
            batch = without(batch, wanted.gone, headers)
            if batch.num_rows:
                kept.append(batch)
                last = last_of(batch) or last
        if not kept:
            return None, None
        key = self.archive.key
        salt = new_salt() if key is not None else ""
        facts = {"topic": self.place.topic, "topic_id": self.place.topic_id, "partition": str(self.place.partition)}
        data = encode_segment(kept, facts, key, salt)
        digest = sha256(data).hexdigest()
        times = [batch["timestamp_ms"].to_numpy() for batch in kept]
        made = replace(
            link,
            rows=sum(batch.num_rows for batch in kept),
            raw=sum(batch.nbytes for batch in kept),
            file=self.place.data(link.first, link.next, digest),
            size=len(data),
            sha256=digest,
            min_ms=int(min(each.min() for each in times)),
            max_ms=int(max(each.max() for each in times)),
            key=key.id if key is not None else "",
            salt=salt,
        )
        self.archive.objects.create(made.file, data)
        self.step("data-put")
        return made, last

    # -- carrying out what is published --------------------------------------------------------

    def finish(self, still_alone: Callable[[], None] = lambda: None) -> None:
        """Put in place what erasures of the chain name, this one's or an earlier one's, and remove what that leaves."""
        objects = self.archive.objects
        if self.chain.unfinished:
            self.archive.note(self.chain, self.archive.caught_up_ms(self.place))
        for seq, hash_ in self.chain.unfinished.items():
            staged = self.place.staged(seq, hash_)
            data = objects.read(staged)
            if data is None or sha256(data).hexdigest() != hash_:
                continue  # `check` tells; the next erasure of the key makes it anew
            old, new = self.chain.links[seq], chains.decode(data)
            if new.file and sha256(objects.read(new.file) or b"").hexdigest() != new.sha256:
                continue  # a sweep may have taken it; what is there now is all that there is of the others' records
            still_alone()
            objects.put(new.name, data)
            self.step("replaced")
            self.chain.put(new)
            if old.file and old.file != new.file:
                objects.delete(old.file)
            self.step("data-removed")
            objects.delete(staged)
            self.step("unstaged")
        self._sweep()

    def _sweep(self) -> None:
        """Remove what runs have left that were killed, or overtaken: it may hold what was erased."""
        if not any(link.erasure for link in self.chain.links):
            return
        named = {link.file for link in self.chain.links}
        named |= {self.place.staged(seq, hash_) for seq, hash_ in self.chain.unfinished.items()}
        for found in list(self.archive.objects.list(self.place.folder)):
            over = chains.is_staged(found.name) or chains.overtaken(found.name, self.chain.end)
            if over and found.name not in named:
                self.archive.objects.delete(found.name)
                self.step("swept")


def _stand_ins(batch: pa.RecordBatch) -> dict[int, Erased]:
    found: dict[int, Erased] = {}
    for i in pc.indices_nonzero(pc.is_null(batch["key"])).to_pylist():
        marks, _ = _marks(headers_at(batch, i))
        if marks is not None and marks.erased is not None:
            found[batch["offset"][i].as_py()] = marks.erased
    return found


def _marks(headers: list[tuple[str, bytes | None]]) -> tuple[Marks | None, bool]:
    """What *headers* say, and whether they can be read."""
    try:
        return decode(headers), True
    except BadHeader:
        return None, False
