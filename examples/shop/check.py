"""What has to hold when all is over, asked of a room in SQL. Each question finds the rows that break its promise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import merganser as mg

from .room import Room
from .tables import Tables

#: Asks for rows, each by its columns' names.
Query = Callable[[str], list[dict[str, Any]]]

PROMISES: dict[str, str] = {
    "stock never fell below zero": "SELECT sku, qty FROM {stock} WHERE qty < 0",
    "what there was is what is left and what was sold": """
        SELECT began.sku, began.qty AS began_with, coalesce(s.qty, 0) AS remain, coalesce(sum(o.qty), 0) AS sold
        FROM {began} LEFT JOIN {stock} s USING (sku) LEFT JOIN {orders} o USING (sku)
        GROUP BY began.sku, began.qty, s.qty HAVING began_with <> remain + sold
    """,
    "every cart was ordered or refused": """
        SELECT cart_id, state FROM {carts} WHERE state = 'open'
        UNION ALL SELECT count(*), 'carts in all' FROM {carts} HAVING count(*) <> {expected}
    """,
    "an accepted cart has exactly one order, any other none": """
        SELECT c.cart_id, c.state, count(o.order_id) AS found
        FROM {carts} c LEFT JOIN {orders} o ON o.cart_id = c.cart_id AND o.sku = c.sku AND o.qty = c.qty
        GROUP BY c.cart_id, c.state HAVING found <> (c.state = 'ordered')::INTEGER
        UNION ALL
        SELECT o.cart_id, 'no such cart', 1 FROM {orders} o ANTI JOIN {carts} USING (cart_id, sku, qty)
    """,
    "every order is paid, once, in full": """
        SELECT o.order_id, o.amount, list(p.amount) AS paid FROM {orders} o LEFT JOIN {payments} p USING (order_id)
        GROUP BY ALL HAVING count(p.order_id) <> 1 OR sum(p.amount) <> o.amount
    """,
    "every payment is for an order": "FROM {payments} ANTI JOIN {orders} USING (order_id)",
    "nobody was refused what is still there": """
        SELECT c.cart_id, c.sku, c.qty FROM {carts} c JOIN {stock} s USING (sku)
        WHERE c.state = 'refused' AND c.qty <= s.qty
    """,
    "every customer who was told so has the order": """
        SELECT told.cart_id, told.order_id FROM {told} WHERE told.order_id IS NOT NULL
        AND NOT EXISTS (FROM {orders} o WHERE o.order_id = told.order_id AND o.cart_id = told.cart_id)
        UNION ALL
        SELECT told.cart_id, c.state FROM {told} JOIN {carts} c USING (cart_id)
        WHERE told.order_id IS NULL AND c.state <> 'refused'
    """,
}


@dataclass(frozen=True)
class Finding:
    """A promise, and what breaks it: nothing, if it held."""

    promise: str
    broken_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What is known without the log: the first stock, how many carts there were, what customers were told."""

    stock: Mapping[str, int]
    carts: int
    told: Mapping[int, str | None]  # cart → order; None: refused


def ask(query: Query, tables: Tables, expected: Expected) -> list[Finding]:
    """Every promise, of what *query* reads."""
    parts = {
        **{name: getattr(tables, name) for name in ("stock", "carts", "orders", "payments")},
        "began": _values("began(sku, qty)", [f"('{sku}', {qty})" for sku, qty in expected.stock.items()]),
        "told": _values(
            "told(cart_id, order_id)",
            [f"({cart}, {'NULL' if order is None else repr(order)}::VARCHAR)" for cart, order in expected.told.items()],
        ),
        "expected": str(expected.carts),
    }
    return [
        Finding(promise, tuple(_words(row) for row in query(sql.format(**parts)))) for promise, sql in PROMISES.items()
    ]


def ask_room(log: mg.Log, room: Room, tables: Tables, expected: Expected) -> list[Finding]:
    """Every promise, of a room whose process has ended: everything that was ever acknowledged is in it."""
    with mg.Replica(room.store, log, room.group, tables.all) as replica:

        def query(sql: str) -> list[dict[str, Any]]:
            result = replica.query(sql, level="strong")
            return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]

        refused = query("SELECT topic, reason FROM _merganser.quarantine")
        return [
            *ask(query, tables, expected),
            Finding("no record was put into quarantine", tuple(_words(row) for row in refused)),
        ]


def compare(rooms: Sequence[Room], servers: str) -> tuple[list[Finding], dict[str, int]]:
    """`merganser audit --log` of every room: each account adds up, and all rooms are equal. And the sums."""
    with ThreadPoolExecutor() as pool:
        audited = pool.map(lambda room: audit(room.store, servers), rooms)
        accounts = dict(zip((room.name for room in rooms), audited, strict=True))
    off = [f"{name}: {line}" for name, rows in accounts.items() for row in rows for line in row["wrong"]]
    off += [f"{name}: {line}" for name, rows in accounts.items() for row in rows for line in row["unproven"]]
    found = [Finding("every offset is accounted for, and the log has exactly these records", tuple(off))]
    for what in ("position", "digest"):
        said = {name: {row["table"]: row[what] for row in rows} for name, rows in accounts.items()}
        tables = sorted({table for by_table in said.values() for table in by_table})
        by_table = {table: {name: of.get(table) for name, of in said.items()} for table in tables}
        differ = [f"{table}: {_words(values)}" for table, values in by_table.items() if len(set(values.values())) > 1]
        found.append(Finding(f"all rooms have the same {what}s", tuple(differ)))
    first = next(iter(accounts.values()))
    return found, {term: sum(row.get(term, 0) for row in first) for term in ("rejected", "repeated")}


def audit(store: str, servers: str) -> list[dict[str, Any]]:
    """The account of every table."""
    line = [sys.executable, "-m", "merganser", "audit", "--log", "--json", "--store", store]
    done = subprocess.run([*line, "--bootstrap-servers", servers], capture_output=True, text=True)
    if not done.stdout:
        return [{"table": "", "position": "", "digest": "", "wrong": [done.stderr.strip()], "unproven": []}]
    return [json.loads(row) for row in done.stdout.splitlines()]


def _words(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def _values(name: str, rows: list[str]) -> str:
    columns = name.count(",") + 1
    none = "SELECT " + ", ".join(["NULL"] * columns) + " WHERE false"
    return f"({'VALUES ' + ', '.join(rows) if rows else none}) AS {name}"
