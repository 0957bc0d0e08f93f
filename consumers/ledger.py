"""What ``_merganser`` keeps beside the rows: how far each partition is, and of records that are no rows
those in quarantine, those held back, those rejected, and the operations that are remembered.

Each function runs inside the transaction of one apply.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import pyarrow as pa

from ..schemas.headers import Condition, Manifest, Marks, condition, erased, manifest
from ..schemas.position import Position, TopicPartition
from ..schemas.types import MAX_MILLIS, MIN_MILLIS
from .atomic import Entry, Place
from .batch import Move, Poison
from .conditions import REMEMBERED, Operation, Verdict
from .statements import Connection, count, insert, run, view

_INSTANT = pa.timestamp("ms", tz="UTC")
_PLACE = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
_OPS = ("ops", pa.list_(pa.string()))

_QUARANTINE = pa.schema(
    [*_PLACE, ("timestamp", _INSTANT), ("key", pa.binary()), ("value", pa.binary()), ("reason", pa.string())]
)
_PENDING = pa.schema(
    [
        *_PLACE,
        ("timestamp_ms", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("tx", pa.string()),
        ("manifest", pa.string()),
        ("condition", pa.string()),
        _OPS,
        ("resolution", pa.string()),
        ("guarded", pa.bool_()),
    ]
)
_REJECTIONS = pa.schema([*_PLACE, ("timestamp", _INSTANT), ("tx", pa.string()), _OPS, ("reason", pa.string())])
_OPERATIONS = pa.schema(
    [("kind", pa.string()), ("id", pa.string()), *_PLACE, ("state", pa.string()), ("reason", pa.string())]
)
_OP = pa.schema([("topic", pa.string()), ("partition", pa.int32()), ("id", pa.string())])

#: In the column ``resolution``: the record stands in for an erased one.
STANDS_IN = "erased:"

#: What a move adds to.
_COUNTS = ("puts", "deletes", "gaps", "rejected", "repeated")

_KNOWN_SQL = """
SELECT o.kind, o.id, o.topic, o.partition, o."offset", o.state, o.reason
FROM _merganser.operations AS o JOIN "#ops" AS r USING (topic, partition, id) WHERE o.kind = 'op'
ORDER BY o."offset"
"""

_FORGET_SQL = f"""
DELETE FROM _merganser.operations AS o USING _merganser.positions AS p
WHERE o.topic = p.topic AND o.partition = p.partition AND o."offset" < p.applied_offset - {REMEMBERED}
"""

_RELEASE_SQL = """
DELETE FROM _merganser.pending AS p USING "#released" AS r
WHERE p.topic = r.topic AND p.partition = r.partition AND p."offset" = r."offset"
"""


def move(con: Connection, moves: Mapping[TopicPartition, Move], now_ms: int) -> int:
    """Bring the accounts of the partitions in *moves* to what these say; returns how many there are.

    Only what changes is written: each column costs DuckDB as much time to plan as to change.
    """
    if not moves:
        return 0
    columns: dict[str, list[int | bytes | None]] = {
        "next_offset": [m.next_offset for m in moves.values()],
        "applied_offset": [m.applied for m in moves.values()],
        "last_offset": [m.last.offset if m.last else None for m in moves.values()],
        "digest": [m.last.digest if m.last else None for m in moves.values()],
        "leader_epoch": [m.last.leader_epoch if m.last else None for m in moves.values()],
        "caught_up_ms": [now_ms if m.at_end else None for m in moves.values()],
    }
    counts = {name: [getattr(m, name) for m in moves.values()] for name in _COUNTS}
    changed = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    changed |= {name: values for name, values in counts.items() if any(values)}
    topics, partitions = [tp.topic for tp in moves], [tp.partition for tp in moves]
    return count(con, _move_sql(tuple(changed)), [topics, partitions, *changed.values()])


@lru_cache(maxsize=256)
def _move_sql(columns: tuple[str, ...]) -> str:
    """An UPDATE of *columns*, with lists as parameters: for a few partitions, an Arrow table takes twice as
    long, and so do rows of VALUES."""
    given = ", ".join(f"unnest(?::{'BLOB' if name == 'digest' else 'BIGINT'}[]) AS {name}" for name in columns)
    changes = ", ".join(
        f"{name} = p.{name} + m.{name}" if name in _COUNTS else f"{name} = coalesce(m.{name}, p.{name})"
        for name in columns
    )
    return f"""
        UPDATE _merganser.positions AS p SET {changes}
        FROM (SELECT unnest(?::VARCHAR[]) AS topic, unnest(?::INTEGER[]) AS partition, {given}) AS m
        WHERE p.topic = m.topic AND p.partition = m.partition
        """


def quarantine(con: Connection, poison: Sequence[Poison]) -> None:
    """Keep *poison* whole."""
    insert(con, "_merganser.quarantine", _QUARANTINE, [(*p.partition, *p[1:]) for p in poison])


def hold(con: Connection, entries: Collection[Entry]) -> None:
    """Keep *entries* until their turn comes."""
    rows = [
        (
            *e.place.partition,
            e.place.offset,
            e.time_ms,
            e.key,
            e.value,
            e.marks.tx,
            str(Position(e.marks.manifest)) if e.marks.manifest else None,
            str(e.marks.condition) if e.marks.condition else None,
            e.marks.ops,
            f"{STANDS_IN}{e.marks.erased}" if e.marks.erased else e.marks.resolution,
            e.marks.guarded,
        )
        for e in entries
    ]
    insert(con, "_merganser.pending", _PENDING, rows)


def release(con: Connection, places: Collection[Place]) -> None:
    """What lies at *places* is held back no longer."""
    if places:
        columns = zip(*((*place.partition, place.offset) for place in places), strict=True)
        with view(con, "#released", pa.table([pa.array(c) for c in columns], schema=pa.schema(_PLACE))):
            run(con, _RELEASE_SQL)


def held(con: Connection, partitions: Collection[TopicPartition]) -> list[Entry]:
    """What is held back of *partitions*, by place; what the keys say is not in the store."""
    rows = run(con, 'SELECT * FROM _merganser.pending ORDER BY topic, partition, "offset"')
    return [
        Entry(
            Place(TopicPartition(topic, partition), offset),
            time_ms,
            key,
            value,
            _marks(tx, text and manifest(text), if_ and condition(if_), tuple(ops), resolution, guarded),
        )
        for topic, partition, offset, time_ms, key, value, tx, text, if_, ops, resolution, guarded in rows
        if TopicPartition(topic, partition) in partitions
    ]


def _marks(
    tx: str | None,
    counts: Manifest | None,
    if_: Condition | None,
    ops: tuple[str, ...],
    no_row: str | None,
    guarded: bool,
) -> Marks:
    """*no_row* says why a record is neither a row nor the delete of one."""
    if no_row is None or not no_row.startswith(STANDS_IN):
        return Marks(tx, counts, if_, ops, no_row, guarded)  # type: ignore[arg-type]  # as it was written
    return Marks(tx, counts, if_, ops, None, guarded, erased=erased(no_row.removeprefix(STANDS_IN)))


def reject(con: Connection, verdicts: Iterable[Verdict], bad: Collection[Place]) -> None:
    """Write down what was rejected, and why; *bad* records are in quarantine instead."""
    rows = [
        (*e.place.partition, e.place.offset, _instant(e.time_ms), e.marks.tx, e.marks.ops, verdict.reason)
        for verdict in verdicts
        if verdict.state == "rejected" and not verdict.repeats
        for e in verdict.unit.rows
        if e.place not in bad
    ]
    insert(con, "_merganser.rejections", _REJECTIONS, rows)


def remember(con: Connection, operations: Sequence[Operation]) -> None:
    """Remember what *operations* came to."""
    rows = [(op.kind, op.id, *op.place.partition, op.place.offset, op.state, op.reason) for op in operations]
    insert(con, "_merganser.operations", _OPERATIONS, rows)


def known(con: Connection, entries: Iterable[Entry]) -> list[Operation]:
    """Those operation ids of *entries* that are remembered, in their partitions."""
    asked = [(*e.place.partition, op) for e in entries for op in e.marks.ops]
    if not asked:
        return []
    columns = [pa.array(c, field.type) for c, field in zip(zip(*asked, strict=True), _OP, strict=True)]
    with view(con, "#ops", pa.table(columns, schema=_OP)):
        rows = run(con, _KNOWN_SQL)
    return [
        Operation(kind, id_, Place(TopicPartition(topic, partition), offset), state, reason)
        for kind, id_, topic, partition, offset, state, reason in rows
    ]


def decided(con: Connection, transactions: Collection[str]) -> set[str]:
    """Those of *transactions* that are remembered."""
    sql = "SELECT id FROM _merganser.operations WHERE kind = 'tx' AND list_contains(?, id)"
    return {id_ for (id_,) in run(con, sql, [list(transactions)])} if transactions else set()


def forget(con: Connection) -> None:
    """Drop the operations that no record to come can ask for."""
    run(con, _FORGET_SQL)


def _instant(time_ms: int) -> int | None:
    return time_ms if MIN_MILLIS <= time_ms <= MAX_MILLIS else None
