"""A shop as a process: its replica, its producer, and the trouble that it is to have.

    python -m examples.shop.clerk '{"name": "shop-1", ...}'

It says what happens as JSON lines, ends when no cart of its own is open, and can be killed at any moment.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import merganser as mg

from . import trouble
from .shop import Shop
from .tables import Tables


@dataclass(frozen=True)
class Orders:
    """What a shop's process has to know."""

    run: str
    name: str
    store: str
    seed: str
    lose: float = 0.0
    without: list[str] = field(default_factory=list)

    def line(self) -> str:
        return json.dumps(asdict(self))


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def main(orders: Orders) -> None:
    tables = Tables.of(orders.run)
    name = f"{orders.run}-{orders.name}"
    with mg.connect() as log:
        # The id first: from here on nothing more can come of this shop's earlier lives, so what a strong read
        # shows of them is final. And what they left open is ended at once, instead of when its time is up.
        with log.producer(id=name) as producer:
            trouble.afflict(producer, random.Random(orders.seed), orders.lose, orders.without)
            with mg.Replica(orders.store, log, name, tables.all) as replica:
                shop = Shop(orders.name, producer, replica, tables, say)
                carts = shop.open_carts()
                say("open", carts=len(carts))
                for cart in carts:
                    order_id = shop.check_out(cart)
                    say("refused" if order_id is None else "ordered", cart=cart.cart_id, order=order_id)
        say("closed")


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
