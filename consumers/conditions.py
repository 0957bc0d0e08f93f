"""Which units are applied, which are rejected, and which only repeat an earlier operation. Pure.

Decided when a unit is applied, in the order of application, from what the log and the store's own rows
say: so every replica decides alike, and no lock is held anywhere.

Invariants
- One failed condition, or one record that no row can be made of, rejects its whole unit.
- A condition sees the row as the units before it left it, those of its own unit included.
- A unit with an operation id that is known, in that id's partition, changes nothing: what the first one
  came to, applied or rejected, stays. An id is known for :data:`REMEMBERED` offsets of its partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..schemas.headers import Condition
from ..schemas.position import TopicPartition
from .atomic import Entry, KeyValues, Place, Unit

#: For how many offsets of its partition an operation id is remembered. Part of what a log means: two
#: replicas that remember differently would differ.
REMEMBERED = 1_000_000

State = Literal["applied", "rejected"]

#: One key of one table.
Key = tuple[TopicPartition, KeyValues]


class Operation(NamedTuple):
    """What became of a transaction, or of the first unit with an operation id."""

    kind: Literal["tx", "op"]
    id: str
    place: Place
    state: State
    reason: str | None


@dataclass(frozen=True)
class Verdict:
    """What becomes of *unit*. *place* is of the record that decided it; *repeats* says that an earlier
    unit of the same operation id did."""

    unit: Unit
    state: State
    reason: str | None = None
    place: Place | None = None
    repeats: bool = False

    @property
    def applies(self) -> bool:
        """True if the unit's records change the tables."""
        return self.state == "applied" and not self.repeats

    @property
    def operations(self) -> list[Operation]:
        """What is to be remembered."""
        unit = self.unit
        if not unit.written:  # a decision on a transaction that needed none
            return []
        found = [Operation("tx", unit.tx, unit.first, self.state, self.reason)] if unit.tx is not None else []
        if not self.repeats:
            found += [
                Operation("op", op, entry.place, self.state, self.reason)
                for entry in unit.entries
                for op in entry.marks.ops
            ]
        return found


def guarded(unit: Unit) -> bool:
    """True if the unit may come to anything but being applied, whatever its values are."""
    if unit.resolution is not None:
        return True
    return any(e.marks.condition or e.marks.ops or (e.marks.erased and e.marks.erased.rejected) for e in unit.entries)


def asked_for(units: Iterable[Unit]) -> list[Entry]:
    """The records whose key's present version has to be known."""
    return [entry for unit in units for entry in unit.entries if entry.marks.condition is not None]


def decide(
    units: Sequence[Unit],
    versions: Mapping[Key, int],
    known: Iterable[Operation],
    bad: Mapping[Place, str],
) -> list[Verdict]:
    """The verdict on each of *units*, which are in the order of application.

    *versions* has the ``_offset`` of each row that is there of the keys asked for, *known* the operation
    ids that the store remembers, *bad* why no row could be made of some records.
    """
    rows = dict(versions)
    operations = {(op.place.partition, op.id): op for op in known}
    verdicts = []
    for unit in units:
        verdict = _repeated(unit, operations) or _discarded(unit) or _no_row(unit, bad) or _run(unit, rows)
        verdicts.append(verdict)
        operations |= {(op.place.partition, op.id): op for op in verdict.operations if op.kind == "op"}
    return verdicts


def _repeated(unit: Unit, operations: Mapping[tuple[TopicPartition, str], Operation]) -> Verdict | None:
    for entry in unit.entries:
        for op in entry.marks.ops:
            first = operations.get((entry.place.partition, op))
            if first is not None and entry.place.offset - first.place.offset <= REMEMBERED:
                reason = f"operation {op!r} was {first.state} at {first.place.partition}:{first.place.offset}"
                reason += f": {first.reason}" if first.reason else ""
                return Verdict(unit, first.state, reason, entry.place, repeats=True)
    return None


def _discarded(unit: Unit) -> Verdict | None:
    if unit.resolution != "discard":
        return None
    return Verdict(unit, "rejected", "it lacked records for good, and was resolved: discard", unit.first)


def _no_row(unit: Unit, bad: Mapping[Place, str]) -> Verdict | None:
    if unit.tx is None and unit.entries[0].place in bad:
        return Verdict(unit, "rejected", bad[unit.first], unit.first)
    for entry in unit.entries:
        if entry.place in bad:
            reason = f"its record at {entry.place.partition}:{entry.place.offset} is in quarantine"
            return Verdict(unit, "rejected", reason, entry.place)
    return None


def _run(unit: Unit, rows: dict[Key, int]) -> Verdict:
    """Apply *unit* to *rows*, or leave them as they are."""
    changed: dict[Key, int | None] = {}
    for entry in unit.written:
        if entry.marks.erased is not None:
            if entry.marks.erased.rejected:
                return Verdict(unit, "rejected", "it was, by a record that is erased", entry.place)
            continue
        if entry.key_values is None:
            if entry.marks.condition is not None:
                return Verdict(unit, "rejected", "a condition on a row without a key", entry.place)
            continue
        key = (entry.place.partition, entry.key_values)
        version = changed[key] if key in changed else rows.get(key)
        if entry.marks.condition is not None and (why := fails(entry.marks.condition, version)):
            return Verdict(unit, "rejected", why, entry.place)
        changed[key] = _version(entry)
    for key, version in changed.items():
        if version is None:
            rows.pop(key, None)
        else:
            rows[key] = version
    return Verdict(unit, "applied")


def _version(entry: Entry) -> int | None:
    """The version of the row that *entry* leaves; None if it deletes it."""
    return None if entry.value is None else entry.place.offset


def fails(condition: Condition, version: int | None) -> str | None:
    """Why *condition* does not hold of a row of *version*; None if it does."""
    if condition.kind == "absent":
        return None if version is None else f"if_absent: the row is there, version {version}"
    if version is None:
        return f"if_{condition.kind}: there is no such row"
    if condition.kind == "version" and version != condition.version:
        return f"if_version={condition.version}: the row has version {version}"
    return None
