"""What is told to somebody who may read some tables only. Pure.

Invariant: of other tables they hear neither how far they are nor what has happened to them, whichever way they ask;
and no name that they have not said themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ....consumers.progress import how_far
from ....schemas.errors import BadQuery, LogUnavailable, MerganserError, NotFreshEnough, StoreError, TableStopped
from ....schemas.position import Position

#: In the place of what may name any table.
_NOT_FOR_YOU = "why is told to who may read all tables"


def shown(position: Position, granted: Collection[str] | None, after: Position | str | None) -> Position:
    """What of *position* is told to who may read *granted* (None: all). Of other tables, how much was written is not
    theirs to know: no more of it than the token *after*, which they have, says."""
    if granted is None:
        return position
    mine = {name.casefold() for name in granted}
    token = (Position.parse(after) if isinstance(after, str) else after) or Position()
    return Position(
        {tp: n if tp.topic.casefold() in mine else min(n, token[tp]) for tp, n in position.items()
         if tp.topic.casefold() in mine or tp in token}
    )  # fmt: skip


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
