"""What a replay will do. Pure.

Invariants
- A table stays a replica after a swap only if the replay comes to what the apply loop would have: every row, from
  where the store began, up to the very position of the store, through nothing. All else is derived.
- What a row is depends on all that came before it (conditions, transactions, repeated operations): a replay always
  reads from where the store began. *since* leaves rows out, it does not leave records unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...consumers.checks import Held
from ...consumers.dbfile import StoredTable
from ...consumers.derived import Derived, same_name
from ...schemas.errors import UnknownTable, UsageError
from ...schemas.position import Position, TopicPartition
from ...schemas.table import RESERVED_COLUMNS

#: What *to* is without a word: where the store is.
STORE = "store"
LATEST = "latest"
BEGINNING = "beginning"

Becomes = Literal["", "replica", "derived"]


@dataclass(frozen=True)
class Wish:
    """What is asked for. *since* and *to* are an offset (of a table with one partition), a position or a time; or
    ``beginning``, and ``store`` or ``latest``. *transform* is ``module:function``, empty for none."""

    table: str
    into: str
    since: str = BEGINNING
    to: str = STORE
    transform: str = ""
    swap: bool = False


@dataclass(frozen=True)
class Facts:
    """What the store says: its partitions, its tables, derived tables, and all names that SQL knows."""

    held: Mapping[TopicPartition, Held]
    stored: Mapping[str, StoredTable] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def tables(self) -> set[str]:
        return {tp.topic for tp in self.held}

    @property
    def topic_ids(self) -> dict[str, str]:
        return {name: each.topic_id for name, each in self.derived.items() if each.swapped} | {
            tp.topic: each.topic_id for tp, each in self.held.items()
        }

    @property
    def position(self) -> Position:
        return Position({tp: held.next for tp, held in self.held.items()})


@dataclass(frozen=True)
class ReplayPlan:
    """What a replay will do. ``lines()`` says it in words. *begin* and *target* are of all partitions that may have
    to be read: the table's own, and those of the store's other tables, in case its transactions wrote to them."""

    wish: Wish
    since: Position
    begin: Position
    target: Position
    becomes: Becomes
    replaces_shadow: bool
    source: str
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        return self.wish.table

    def of_table(self, position: Position) -> Position:
        return position.of({self.table})

    @property
    def offsets(self) -> int:
        return sum(self.of_table(self.begin).behind(self.of_table(self.target)).values())

    @property
    def beside(self) -> dict[str, int]:
        """The store's other tables, and how many offsets each has to be read."""
        others = sorted({tp.topic for tp in self.target} - {self.table})
        return {name: sum(self.begin.of({name}).behind(self.target.of({name})).values()) for name in others}

    def fields(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "into": self.wish.into,
            "source": self.source,
            "reads_from": str(self.of_table(self.begin)),
            "from": str(self.since),
            "to": str(self.of_table(self.target)),
            "offsets": self.offsets,
            "beside": self.beside,
            "transform": self.wish.transform or None,
            "swap": self.wish.swap,
            "becomes": self.becomes or None,
            "replaces_shadow": self.replaces_shadow,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        since = f"those whose records lie at {self.since} or beyond" if self.since else "all"
        lines = [
            f"replay {self.table} into {self.wish.into}",
            f"source   {self.source}",
            f"reads    {self.offsets:,} offsets, {self.of_table(self.begin)} up to {self.of_table(self.target)}",
        ]
        if self.beside:
            most = ", ".join(f"{name} ({offsets:,})" for name, offsets in self.beside.items())
            lines.append(f"         and, should transactions of {self.table} have written to them: {most}")
        through = f", each through {self.wish.transform}" if self.wish.transform else ""
        lines.append(f"rows     {since}{through}")
        made = f"table {self.wish.into} in the store"
        lines.append(f"writes   {made}{', in place of an earlier shadow' if self.replaces_shadow else ''}")
        return [*lines, *self._swap(), *(f"note     {note}" for note in self.notes)]

    def _swap(self) -> list[str]:
        table, into = self.table, self.wish.into
        match self.becomes:
            case "replica":
                return [
                    f"swap     {into} becomes {table}, at the store's own position: rows, quarantine and accounts are",
                    "         the log's again, and it is followed as before",
                ]
            case "derived":
                return [
                    f"swap     {into} becomes {table}, a derived table: the log is not applied to it any more, and",
                    "         audit, digests and backups leave it out",
                ]
        return [f"swap     none: {table} stays as it is (--swap puts {into} in its place)"]


def plan_replay(
    wish: Wish, facts: Facts, begin: Position, since: Position, target: Position, source: str
) -> ReplayPlan:
    """The plan for *wish*. *since* and *target* are what its words came to; *begin* is where the store began.

    UnknownTable, and UsageError where a name cannot be what it should.
    """
    check_names(wish, facts)
    own = {tp: offset for tp, offset in target.items() if tp.topic == wish.table}
    low = next((tp for tp, offset in own.items() if offset < begin.get(tp, 0)), None)
    if low is not None:
        raise UsageError(f"--to lies before the store's beginning: {low} at {own[low]}, it begins at {begin[low]}")
    above = next((tp for tp, offset in own.items() if since.get(tp, 0) > offset), None)
    if above is not None:
        raise UsageError(f"--from lies beyond --to: {above} from {since[above]}, to {own[above]}")
    # What lies below the store's beginning is in no row: saying so is not asking for less.
    since = Position({tp: n for tp, n in since.items() if n > begin.get(tp, 0)})
    becomes: Becomes = ""
    if wish.swap:
        exact = wish.table in facts.tables and not wish.transform and not since and target == facts.position
        becomes = "replica" if exact else "derived"
    return ReplayPlan(
        wish, since, begin, target, becomes, wish.into in facts.derived, source, tuple(_notes(wish, facts, becomes))
    )


def check_names(wish: Wish, facts: Facts) -> None:
    """UnknownTable or UsageError unless *wish* names a table of the store, and a shadow that stands for no other."""
    table, into = wish.table, wish.into
    shadow = facts.derived.get(table)
    if table not in facts.tables and (shadow is None or not shadow.swapped):
        what = f"{table} is a shadow of {shadow.source}" if shadow else f"it has: {', '.join(sorted(facts.tables))}"
        raise UnknownTable(table, hint=f"name a table of the store; {what}")
    if not into or into.startswith("_") or into != into.strip() or '"' in into:
        raise UsageError(f"no name for a shadow: {into!r}")
    if same_name(into, [table, *facts.tables]):
        raise UsageError(f"--into {into!r} is a table of the store: give the shadow a name of its own")
    there = same_name(into, facts.names)
    older = facts.derived.get(into)
    if there is not None and older is None:
        raise UsageError(f"the store has a table {there!r} that no replay made: give the shadow another name")
    if older is not None and older.source != table:
        raise UsageError(f"--into {into!r} is a shadow of {older.source!r}: give this one another name")


def _notes(wish: Wish, facts: Facts, becomes: Becomes) -> list[str]:
    notes = []
    mine = facts.stored.get(wish.table)
    if mine is not None and mine.stopped:
        notes.append(f"{wish.table} is stopped: {mine.stopped}")
    if becomes == "derived" and not wish.transform and wish.table in facts.tables:
        notes.append("it would stay a replica without --from, and --to left out")
    return notes


def check_columns(table: str, columns: tuple[str, ...]) -> str | None:
    """Why rows of *columns* cannot be of a derived table; None if they can."""
    seen: dict[str, str] = {}
    for name in columns:
        if not isinstance(name, str) or not name:
            return f"a column name is text, not {name!r}"
        other = seen.setdefault(name.casefold(), name)
        if other != name or (name not in RESERVED_COLUMNS and name.casefold() in RESERVED_COLUMNS):
            return f"columns {other!r} and {name!r} differ in case only: SQL cannot tell them apart"
    return None
