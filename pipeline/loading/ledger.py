"""The ledger of imports: what was imported, how far, in the log itself.

One compacted topic beside the tables. The record of an import is written anew with each of its chunks, in
the chunk's own Kafka transaction, so the last one says what of the file is in the table, exactly.

Invariants:
- An import is known by the table's topic *id*, the file's SHA-256 and a generation, never by names: a table that
  was made anew has none of it, and a file that was changed is another file.
- Whoever has fenced the other writers of an import, and then read the ledger, knows how far it is: nothing
  that they wrote can be committed after that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...consumers.walk import walk
from ...schemas.errors import LoadedOtherwise, MerganserError
from ...schemas.position import TopicPartition

if TYPE_CHECKING:
    from ..log import Log

LEDGER = "_merganser_imports"

_PARTITION = TopicPartition(LEDGER, 0)
_SETTINGS = {"cleanup.policy": "compact", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
_FORMAT = 2


@dataclass(frozen=True)
class Entry:
    """How far one import is. *chunks* and *rows* are in the table; *taken* records of the file were looked at for
    them, *bad* of which are no rows. *options* are those that decide which rows come of the file, and in what order.
    Its rows lie below *until*, a position of the table. *doubt*: the log was lost meanwhile, and of what came after
    these rows a part may be in the new one.
    """

    table: str
    topic_id: str
    sha256: str
    generation: int
    options: Mapping[str, Any]
    schema_id: int
    file: str = ""
    chunks: int = 0
    rows: int = 0
    taken: int = 0
    bad: int = 0
    done: bool = False
    until: str = ""
    doubt: bool = False
    when_ms: int = field(default=0, compare=False)  # the broker's time of the record, not written

    @property
    def key(self) -> bytes:
        return _text([self.topic_id, self.sha256, self.generation])

    @property
    def value(self) -> bytes:
        facts = {"format": _FORMAT, **asdict(self)}
        del facts["when_ms"]
        return _text(facts)

    @classmethod
    def parse(cls, value: bytes, when_ms: int) -> Entry:
        """MerganserError if a newer version has written it: it might say what this one does not know."""
        facts = json.loads(value)
        if facts.pop("format") not in (1, _FORMAT):  # the first one had neither `until` nor `doubt`
            failed = MerganserError(f"{LEDGER} was written by a newer Merganser")
            failed.hint = "use that version, or a newer one"
            raise failed
        return cls(**facts, when_ms=when_ms)


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def plan(entries: Sequence[Entry], wanted: Entry, again: bool) -> Entry:
    """The entry to go on from: *wanted* as it is for a new import, the ledger's for one that is begun or done.

    *again* loads a file once more that was loaded to its end; what was begun is ended first, unless the
    options differ. LoadedOtherwise if the same file was loaded, or begun, under other options, or is in doubt.
    """
    mine = [e for e in entries if (e.topic_id, e.sha256) == (wanted.topic_id, wanted.sha256)]
    if not mine:
        return wanted
    latest = max(mine, key=lambda e: e.generation)
    same = latest.options == wanted.options and (latest.done or _same_rows(latest, wanted))
    if again and (latest.done or latest.doubt or not same):
        return replace(wanted, generation=latest.generation + 1)
    if latest.doubt:
        why = "may have a part of it: it was being imported when its log was lost"
        raise LoadedOtherwise(wanted.file, wanted.table, why)
    if not same:
        raise LoadedOtherwise(wanted.file, wanted.table, _difference(latest, wanted))
    return latest


def _same_rows(latest: Entry, wanted: Entry) -> bool:
    """True if the file's rows come in the order of *latest* again. A schema decides which records are rows, and so
    the places of those after one that is none, unless they are counted in the file; and one that was none before may
    be one now, and would be passed over."""
    rearranged = any(wanted.options.get(name) for name in ("sort", "dedupe"))
    return not (rearranged or latest.bad) or latest.schema_id == wanted.schema_id


def _difference(latest: Entry, wanted: Entry) -> str:
    verb = "has all of it" if latest.done else f"has {latest.rows:,} rows of it"
    names = sorted({*latest.options, *wanted.options})
    other = [n for n in names if latest.options.get(n) != wanted.options.get(n)]
    if not other:
        bad = f" and {latest.bad:,} bad" if latest.bad else ""
        return f"{verb},{bad} under another version of its schema"
    shown = ", ".join(f"{name}={latest.options.get(name)!r}" for name in other)
    return f"{verb}, imported with {shown}"


def make_ledger(log: Log) -> None:
    """Have the topic; a no-op if it is there."""
    if LEDGER not in log.identify([LEDGER]):
        log.make_topic(LEDGER, 1, _SETTINGS)


def read_ledger(log: Log, timeout_s: float, *, settled: bool = False) -> list[Entry]:
    """Every import, the latest record of each. [] without a ledger.

    Up to the first record of a transaction that is open, unless *settled*: then up to an end sampled after the call.
    NotFreshEnough if nothing more comes for *timeout_s* seconds: another import that was killed between its note and
    its commit holds it up until Kafka gives its transaction up.
    """
    found: dict[bytes, Entry] = {}
    for poll in walk(log, "imports", log.starts([_PARTITION]), log.ends([_PARTITION]), timeout_s):
        for chunk in poll.chunks.values():
            for key, value, when_ms in zip(chunk.keys, chunk.values, chunk.times_ms, strict=True):
                if key is not None and value is not None:
                    found[key] = Entry.parse(value, when_ms)
        if poll.ends and not settled:
            break
    return list(found.values())


def note_of(entry: Entry) -> tuple[str, int, bytes, bytes]:
    """Topic, partition, key and value of the record."""
    return LEDGER, _PARTITION.partition, entry.key, entry.value
