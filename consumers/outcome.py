"""What became of a write, or of a transaction: asked of the store, once it is far enough.

Whoever got no answer to a commit knows the transaction's id, and asks a replica. Before the commit was
asked for, Kafka had acknowledged every record: so at the log's end, as it is now, the transaction is there
or it never will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ..schemas.errors import UsageError
from ..schemas.headers import check_id
from ..schemas.position import Position, TopicPartition
from .conditions import REMEMBERED
from .statements import Connection, run

State = Literal["applied", "rejected", "in-doubt"]

_BEGUN_AFTER = "the store began with a part of the log, and what lies below it is not known here"


@dataclass(frozen=True)
class Outcome:
    """*state* is ``applied``, ``rejected`` (*reason* says why: nothing of it was or will be applied), or
    ``in-doubt``: not known here yet."""

    state: State
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


@runtime_checkable
class Written(Protocol):
    """A write, or a transaction, as the producer gives it."""

    @property
    def position(self) -> Position | None: ...


@dataclass(frozen=True)
class Question:
    """What is asked for: a transaction or operation by *id*, or the one write just below *position*, which
    had the operation ids *ops*. *empty* is a transaction that was committed without a record."""

    id: str | None
    position: Position
    ops: tuple[str, ...] = ()
    empty: bool = False

    @property
    def where(self) -> tuple[TopicPartition, int] | None:
        """Partition and offset of the one write."""
        if self.id is not None:
            return None
        [(tp, next_)] = self.position.items()
        return tp, next_ - 1


def question(asked: object) -> Question:
    """*asked* is a transaction, an id, or a write that was acknowledged; else UsageError."""
    if isinstance(asked, str):
        if why := check_id(asked):
            raise UsageError(f"outcome of {asked!r}: {why}")
        return Question(asked, Position())
    position = asked.position if isinstance(asked, Written) else None
    id_ = getattr(asked, "id", None) or getattr(asked, "tx", None)
    if isinstance(id_, str):
        return Question(id_, position or Position(), empty=position is not None and not position)
    if not position:
        raise UsageError(f"no outcome of {asked!r}: give a transaction, its id, or a write that was acknowledged")
    return Question(None, position, tuple(getattr(asked, "ops", ())))


def settle(con: Connection, asked: Question, caught_up: bool) -> Outcome | None:
    """What the store that *con* reads says; None if it does not know.

    *caught_up*: it has applied all that was in the log when it was asked; then what it does not know is
    not in the log.
    """
    if asked.empty:
        return Outcome("applied")
    found = _by_id(con, asked.id) if asked.id is not None else None
    if found is not None or not caught_up:
        return found
    if asked.where is not None:
        return _by_place(con, *asked.where, asked.ops)
    if _begun_after(con, asked.position):
        return Outcome("in-doubt", _BEGUN_AFTER)
    if _forgetful(con, asked.position):
        return Outcome("in-doubt", "it was rolled back, or is longer ago than is remembered")
    why = "nothing of this id was committed in what is followed here: it was rolled back, or never written"
    return Outcome("rejected", why)


def _by_id(con: Connection, id_: str) -> Outcome | None:
    sql = "SELECT DISTINCT kind, state, reason FROM _merganser.operations WHERE id = ?"
    rows = run(con, sql, [id_])
    rows = [row for row in rows if row[0] == "tx"] or rows
    if len({state for _, state, _ in rows}) > 1:
        return Outcome("in-doubt", "an operation id of several partitions, applied in one and rejected in another")
    return Outcome(*rows[0][1:]) if rows else None


def _by_place(con: Connection, tp: TopicPartition, offset: int, ops: tuple[str, ...]) -> Outcome:
    """Of a write by itself, which the store has processed."""
    for op in ops:  # it may repeat one that was rejected
        sql = "SELECT state, reason FROM _merganser.operations WHERE topic = ? AND partition = ? AND id = ?"
        for state, reason in run(con, sql, [*tp, op]):
            return Outcome(state, reason)
    if _begun_after(con, Position.past(*tp, offset)):
        return Outcome("in-doubt", _BEGUN_AFTER)
    place = [tp.topic, tp.partition, offset]
    where = 'WHERE topic = ? AND partition = ? AND "offset" = ?'
    for table in ("rejections", "quarantine"):
        rows = run(con, f"SELECT reason FROM _merganser.{table} {where}", place)
        if rows:
            return Outcome("rejected", rows[0][0])
    return Outcome("applied")


def _begun_after(con: Connection, position: Position) -> bool:
    """True if the store began above offset 0, and what was asked for may lie below: all of it, as far as *position*
    tells, or anywhere."""
    rows = run(con, "SELECT topic, partition, first_offset FROM _merganser.positions")
    firsts = {TopicPartition(topic, p): first for topic, p, first in rows}
    if not position:
        return any(firsts.values())
    held = [tp for tp in position if tp in firsts]
    return bool(held) and all(position[tp] <= firsts[tp] for tp in held)


def _forgetful(con: Connection, position: Position) -> bool:
    """True if what was asked for may have been remembered once: it lies too far below, or is anywhere."""
    rows = run(con, "SELECT topic, partition, first_offset, applied_offset FROM _merganser.positions")
    return any(
        applied - position.get(TopicPartition(topic, p), first) > REMEMBERED
        for topic, p, first, applied in rows
        if not position or TopicPartition(topic, p) in position
    )
