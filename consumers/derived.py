"""Tables of a store that are no replicas: shadows that a replay makes, and what one has put in a table's place.

A derived table is frozen: it is what a replay made of the log between two positions. Invariants
- ``_merganser.derived`` names each of them, from before its SQL table is made until after that is gone. What is
  neither there nor in ``_merganser.tables`` is none of ours.
- A name is in one of both only: a table is kept up with its topic, or it is derived. So whatever goes by
  ``_merganser.tables`` (accounts, digests, backups, the apply loop) leaves derived tables out.
- The table is made by the first replay: a store without one is as it always was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..schemas.position import Position, TopicPartition
from .checks import Held
from .statements import Connection, run

_EXISTS = "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_merganser' AND table_name = 'derived'"

_CREATE = """
CREATE TABLE IF NOT EXISTS _merganser.derived (
    name VARCHAR, source VARCHAR, topic_id VARCHAR, since VARCHAR, until VARCHAR, transform VARCHAR,
    "rows" BIGINT, whole BOOLEAN, began VARCHAR, late_from VARCHAR, late_below VARCHAR)
"""


@dataclass(frozen=True)
class Derived:
    """*name* holds what *source* was at *until*: those rows whose records lie at *since* or beyond, each
    as *transform* (``module:function``, empty for none) made it. Not *whole*: a replay was killed in it. *begun* is
    where the store began to read the source, which nothing else says once it stands in its place."""

    name: str
    source: str
    topic_id: str
    since: Position
    until: Position
    transform: str
    rows: int = 0
    whole: bool = False
    begun: Mapping[TopicPartition, Held] = field(default_factory=dict)

    @property
    def swapped(self) -> bool:
        """True if it stands in the place of its source."""
        return self.name == self.source

    @property
    def made_of(self) -> str:
        """Where it comes from, in words."""
        since = f" from {self.since}" if self.since else ""
        through = f" through {self.transform}" if self.transform else ""
        return f"replayed{since} up to {self.until}{through}"


def derived_tables(con: Connection) -> dict[str, Derived]:
    """The derived tables of the open store, by name."""
    if not run(con, _EXISTS):
        return {}
    found = run(con, "SELECT * FROM _merganser.derived ORDER BY name")
    return {derived.name: derived for derived in (_read(*row) for row in found)}


def _read(
    name: str, source: str, id_: str, since: str, until: str, transform: str, rows: int, whole: bool, *begun: str
) -> Derived:
    """One row of ``_merganser.derived``."""
    parsed = Position.parse(since), Position.parse(until)
    return Derived(name, source, id_, *parsed, transform, rows, whole, _begun(id_, *begun))


def _begun(topic_id: str, *texts: str) -> dict[TopicPartition, Held]:
    """Where each partition began, out of three positions: from where, and what was late."""
    began, late_from, late_below = map(Position.parse, texts)
    return {tp: Held(topic_id, n, n, range(late_from[tp], late_below[tp])) for tp, n in began.items()}


def same_name(name: str, names: Collection[str] | Mapping[str, object]) -> str | None:
    """Which of *names* SQL takes for *name*; it does not tell cases apart."""
    return next((other for other in names if other.casefold() == name.casefold()), None)


def prepare(con: Connection) -> None:
    """Have the table of derived tables. DDL: alone in its transaction."""
    if not run(con, _EXISTS):
        run(con, _CREATE)
        run(con, "CHECKPOINT")


def note(con: Connection, derived: Derived) -> None:
    """Write *derived* down, in place of what was there of that name."""
    forget(con, derived.name)
    facts = [derived.name, derived.source, derived.topic_id, str(derived.since), str(derived.until)]
    more = [derived.transform, derived.rows, derived.whole]
    begun = derived.begun.items()
    began, late = Position({tp: each.first for tp, each in begun}), {tp: each.late for tp, each in begun}
    late_from = Position({tp: offsets.start for tp, offsets in late.items()})
    late_below = Position({tp: offsets.stop for tp, offsets in late.items()})
    values = [*facts, *more, *map(str, (began, late_from, late_below))]
    run(con, "INSERT INTO _merganser.derived VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def forget(con: Connection, name: str) -> None:
    run(con, "DELETE FROM _merganser.derived WHERE name = ?", [name])
