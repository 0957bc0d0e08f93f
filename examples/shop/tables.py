"""The tables: stock and carts and orders, which change, and payments, which are only added.

Each run has its own names, so that runs share a broker without meeting.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import merganser as mg


@dataclass(frozen=True)
class Tables:
    """What the tables are called in the log."""

    stock: str
    carts: str
    orders: str
    payments: str

    @classmethod
    def of(cls, run: str) -> Tables:
        return cls(f"stock_{run}", f"carts_{run}", f"orders_{run}", f"payments_{run}")

    @property
    def all(self) -> tuple[str, ...]:
        return astuple(self)


def create(log: mg.Log, tables: Tables) -> None:
    """Make the tables. No producer writes a row that breaks a check; no replica takes one up."""
    log.create_table(
        tables.stock,
        schema=_record("stock", sku="string", qty="int", price="int"),
        key=["sku"],
        checks=["qty >= 0"],
    )
    log.create_table(
        tables.carts,
        schema=_record("cart", cart_id="int", shop="string", sku="string", qty="int", state="string"),
        key=["cart_id"],
        checks=["state in ('open', 'ordered', 'refused')"],
    )
    log.create_table(
        tables.orders,
        schema=_record("order", order_id="string", cart_id="int", sku="string", qty="int", amount="int"),
        key=["order_id"],
    )
    log.create_table(tables.payments, schema=_record("payment", order_id="string", amount="int"))


def _record(name: str, **columns: str) -> dict[str, Any]:
    fields = [{"name": column, "type": type_} for column, type_ in columns.items()]
    return {"type": "record", "name": name, "fields": fields}
