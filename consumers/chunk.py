"""Records of one topic, with the facts about them side by side.

A replica far behind meets a million records a second. Each fact is read off each record once, by loops
that run in C, and then the records are let go: kept, they take many times the room of their facts, and
Python's garbage collector visits each of them again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import ClassVar, NamedTuple, Protocol, Self

from ..schemas.headers import UNREAD, Headers, ours

_KIND, _MILLISECONDS = itemgetter(0), itemgetter(1)


class Record(Protocol):
    """One record, in the shape of ``confluent_kafka.Message``."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(kind, milliseconds since the epoch)."""
        ...

    def leader_epoch(self) -> int | None: ...
    def headers(self) -> Headers | None: ...


class Span(NamedTuple):
    """The records of one partition: indices of the first and the last, and the count."""

    first: int
    last: int
    size: int


class Chunk:
    """Records of one topic, in the order that the reader gave them: a list for each fact.

    *epochs* has the leader epoch of each partition's last record, *headers* those of each record, by its
    index, that has some of ours.
    """

    __slots__ = ("_spans", "epochs", "headers", "keys", "offsets", "partitions", "times_ms", "values")

    #: The lists, which have one entry for each record.
    facts: ClassVar[tuple[str, ...]] = ("partitions", "offsets", "keys", "values", "times_ms")

    def __init__(self) -> None:
        self.partitions: list[int] = []
        self.offsets: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.times_ms: list[int] = []
        self.epochs: dict[int, int | None] = {}
        self.headers: dict[int, Headers] = {}
        self._spans: dict[int, Span] | None = None

    def extend(self, records: Sequence[Record]) -> None:
        """Add *records*, which are of one class: its methods are looked up once."""
        kind = type(records[0])
        self._extend_headers(_headers(records))
        partitions = list(map(kind.partition, records))
        self.partitions += partitions
        self.offsets += map(kind.offset, records)
        self.keys += map(kind.key, records)
        self.values += map(kind.value, records)
        self.times_ms += map(_MILLISECONDS, map(kind.timestamp, records))
        last = dict(zip(partitions, records, strict=True))
        self.epochs |= {partition: record.leader_epoch() for partition, record in last.items()}
        self._spans = None

    def _extend_headers(self, headers: Sequence[Headers | None]) -> None:
        """Add those of more records, before any other fact of theirs."""
        if any(headers):
            start = len(self)
            self.headers |= {start + i: mine for i, found in enumerate(headers) if found and (mine := ours(found))}

    def append(self, other: Self) -> None:
        """Add the records of *other*."""
        start = len(self)
        self.headers |= {start + i: found for i, found in other.headers.items()}
        for fact in self.facts:
            getattr(self, fact).extend(getattr(other, fact))
        self.epochs |= other.epochs
        self._spans = None

    def changed(self) -> None:
        """Whoever adds to the lists by hand says so."""
        self._spans = None

    def __len__(self) -> int:
        return len(self.partitions)

    def take(self, indices: Sequence[int]) -> Self:
        """The records at *indices*."""
        taken = type(self)()
        for fact in self.facts:
            mine = getattr(self, fact)
            setattr(taken, fact, [mine[i] for i in indices])
        taken.epochs = self.epochs
        if self.headers:
            taken.headers = {n: self.headers[i] for n, i in enumerate(indices) if i in self.headers}
        return taken

    def but(self, indices: Collection[int]) -> Chunk:
        """All records but those at *indices*."""
        gone = set(indices)
        return self.take([i for i in range(len(self)) if i not in gone])

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(map(len, filter(None, self.keys))) + sum(map(len, filter(None, self.values)))

    @property
    def spans(self) -> dict[int, Span]:
        """Where each partition's records begin and end, and how many they are."""
        if self._spans is None:
            self._spans = _spans(self.partitions)
        return self._spans


class WholeChunk(Chunk):
    """A chunk that keeps all that a record carries, for who copies it: *kinds* of timestamps (Kafka's: 0 none,
    1 the producer's, 2 the log's), *record_epochs*, and *all_headers*, whoever they are for."""

    __slots__ = ("all_headers", "kinds", "record_epochs")

    facts: ClassVar[tuple[str, ...]] = (*Chunk.facts, "kinds", "record_epochs", "all_headers")

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[int] = []
        self.record_epochs: list[int | None] = []
        self.all_headers: list[Headers | None] = []

    def extend(self, records: Sequence[Record]) -> None:
        super().extend(records)
        kind = type(records[0])
        self.kinds += map(_KIND, map(kind.timestamp, records))
        self.record_epochs += map(kind.leader_epoch, records)

    def _extend_headers(self, headers: Sequence[Headers | None]) -> None:
        super()._extend_headers(headers)
        self.all_headers += headers

    def add_run(self, other: WholeChunk, first: int, stop: int) -> None:
        """Add the records of *other* from index *first* up to *stop*. Our own headers by record are left out:
        who copies takes *all_headers*."""
        for fact in self.facts:
            getattr(self, fact).extend(getattr(other, fact)[first:stop])
        self._spans = None


def _headers(records: Sequence[Record]) -> list[Headers | None]:
    """Those of each of *records*, which are of one class.

    Each is asked once: confluent-kafka fails on a name that is no UTF-8 text, and asked again it gives a list whose
    holes crash Python.
    """
    kind, found = type(records[0]), list[Headers | None]()
    while len(found) < len(records):
        try:
            found.extend(map(kind.headers, islice(records, len(found), None)))  # what came before an error is kept
        except (SystemError, UnicodeDecodeError):
            found.append(UNREAD)
    return found


def _spans(partitions: Sequence[int]) -> dict[int, Span]:
    spans: dict[int, Span] = {}
    at = 0
    # Fetches bring long runs of one partition, so almost all of this is groupby's loop in C.
    for partition, run in groupby(partitions):
        count = len(list(run))
        known = spans.get(partition)
        first, before = (at, 0) if known is None else (known.first, known.size)
        spans[partition] = Span(first, at + count - 1, before + count)
        at += count
    return spans
