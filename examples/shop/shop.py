"""What a shop does. This is the file to copy from; how it is started and killed is told elsewhere.

Invariants:
- Stock is taken, the order written, the payment booked and the cart closed in one transaction.
- Stock is taken only from the row that was read: the write names the row's version. Nothing is locked.
- Whatever Kafka answers, or fails to answer, an attempt to check a cart out counts once at most.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import merganser as mg

from .tables import Tables

Level = Literal["eventual", "strong"]


@dataclass(frozen=True)
class Cart:
    cart_id: int
    sku: str
    qty: int


class Tell(Protocol):
    """Who wants to know what happens in the shop."""

    def __call__(self, event: str, **facts: Any) -> None: ...


class Shop:
    """Checks out the carts of one shop, one after the other."""

    def __init__(self, name: str, producer: mg.Producer, replica: mg.Replica, tables: Tables, tell: Tell) -> None:
        self.name, self.producer, self.replica, self.tables, self.tell = name, producer, replica, tables, tell

    def open_carts(self) -> list[Cart]:
        """The carts still to be checked out. ``strong``: what this shop did before it was killed is seen."""
        sql = f"SELECT cart_id, sku, qty FROM {self.tables.carts} WHERE shop = ? AND state = 'open' ORDER BY cart_id"
        return [Cart(*row) for row in self.replica.query(sql, [self.name], level="strong").rows()]

    def check_out(self, cart: Cart) -> str | None:
        """Sell what is in the cart: the id of the order, or None if there is not enough left."""
        for attempt in itertools.count(1):
            stock = self._stock(cart.sku, "eventual")  # a stale read costs another attempt, and nothing else
            if stock["qty"] < cart.qty:
                stock = self._stock(cart.sku, "strong")  # before a customer is told no
            if stock["qty"] >= cart.qty:
                order_id = uuid.uuid4().hex
                write = partial(self._order, cart=cart, stock=stock, order_id=order_id)
            else:
                order_id = None
                write = partial(self._refuse, cart=cart)
            # Each attempt has an id of its own: one that was rejected stays rejected, whoever runs it again.
            if self._applied(f"check-out-{cart.cart_id}-{attempt}", write):
                return order_id
        raise AssertionError("unreachable")

    def _stock(self, sku: str, level: Level) -> dict[str, Any]:
        """The row of *sku*; its ``_offset`` is its version."""
        row = self.replica.get(self.tables.stock, {"sku": sku}, level=level)
        return row or {"qty": 0}

    # -- what is written ---------------------------------------------------------------------

    def _order(self, tx: mg.Transaction, cart: Cart, stock: dict[str, Any], order_id: str) -> None:
        amount = cart.qty * stock["price"]
        left = {"sku": cart.sku, "qty": stock["qty"] - cart.qty, "price": stock["price"]}
        tx.put(self.tables.carts, self._closed(cart, "ordered"))  # first: the operation id lives with this row
        tx.put(self.tables.stock, left, if_version=stock["_offset"])  # only if nobody took from it since
        tx.put(
            self.tables.orders,
            {"order_id": order_id, "cart_id": cart.cart_id, "sku": cart.sku, "qty": cart.qty, "amount": amount},
        )
        tx.put(self.tables.payments, {"order_id": order_id, "amount": amount})

    def _refuse(self, tx: mg.Transaction, cart: Cart) -> None:
        tx.put(self.tables.carts, self._closed(cart, "refused"))

    def _closed(self, cart: Cart, state: str) -> dict[str, Any]:
        return {"cart_id": cart.cart_id, "shop": self.name, "sku": cart.sku, "qty": cart.qty, "state": state}

    # -- how it is written -------------------------------------------------------------------

    def _applied(self, op: str, write: Callable[[mg.Transaction], None]) -> bool:
        """Run a transaction until it is in the log; then True if it was applied, False if a condition failed."""
        tx = self._committed(op, write)
        # Every replica decides alike, so this one's word is good for all of them; and having decided, it has
        # seen what this attempt lost against: the next attempt reads newer stock.
        while (outcome := self.replica.outcome(tx, timeout=10)).state == "in-doubt":
            self.tell("waiting", why=outcome.reason)
        if outcome.state == "rejected":
            self.tell("rejected", why=outcome.reason)
        return outcome.state == "applied"

    def _committed(self, op: str, write: Callable[[mg.Transaction], None]) -> mg.Transaction:
        while True:
            try:
                with self.producer.transaction(op=op) as tx:
                    write(tx)
                return tx
            except mg.errors.RolledBack:
                self.tell("rolled back")  # it is not in the log: again
            except mg.errors.CommitInDoubt:
                self.tell("in doubt")  # it is, or it is not: again, since under one id it counts once
