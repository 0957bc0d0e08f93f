"""What is told to somebody who may read some tables only. Pure.

Invariant: of other tables they hear neither how far they are nor what has happened to them, whichever way they ask;
and no name that they have not said themselves. (That there is a table of a name can be found out: a WITH must not have
it.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ....consumers.progress import how_far
from ....schemas.errors import BadQuery, LogUnavailable, MerganserError, NotFreshEnough, StoreError, TableStopped
from ....schemas.position import Position

#: In the place of what may name any table.
_NOT_FOR_YOU = "why is told to who may read all tables"


Token = Position | str | None


def waited_for(after: Token, granted: Collection[str] | None) -> Token:
    """What of the token *after* is waited for, for who may read *granted* (None: all). Whether other tables are there,
    and are so far, is not theirs to find out; nor do they lack it: what they can read of a transaction is applied no
    earlier than the rest of it."""
    return after if granted is None else _of(_parsed(after), granted)


def shown(position: Position, granted: Collection[str] | None, after: Token) -> Position:
    """What of *position* is told to who may read *granted* (None: all): of their tables, how far each is, and of others
    what the token *after* said, so that an answer reaches what was asked for."""
    return position if granted is None else _parsed(after) | _of(position, granted)


def _parsed(after: Token) -> Position:
    return (Position.parse(after) if isinstance(after, str) else after) or Position()


def _of(position: Position, granted: Collection[str]) -> Position:
    mine = {name.casefold() for name in granted}
    return Position({tp: n for tp, n in position.items() if tp.topic.casefold() in mine})


def heard(error: MerganserError, granted: Collection[str] | None) -> MerganserError:
    """What of *error* is told to who may read *granted* (None: all)."""
    if granted is None:
        return error
    mine = {name.casefold() for name in granted}
    match error:
        case NotFreshEnough() if error.lacks:
            lacks = {tp: n for tp, n in error.lacks.items() if tp.topic.casefold() in mine}
            why = how_far(lacks) if lacks else "it waits for tables that you may not read"
            return NotFreshEnough(error.level, error.timeout_s, why, error.hint, lacks)
        case TableStopped() if error.table.casefold() in mine:
            return replace(error, why=stopped_for(error, granted))
        case TableStopped():
            return StoreError("the replica does not go on with a table that you may not read")
        case LogUnavailable():
            return replace(error, why=_NOT_FOR_YOU)
        case BadQuery():  # DuckDB goes on with the names that are most alike
            return type(error)(str(error).partition("Did you mean")[0].strip(), hint=error.hint)
    return error


def stopped_for(why: TableStopped, granted: Collection[str] | None) -> str:
    """Why a table has stopped: of a transaction that is torn, the reason names the other tables that it wrote to."""
    return why.why if granted is None else f"{type(why).__name__}; {_NOT_FOR_YOU}"
