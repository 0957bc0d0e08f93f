"""A room: a replica of all tables, in a process of its own, that looks at the shops again and again.

    python -m examples.shop.room '{"name": "north", ...}'

A look is one query, so it is of one committed state: each transaction is in it whole or not at all. It is
``bounded``: nothing that was acknowledged more than a second before is missing. It ends when stdin does.
"""

from __future__ import annotations

import json
import select
import sys
from dataclasses import asdict, dataclass

import merganser as mg

from .tables import Tables

_EVERY_S = 0.1


@dataclass(frozen=True)
class Room:
    """What a room's process has to know."""

    run: str
    name: str
    store: str

    @property
    def group(self) -> str:
        """One group is one copy, so each room has its own."""
        return f"{self.run}-{self.name}"

    def line(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Look:
    """What a room saw at one moment."""

    in_stock: int | None
    sold: int
    orders: int
    earned: int
    paid: int

    def wrong(self, began_with: int) -> list[str]:
        """What no state of the shops may show."""
        found = []
        if self.in_stock is not None and self.in_stock + self.sold != began_with:
            found.append(f"{self.in_stock} in stock and {self.sold} sold, of {began_with}")
        if self.earned != self.paid:
            found.append(f"orders of {self.earned}, payments of {self.paid}")
        return found


def look(replica: mg.Replica, tables: Tables) -> Look:
    sql = f"""
        SELECT (SELECT sum(qty) FROM {tables.stock}), coalesce(sum(qty), 0), count(*), coalesce(sum(amount), 0),
               (SELECT coalesce(sum(amount), 0) FROM {tables.payments})
        FROM {tables.orders}
    """
    [row] = replica.query(sql, max_staleness=1.0, level="bounded").rows()
    return Look(*(None if value is None else int(value) for value in row))  # type: ignore[arg-type]


def main(room: Room) -> None:
    tables = Tables.of(room.run)
    with mg.connect() as log, mg.Replica(room.store, log, room.group, tables.all) as replica:
        print(json.dumps({"event": "open"}), flush=True)
        while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
            try:
                print(json.dumps({"event": "look", **asdict(look(replica, tables))}), flush=True)
            except mg.errors.NotFreshEnough as error:  # a killed shop's open transaction hides what is behind it
                print(json.dumps({"event": "late", "why": str(error)}), flush=True)


if __name__ == "__main__":
    main(Room(**json.loads(sys.argv[1])))
