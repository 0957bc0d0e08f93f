"""The chain of manifests of one partition: which offsets the archive covers, and in which files. Pure.

Invariants (FAILURES 31)
- Each manifest begins where the one before ended, carries that one's hash, and is the only one of its number:
  a chain has neither a gap nor an overlap, and nobody can exchange a link.
- What a chain covers is accounted for: rows in a data file, offsets without a record, offsets of records that
  were *erased*, or offsets that are said to be *lost*, since the log had dropped them before they were read.
- A link is replaced by one way alone: a later link, an *erasure*, has named the bytes that take its place. For the
  chain it keeps the hash that it had.
- A manifest is published by creating the file of the next number. Data files are put before, so what a manifest
  names is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from ...consumers.checks import Seen
from ...schemas.headers import kafkas_spelling
from ...schemas.position import TopicPartition
from .objects import finished
from .sealed import BrokenSeal, seal, unseal

FORMAT = 1

_HEX = re.compile(r"[0-9a-f]*")


class BrokenChain(ValueError):
    """A manifest that is not what follows, or that is not itself; ``str`` says why."""


def topic_folder(topic: str, topic_id: str) -> str:
    """``name/id``, the id as Kafka spells it."""
    return f"{topic}/{kafkas_spelling(topic_id)}"


#: What the files of a partition are called (:class:`Place`).
_DATA = re.compile(r"(\d+)-\d+-[0-9a-f]{16}\.parquet")
_STAGED = re.compile(r"\d{10}-[0-9a-f]{16}\.json")
_MANIFEST = re.compile(r"\d{10}\.json")


def is_manifest(name: str) -> bool:
    return _MANIFEST.fullmatch(_last(name)) is not None


def is_staged(name: str) -> bool:
    return _STAGED.fullmatch(_last(name)) is not None


def is_data(name: str) -> bool:
    return _DATA.fullmatch(_last(name)) is not None


def overtaken(name: str, end: int) -> bool:
    """Whether *name* is data, whole or half written, of offsets below *end*: the chain has gone on to there, so that
    no manifest can come to name it."""
    data = _DATA.fullmatch(finished(_last(name)))
    return data is not None and int(data[1]) < end


def _last(name: str) -> str:
    return name.rpartition("/")[2]


class Place(NamedTuple):
    """Where one partition of one topic lies in an archive."""

    topic: str
    topic_id: str
    partition: int

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    @property
    def folder(self) -> str:
        return f"log/{topic_folder(self.topic, self.topic_id)}/{self.partition}"

    @property
    def head(self) -> str:
        """The hint to the newest manifest. It may lag, and then leads to an older one."""
        return f"{self.folder}/head.json"

    def manifest(self, seq: int) -> str:
        return f"{self.folder}/{seq:010d}.json"

    def staged(self, seq: int, hash_: str) -> str:
        """What is to take the place of manifest *seq*, once an erasure says so."""
        return f"{self.folder}/{seq:010d}-{hash_[:16]}.json"

    def data(self, first: int, next_: int, sha256_hex: str) -> str:
        return f"{self.folder}/{first}-{next_}-{sha256_hex[:16]}.parquet"


@dataclass(frozen=True)
class Manifest:
    """One link: offsets from *first* up to, not including, *next*.

    *rows* records are in the data file *file* (its whole name, ``""`` without records) of *size* bytes with
    that *sha256*; *raw* is the size of their keys, values and headers. *newest_ms* is the highest timestamp
    of this and all links before. *versions* are the highest schema versions that may be met. *last_* tell the
    last record of this and all links before. *lost* offsets were gone from the log before they were read.
    *key* is the id of the key that the data is encrypted with, if it is, and *salt* its own part of it.

    *erased* records of it were erased, and *was* is the hash that it had before the first of them was. A link with
    an *erasure* covers no offsets: it tells of one (:class:`Erasure`), and of no last record, which may be the next to
    go. These three are in the file only if they are said: an archive of which nothing was erased is as it always was.
    """

    topic: str
    topic_id: str
    partition: int
    seq: int
    first: int
    next: int
    rows: int = 0
    raw: int = 0
    file: str = ""
    size: int = 0
    sha256: str = ""
    min_ms: int = -1
    max_ms: int = -1
    newest_ms: int = -1
    last_offset: int = -1
    last_digest: str = ""
    last_epoch: int = -1
    versions: Mapping[str, int] = field(default_factory=dict)
    lost: bool = False
    key: str = ""
    salt: str = ""
    previous: str = ""
    erased: int = 0
    was: str = ""
    erasure: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def place(self) -> Place:
        return Place(self.topic, self.topic_id, self.partition)

    @property
    def name(self) -> str:
        return self.place.manifest(self.seq)

    @property
    def last(self) -> Seen | None:
        """The last record that the chain holds up to here, as a replica remembers it."""
        if self.last_offset < 0:
            return None
        return Seen(
            self.last_offset, bytes.fromhex(self.last_digest), self.last_epoch if self.last_epoch >= 0 else None
        )

    @property
    def told(self) -> Erasure | None:
        """The erasure that it tells of, if it does."""
        return Erasure(**self.erasure) if self.erasure else None

    def encoded(self) -> bytes:
        facts = {name: getattr(self, name) for name in _TYPES}
        return seal({name: fact for name, fact in facts.items() if fact or name not in _SELDOM})

    @property
    def hash(self) -> str:
        """By which the next link names it, whatever took its place."""
        return self.was or self.own_hash

    @cached_property
    def own_hash(self) -> str:
        """Of the bytes that it has now."""
        return sha256(self.encoded()).hexdigest()


@dataclass(frozen=True)
class Erasure:
    """That *records* of one key were erased, *at* that time (UTC), *stand_ins* of them leaving something that takes
    their place. *links* are those that changed: by number, the hash of the bytes that each has since. *id* tells
    this erasure from others. Nothing tells of which key it was.
    """

    id: str
    at: str
    records: int
    stand_ins: int
    links: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "links": dict(self.links)}


_SELDOM = ("erased", "was", "erasure")
_TYPES = {f.name: {"str": str, "int": int, "bool": bool}.get(str(f.type), dict) for f in fields(Manifest)}


def decode(data: bytes) -> Manifest:
    """The manifest in *data*; BrokenChain if it is none, or was changed."""
    try:
        facts = unseal(data)
    except BrokenSeal as why:
        raise BrokenChain(str(why)) from None
    if facts.get("format") != FORMAT:
        raise BrokenChain(f"it has format {facts.get('format')!r}, this version reads {FORMAT}")
    said = {name: kind for name, kind in _TYPES.items() if name in facts or name not in _SELDOM}
    if facts.keys() != said.keys() or any(type(facts[name]) is not kind for name, kind in said.items()):
        raise BrokenChain("it has not the facts of a manifest")
    if not all(facts.get(name, True) for name in _SELDOM):
        raise BrokenChain("it says what is to be left out")
    made = Manifest(**facts)
    if why_not := _unsound(made) or _untold(made):
        raise BrokenChain(why_not)
    made.__dict__["own_hash"] = sha256(data).hexdigest()  # these very bytes are what it encodes to
    return made


def _unsound(made: Manifest) -> str | None:
    """What cannot be true of *made*, whatever came before it."""
    empty = made.first == made.next and not made.lost and not made.erasure
    if made.seq < 0 or not 0 <= made.first <= made.next or empty:
        return f"it covers no offsets: {made.first} to {made.next}"
    if made.erased < 0 or not 0 <= made.rows + made.erased <= made.next - made.first or made.rows < 0:
        return f"{made.rows} rows, and {made.erased} erased, cannot be in {made.next - made.first} offsets"
    if bool(made.rows) != bool(made.file) or (made.lost and made.rows):
        return f"{made.rows} rows cannot be in {made.next - made.first} offsets of {made.file or 'no file'}"
    if made.file and made.file != made.place.data(made.first, made.next, made.sha256):
        return f"its file {made.file} is not named for what it holds"
    if not (
        _HEX.fullmatch(made.was)
        and _HEX.fullmatch(made.sha256)
        and _HEX.fullmatch(made.last_digest)
        and len(made.last_digest) % 2 == 0
    ):
        return "its hashes are none"
    return None


def _untold(made: Manifest) -> str | None:
    """Why *made* does not tell of an erasure as one does; None if it tells of none, or as it should."""
    if (made.erased or made.erasure) and made.lost:
        return "nothing can be erased of what was lost"
    if made.erased and not made.was:
        return "records of it were erased, and it took no other's place"
    if not made.erasure:
        return None
    facts, kinds = made.erasure, {"id": str, "at": str, "records": int, "stand_ins": int, "links": dict}
    if facts.keys() != kinds.keys() or any(type(facts[name]) is not kind for name, kind in kinds.items()):
        return "it has not the facts of an erasure"
    if made.first != made.next or made.rows or made.was or made.last is not None:
        return "an erasure covers no offsets, remembers no record, and stays"
    named = [(int(seq), hash_) for seq, hash_ in facts["links"].items() if seq.isdecimal() and type(hash_) is str]
    sound = all(seq < made.seq and len(hash_) == 64 and _HEX.fullmatch(hash_) for seq, hash_ in named)
    return None if sound and len(named) == len(facts["links"]) > 0 else "it names links that it cannot"


def follows(before: Manifest | None, manifest: Manifest) -> None:
    """BrokenChain unless *manifest* is what may come after *before* (None: it is the first)."""
    seq = 0 if before is None else before.seq + 1
    if manifest.seq != seq:
        raise BrokenChain(f"it is number {manifest.seq}, not {seq}")
    if manifest.previous != ("" if before is None else before.hash):
        raise BrokenChain("the manifest before it is not the one that it was made after")
    if before is None:
        return
    if manifest.place != before.place:
        raise BrokenChain(f"it is of {manifest.place.folder}")
    if manifest.first != before.next:
        raise BrokenChain(f"it begins at offset {manifest.first}, the one before ends at {before.next}")
    forgets = manifest.last_offset < before.last_offset and not manifest.erasure
    if manifest.newest_ms < before.newest_ms or forgets:
        raise BrokenChain("it knows less than the one before")


class Chain:
    """The manifests of one partition from the first to the newest, each proved against the one before."""

    def __init__(self, place: Place, links: Sequence[Manifest] = ()) -> None:
        self.place = place
        self._links: list[Manifest] = []
        self._erasures: list[Manifest] = []
        for link in links:
            self.add(link)

    def add(self, link: Manifest) -> None:
        """Take the next manifest in; BrokenChain if it is not the next of this chain."""
        if link.place != self.place:
            raise BrokenChain(f"it is of {link.place.folder}")
        follows(self.tip, link)
        self._links.append(link)
        if link.erasure:
            self._erasures.append(link)

    def put(self, link: Manifest) -> None:
        """Let *link* take the place of the one of its number; BrokenChain if an erasure does not say so."""
        there = self._links[link.seq] if link.seq < len(self._links) else None
        if there is None or (link.place, link.hash) != (there.place, there.hash) or not self._named(link):
            raise BrokenChain("no erasure names it")
        self._links[link.seq] = link

    @property
    def links(self) -> Sequence[Manifest]:
        return self._links

    @property
    def unnamed(self) -> list[Manifest]:
        """The links that took another's place, and no erasure says so."""
        return unnamed(self._links)

    def _named(self, link: Manifest) -> bool:
        return any(each.erasure["links"].get(str(link.seq)) == link.own_hash for each in self._erasures)

    @property
    def unfinished(self) -> dict[int, str]:
        """The hash of what is to take the place of links that are still there as they were, by number."""
        return unfinished(self._links)

    @property
    def tip(self) -> Manifest | None:
        return self._links[-1] if self._links else None

    @property
    def last(self) -> Seen | None:
        """The last record that the chain holds, as a replica remembers it."""
        return last_before(self._links, len(self._links))

    @property
    def start(self) -> int | None:
        """The first offset that is covered; None if nothing is."""
        return self._links[0].first if self._links else None

    @property
    def end(self) -> int:
        """The first offset after what is covered."""
        return self._links[-1].next if self._links else 0

    @property
    def whole_from(self) -> int:
        """From here to the end nothing is lost."""
        return next((link.next for link in reversed(self._links) if link.lost), self.start or 0)

    def at(self, offset: int) -> int:
        """The index of the first link that covers *offset*, or has to do with what comes from there on;
        ``len(links)`` if none does."""
        low, high = 0, len(self._links)
        while low < high:
            middle = (low + high) // 2
            if self._links[middle].next > offset:
                high = middle
            else:
                low = middle + 1
        found = low
        while low and self._links[low - 1].first == self._links[low - 1].next == offset:
            low -= 1
            found = low if self._links[low].lost else found  # lost deletes cover no offset; nor do erasures
        return found

    def since(self, time_ms: int) -> int:
        """The index of the first link with a record of *time_ms* or later; ``len(links)`` if none has."""
        low, high = 0, len(self._links)
        while low < high:
            middle = (low + high) // 2
            if self._links[middle].newest_ms >= time_ms:
                high = middle
            else:
                low = middle + 1
        return low

    def following(self, made: Manifest) -> Manifest:
        """*made*, with number, previous hash and running facts of what comes next in this chain."""
        tip = self.tip
        made = replace(made, seq=0 if tip is None else tip.seq + 1, previous="" if tip is None else tip.hash)
        if tip is None:
            return replace(made, newest_ms=made.max_ms)
        made = replace(made, newest_ms=max(made.max_ms, tip.newest_ms))
        return made if made.last is not None or made.erasure else remembering(made, self.last)


def last_before(links: Sequence[Manifest], seq: int) -> Seen | None:
    """The last record that *links* hold before number *seq*. Erasures do not tell."""
    return next((link.last for link in reversed(links[:seq]) if not link.erasure), None)


def remembering(link: Manifest, last: Seen | None) -> Manifest:
    """*link*, with *last* for the last record up to there."""
    if last is None:
        return replace(link, last_offset=-1, last_digest="", last_epoch=-1)
    epoch = -1 if last.leader_epoch is None else last.leader_epoch
    return replace(link, last_offset=last.offset, last_digest=last.digest.hex(), last_epoch=epoch)


def unnamed(links: Iterable[Manifest]) -> list[Manifest]:
    """Those of *links* that took another's place, and no erasure among them says so."""
    ordered = list(links)
    named = {(int(seq), hash_) for link in ordered if link.told for seq, hash_ in link.told.links.items()}
    return [link for link in ordered if link.was and (link.seq, link.own_hash) not in named]


def unfinished(links: Iterable[Manifest]) -> dict[int, str]:
    """Of *links* that erasures among them name, and that have not the bytes which the newest of these says: the
    hash of those bytes, by number."""
    ordered = list(links)
    newest = {int(seq): hash_ for link in ordered if link.told for seq, hash_ in link.told.links.items()}
    return {link.seq: newest[link.seq] for link in ordered if newest.get(link.seq, link.own_hash) != link.own_hash}


@dataclass(frozen=True)
class Head:
    """What ``head.json`` says: the newest manifest that its writer knew of, ``-1`` before the first. *caught_up_ms*
    is when the archive last stood at the end of the log, by its writer's clock; kept up for compacted topics."""

    seq: int = -1
    hash: str = ""
    caught_up_ms: int = -1

    def encoded(self) -> bytes:
        return seal({"format": FORMAT, **asdict(self)})


def decode_head(data: bytes) -> Head:
    """The head in *data*; BrokenChain if it is none, or was changed."""
    try:
        facts: dict[str, Any] = unseal(data)
    except BrokenSeal as why:
        raise BrokenChain(str(why)) from None
    types = {"format": int, "seq": int, "hash": str, "caught_up_ms": int}
    if facts.keys() != types.keys() or any(type(facts[name]) is not kind for name, kind in types.items()):
        raise BrokenChain("it has not the facts of a head")
    return Head(facts["seq"], facts["hash"], facts["caught_up_ms"])


def check_head(chain: Chain, head: Head) -> None:
    """BrokenChain if *head*, read before the chain was, knows what the chain has not."""
    if head.seq >= len(chain.links):
        raise BrokenChain(f"it names manifest {head.seq}, and the chain ends with {len(chain.links) - 1}")
    if head.seq >= 0 and chain.links[head.seq].hash != head.hash:
        raise BrokenChain(f"it names another manifest {head.seq} than the chain has")
