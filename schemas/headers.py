"""Headers of a record: what the writer says of it beside key and value.

| header | on | text |
|---|---|---|
| ``merganser-tx`` | each record of a transaction | ``ID``; on its first record in each partition ``ID MANIFEST`` |
| ``merganser-if`` | a conditional write | ``absent``, ``present`` or ``version:OFFSET`` |
| ``merganser-op`` | a write that may be repeated | the operation id; a record may have several |
| ``merganser-resolve`` | a decision on the torn transaction ``merganser-tx``, no row | ``apply`` or ``discard`` |
| ``merganser-schema`` | a record that was published again, of a table that had a newer schema by then | that one's id |
| ``merganser-origin`` | a record that was published again | ``CLUSTER TOPIC_ID TOPIC/PARTITION@OFFSET`` |
| ``merganser-erased`` | what stands in for an erased record, no row; in archives only | ``ID``, or ``ID rejected`` |
| ``merganser-unreadable`` | a record whose headers Kafka's client cannot read; in archives only | why |

A manifest is the number of records that the transaction has in each partition it writes to, of every
topic, in a Position's text form: ``orders/0:3,stock/1:1``. All text is UTF-8, and so to be read with
any Kafka tool.

``ID MANIFEST guarded`` says besides that some record of the transaction has a condition or an operation id.

An origin is the record that this one repeats: the cluster's id, the topic's id, and the record's own offset (not
the next one). It is information only: no replica decides anything by it, and what is no origin spoils no record.

A record that was erased from an archive leaves a stand-in where others depend on it: its transaction counts it, or its
operation id has to be known. It has no key and no value. Stand-ins of one ID were of one key, and nothing tells which;
``rejected`` says that the record's transaction, or the record itself, had been rejected.

Names are UTF-8 text by Kafka's protocol, which no broker checks. The client fails on others, and tells none of the
headers beside; what these said of the record is not known, so it is no row. :data:`UNREAD` stands for them.

Invariant: what :func:`encode` wrote, :func:`decode` reads back equal; other text under these names is
:class:`BadHeader`, never half understood. The same holds of ``str(Origin)`` and :meth:`Origin.parse`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import BadPosition
from .position import Position, TopicPartition

TX = "merganser-tx"
IF = "merganser-if"
OP = "merganser-op"
RESOLVE = "merganser-resolve"
SCHEMA = "merganser-schema"
ORIGIN = "merganser-origin"
ERASED = "merganser-erased"
UNREADABLE = "merganser-unreadable"

#: Those that say what a record means.
_OURS = (TX, IF, OP, RESOLVE, SCHEMA, ERASED, UNREADABLE)

Resolution = Literal["apply", "discard"]

#: As Kafka clients have them. Names may come again, values may be missing.
Headers = Sequence[tuple[str, bytes | str | None]]

#: In place of those that cannot be read.
UNREAD: Headers = [(UNREADABLE, b"a name is no UTF-8")]

#: How many records a transaction has, by partition.
Manifest = Mapping[TopicPartition, int]

#: The longest operation or transaction id, in bytes.
MAX_ID = 200


class BadHeader(ValueError):
    """One of our headers holds what no Merganser producer writes; ``str`` says which, and why."""


class Condition(NamedTuple):
    """What must hold of the row with the record's key, for the write to be taken."""

    kind: Literal["absent", "present", "version"]
    version: int = -1
    """The row's ``_offset``, for ``version``."""

    def __str__(self) -> str:
        return f"version:{self.version}" if self.kind == "version" else self.kind


class Erased(NamedTuple):
    """What stands in for a record: of which key, by a name that tells nothing of it, and whether it was rejected."""

    key: str
    rejected: bool = False

    def __str__(self) -> str:
        return f"{self.key}{' rejected' * self.rejected}"


@dataclass(frozen=True)
class Marks:
    """What the headers of one record say."""

    tx: str | None = None
    manifest: Manifest | None = None
    condition: Condition | None = None
    ops: tuple[str, ...] = ()
    resolution: Resolution | None = None
    guarded: bool = False
    """Beside a manifest: some record of the transaction has a condition or an operation id."""
    schema: int | None = None
    """A schema that counts as met here, as if the record's value were of it: its columns are there from now on."""
    erased: Erased | None = None
    """The record stands in for one that was erased."""

    @property
    def no_row(self) -> bool:
        """True of what is neither a row nor the delete of one: a gap, as Kafka's own control records are."""
        return self.resolution is not None or self.erased is not None


#: A cluster's id is any visible ASCII, a topic's id a UUID in Kafka's letters; numbers have one spelling.
_ERASED = re.compile(r"([0-9a-f]{16})( rejected)?")
_NUMBER = "(0|[1-9][0-9]{0,17})"
_ORIGIN = re.compile(rf"([!-~]{{1,200}}) ([0-9A-Za-z_-]{{1,64}}) ([0-9A-Za-z._-]{{1,249}})/{_NUMBER}@{_NUMBER}")


def kafkas_spelling(topic_id: str) -> str:
    """Clients spell topic ids in base64 with ``/`` and ``+``; Kafka itself as in URLs."""
    return topic_id.replace("/", "_").replace("+", "-")


class Origin(NamedTuple):
    """Where the record that another repeats lies. ``str`` gives the header's text, the only one that it has."""

    cluster_id: str
    topic_id: str
    partition: TopicPartition
    offset: int

    def __str__(self) -> str:
        return f"{self.cluster_id} {self.topic_id} {self.partition}@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The origin that *text* spells; BadHeader if it spells none."""
        found = _ORIGIN.fullmatch(text)
        if found is None:
            raise BadHeader(f"header {ORIGIN} is none of CLUSTER TOPIC_ID TOPIC/PARTITION@OFFSET but {text[:80]!r}")
        cluster_id, topic_id, topic, partition, offset = found.groups()
        return cls(cluster_id, topic_id, TopicPartition(topic, int(partition)), int(offset))

    @classmethod
    def of(cls, cluster_id: str, topic_id: str, partition: TopicPartition, offset: int) -> Origin:
        """With the topic's id as Kafka spells it, however the client does."""
        return cls(cluster_id, kafkas_spelling(topic_id), partition, offset)

    @property
    def header(self) -> tuple[str, bytes]:
        """As a record carries it."""
        return ORIGIN, str(self).encode()


def origin(headers: Headers) -> Origin | None:
    """The origin that *headers* name; None if they name none. BadHeader if they name two, or what is none."""
    named = [value for name, value in headers if name == ORIGIN]
    if len(named) > 1:
        raise BadHeader(f"header {ORIGIN} comes {len(named)} times")
    return Origin.parse(_text(ORIGIN, named[0])) if named else None


def encode(marks: Marks) -> list[tuple[str, bytes]]:
    """The headers that say *marks*."""
    headers: list[tuple[str, bytes]] = []
    if marks.tx is not None:
        counts = f" {Position(marks.manifest)}{' guarded' * marks.guarded}" if marks.manifest else ""
        headers.append((TX, f"{marks.tx}{counts}".encode()))
    if marks.condition is not None:
        headers.append((IF, str(marks.condition).encode()))
    headers += [(OP, op.encode()) for op in marks.ops]
    if marks.resolution is not None:
        headers.append((RESOLVE, marks.resolution.encode()))
    if marks.schema is not None:
        headers.append((SCHEMA, str(marks.schema).encode()))
    if marks.erased is not None:
        headers.append((ERASED, str(marks.erased).encode()))
    return headers


def decode(headers: Headers) -> Marks | None:
    """What *headers* say; None if none of them is ours."""
    ours = [(name, value) for name, value in headers if name in _OURS]
    if not ours:
        return None
    texts: dict[str, list[str]] = {name: [] for name in _OURS}
    for name, value in ours:
        texts[name].append(_text(name, value))
    if texts[UNREADABLE]:
        raise BadHeader(f"headers that cannot be read: {texts[UNREADABLE][0][:80]}")
    for name in (TX, IF, RESOLVE, SCHEMA, ERASED):
        if len(texts[name]) > 1:
            raise BadHeader(f"header {name} comes {len(texts[name])} times")
    tx, counts, guarded = _transaction(texts[TX][0]) if texts[TX] else (None, None, False)
    if texts[RESOLVE] and (counts or texts[IF] or texts[OP] or texts[SCHEMA]):
        raise BadHeader(f"header {RESOLVE} comes with others that a decision does not have")
    if texts[ERASED] and (texts[IF] or texts[RESOLVE]):
        raise BadHeader(f"header {ERASED} comes with others that a stand-in does not have")
    return Marks(
        tx,
        counts,
        condition(texts[IF][0]) if texts[IF] else None,
        tuple(dict.fromkeys(texts[OP])),
        _resolution(texts[RESOLVE][0], tx) if texts[RESOLVE] else None,
        guarded,
        schema=_schema(texts[SCHEMA][0]) if texts[SCHEMA] else None,
        erased=erased(texts[ERASED][0]) if texts[ERASED] else None,
    )


def is_no_row(headers: Headers) -> bool:
    """True if a record with *headers* is a decision on a transaction, or stands in for an erased one."""
    try:
        marks = decode(headers)
    except BadHeader:
        return False
    return marks is not None and marks.no_row


def stands_in(headers: Headers) -> bool:
    """True if a record with *headers* stands in for an erased one, whatever else they say."""
    return any(name == ERASED for name, _ in headers)


def check_id(text: object) -> str | None:
    """Why *text* cannot be an operation or transaction id; None if it can."""
    if not isinstance(text, str) or not text:
        return "an id is text, and not empty"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "an id is valid Unicode text"
    return f"an id has at most {MAX_ID} bytes, this has {size}" if size > MAX_ID else None


def _text(name: str, value: bytes | str | None) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else value or ""
    except UnicodeDecodeError:
        raise BadHeader(f"header {name} is no UTF-8 text") from None
    if not text:
        raise BadHeader(f"header {name} is empty")
    if name == OP and (why := check_id(text)):
        raise BadHeader(f"header {name}: {why}")
    return text


def _transaction(text: str) -> tuple[str, Manifest | None, bool]:
    id_, space, rest = text.partition(" ")
    if why := check_id(id_):
        raise BadHeader(f"header {TX}: {why}")
    if not space:
        return id_, None, False
    counts, guarded, more = rest.partition(" guarded")
    if more:
        raise BadHeader(f"header {TX} says more than it may: {more[:80]!r}")
    return id_, manifest(counts), bool(guarded)


def manifest(text: str) -> Manifest:
    """The manifest that *text* spells; BadHeader if it spells none."""
    try:
        counts = Position.parse(text)
    except BadPosition:
        raise BadHeader(f"header {TX} has no manifest but {text[:80]!r}") from None
    if not counts or not all(counts.values()):
        raise BadHeader(f"header {TX} has a manifest that counts no records: {text[:80]!r}")
    return counts


def condition(text: str) -> Condition:
    """The condition that *text* spells; BadHeader if it spells none."""
    if text in ("absent", "present"):
        return Condition(text)  # type: ignore[arg-type]  # narrowed by the line above
    kind, _, version = text.partition(":")
    if kind == "version" and version.isdecimal() and version.isascii() and len(version) < 20:
        return Condition("version", int(version))
    raise BadHeader(f"header {IF} is none of absent, present, version:OFFSET but {text[:80]!r}")


def _schema(text: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,9}", text):
        raise BadHeader(f"header {SCHEMA} is no id of a schema but {text[:80]!r}")
    return int(text)


def erased(text: str) -> Erased:
    """What *text* spells; BadHeader if it spells nothing."""
    found = _ERASED.fullmatch(text)
    if found is None:
        raise BadHeader(f"header {ERASED} is none of ID, ID rejected but {text[:80]!r}")
    return Erased(found[1], bool(found[2]))


def ours(headers: Headers) -> Headers:
    """Those of *headers* that :func:`decode` reads."""
    return [header for header in headers if header[0] in _OURS]


def _resolution(text: str, tx: str | None) -> Resolution:
    if tx is None or text not in ("apply", "discard"):
        raise BadHeader(f"header {RESOLVE} is {text[:80]!r}, of transaction {tx!r}")
    return text  # type: ignore[return-value]  # narrowed above
