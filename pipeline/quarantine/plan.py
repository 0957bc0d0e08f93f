"""Which of the records in quarantine are written again. Pure.

Invariants
- Only what would be a row now, or a delete, is written: all else would come back to quarantine.
- What the record's own headers ask is asked still: a transaction was rejected whole, and no part of it is written;
  a condition that did not hold then does not hold now.
- No write of the same key that came later is undone, whatever became of it: the last record of a key decides.
- A record is written once: the log itself says so, by the origin that each retry carries. Where the log no
  longer has all that came after a record, nothing is known, and nothing written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...consumers.atomic import KeyValues, Place
from ...consumers.batch import Poison
from ...consumers.conditions import fails
from ...schemas.headers import Condition, Marks
from ...schemas.position import Position, TopicPartition

State = Literal["ready", "retried", "superseded", "waiting", "part", "bad", "lost", "left"]

#: Why a record is not written, in words.
WORDS: Mapping[State, str] = {
    "ready": "will be written",
    "retried": "was written again already",
    "superseded": "has a later record of its key",
    "waiting": "has a key whose records are held back, or not read yet",
    "part": "is a part of a transaction, which was rejected whole",
    "bad": "is no row still",
    "lost": "is older than what the log has left",
    "left": "was left out by the transform",
}

Key = tuple[TopicPartition, KeyValues]


@dataclass(frozen=True)
class Candidate:
    """What would be written for *poison*: *key* and *value*, into *partition*. *identity* is what the key
    says, None without one. *bad* says why it is no row; *row* is what can be read of it."""

    poison: Poison
    partition: TopicPartition
    key: bytes | None
    value: bytes | None
    identity: KeyValues | None = None
    bad: str = ""
    left: bool = False
    version: int | None = None
    row: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def place(self) -> Place:
        return self.poison.place


@dataclass(frozen=True)
class Later:
    """What the log has of the records in quarantine, and after them: the offset and time of the last record of each
    key, the places that others name as their origin, where each partition begins, and what the headers of each
    record say, or why they say nothing that can be read. One that is absent there is no longer in the log."""

    last: Mapping[Key, tuple[int, int]]
    retried: Collection[Place]
    starts: Position
    marks: Mapping[Place, Marks | str]


@dataclass(frozen=True)
class Verdict:
    """What becomes of one candidate; *why* if there is more to say."""

    candidate: Candidate
    state: State
    why: str = ""

    @property
    def condition(self) -> Condition | None:
        """What has to hold of its row still when replicas come to the retry: nothing else has written it."""
        mine = self.candidate
        if mine.identity is None:
            return None
        return Condition("absent") if mine.version is None else Condition("version", mine.version)


def judge(candidates: Sequence[Candidate], later: Later, held_back: Collection[Key]) -> list[Verdict]:
    """What becomes of each of *candidates*, which are in the order of their places."""
    verdicts = [_judged(each, later, held_back) for each in candidates]
    last: dict[Key, Candidate] = {}
    for each in sorted((verdict.candidate for verdict in verdicts if verdict.state == "ready"), key=_age):
        if each.identity is not None:
            last[each.partition, each.identity] = each
    return [_unless_later(verdict, last) for verdict in verdicts]


def _age(candidate: Candidate) -> tuple[int, Place]:
    return candidate.poison.timestamp_ms or 0, candidate.place


def _unless_later(verdict: Verdict, last: Mapping[Key, Candidate]) -> Verdict:
    """Of several with one key, repaired to it perhaps, the last is written."""
    mine = verdict.candidate
    winner = last.get((mine.partition, mine.identity)) if mine.identity is not None else None
    if verdict.state != "ready" or winner is None or winner is mine:
        return verdict
    return Verdict(mine, "superseded", f"by the retry of {winner.poison.partition} at offset {winner.poison.offset}")


def _judged(mine: Candidate, later: Later, held_back: Collection[Key]) -> Verdict:
    tp, offset = mine.place
    if mine.place in later.retried:
        return Verdict(mine, "retried")
    if later.starts.get(tp, 0) > offset:
        return Verdict(mine, "lost", f"the log begins at offset {later.starts[tp]}; --archive may have the rest")
    marks = later.marks.get(mine.place)
    if marks is None:
        # The delete that it made way for may be gone as well, so what came later cannot be seen.
        return Verdict(mine, "superseded", "compaction has taken it, for a later record of its key")
    if mine.left:
        return Verdict(mine, "left")
    if mine.identity is not None:
        last = later.last.get((mine.partition, mine.identity))
        if last is not None and _is_later(last, mine):
            return Verdict(mine, "superseded", f"at offset {last[0]} of {mine.partition}")
    if why := _is_part(marks):
        return Verdict(mine, "part", why)
    if why := mine.bad or _unheard(mine, marks):
        return Verdict(mine, "bad", why)
    if mine.identity is not None and (mine.partition, mine.identity) in held_back:
        return Verdict(mine, "waiting", "the store has not applied all of them yet")
    return Verdict(mine, "ready")


def _is_part(marks: Marks | str) -> str:
    """Which transaction had more records than this one; empty if none."""
    if isinstance(marks, str) or marks.tx is None or (marks.manifest and sum(marks.manifest.values()) == 1):
        return ""
    return f"transaction {marks.tx}; write all of it again"


def _unheard(mine: Candidate, marks: Marks | str) -> str:
    """Why the record's own headers forbid it; empty if they do not. A repair may mend what cannot be read, and what
    was asked of one row is not asked of another."""
    if isinstance(marks, str):
        return marks if mine.value == mine.poison.value else ""
    if marks.condition is None or mine.key != mine.poison.key:
        return ""
    return fails(marks.condition, mine.version) or ""


def _is_later(last: tuple[int, int], mine: Candidate) -> bool:
    """Of another partition only the time tells: a repaired key may lie elsewhere."""
    offset, time_ms = last
    if mine.partition == mine.poison.partition:
        return offset > mine.poison.offset
    return mine.poison.timestamp_ms is None or time_ms >= mine.poison.timestamp_ms


def sums(verdicts: Sequence[Verdict]) -> dict[State, int]:
    """How many there are of each state, in a fixed order; those without any are absent."""
    counts = {state: sum(v.state == state for v in verdicts) for state in WORDS}
    return {state: number for state, number in counts.items() if number}
