"""The shop of examples/shop keeps its promises while it is killed, and its check finds whatever breaks one."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

import merganser as mg
from examples.shop import trouble
from examples.shop.check import PROMISES, Expected, ask, compare
from examples.shop.room import Look, Room
from examples.shop.shop import Shop
from examples.shop.tables import Tables, create

ROOT = Path(__file__).parent.parent.parent
TABLES = Tables.of("t")

LEFT = "what there was is what is left and what was sold"
ONE_ORDER = "an accepted cart has exactly one order, any other none"
PAID = "every order is paid, once, in full"
TOLD = "every customer who was told so has the order"


# -- the whole program ---------------------------------------------------------------------------


def run(broker: str, *words: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": broker}
    line = [sys.executable, "-m", "examples.shop", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=170)


def test_shops_and_a_room_are_killed_and_everything_holds(broker: str) -> None:
    done = run(broker, "--orders", 20, "--shops", 2, "--kills", 2, "--lose", 0.25)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill -9") == 2 and done.stdout.endswith("Everything held.\n")
    assert re.search(r"shops killed +1\n", done.stdout) and re.search(r"rooms killed +1\n", done.stdout)
    assert not re.search(r"in doubt, .* +0\n", done.stdout)
    assert "BROKEN" not in done.stdout and all(promise in done.stdout for promise in PROMISES)


@pytest.mark.slow
@pytest.mark.parametrize(("without", "promise"), [("conditions", LEFT), ("operations", ONE_ORDER)])
def test_without_what_protects_it_the_program_says_what_broke(broker: str, without: str, promise: str) -> None:
    done = run(broker, "--orders", 40, "--lose", 0.3, "--without", without)
    assert done.returncode == 1 and f"BROKEN  {promise}" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_many_shops_many_kills(broker: str) -> None:
    done = run(broker, "--orders", 200, "--shops", 4, "--kills", 15, "--lose", 0.2, "--seed", 7)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill -9") == 15


# -- faults that are planted in the shops ----------------------------------------------------------


def sell(broker: str, folder: Path, lose: float, without: list[str]) -> set[str]:
    """Two shops sell the same thing at the same time; what the check finds broken."""
    tables = Tables.of(uuid.uuid4().hex[:8])
    shops, told = ["a", "b"], dict[int, str | None]()
    with mg.connect(broker) as log, log.producer() as first, log.producer() as second:
        create(log, tables)
        first.put(tables.stock, {"sku": "duck", "qty": 11, "price": 5})
        for n in range(12):
            row = {"cart_id": n, "shop": shops[n % 2], "sku": "duck", "qty": 1, "state": "open"}
            first.put(tables.carts, row)
        first.flush()
        for number, producer in enumerate((first, second)):
            trouble.afflict(producer, random.Random(number), lose, without)
        with mg.Replica(folder / "r.duckdb", log, tables.stock, tables.all) as replica, ThreadPoolExecutor(2) as both:

            def open_shop(name: str, producer: mg.Producer) -> None:
                shop = Shop(name, producer, replica, tables, lambda event, **facts: None)
                told.update({cart.cart_id: shop.check_out(cart) for cart in shop.open_carts()})

            list(both.map(open_shop, shops, (first, second)))

            def query(sql: str) -> list[dict[str, Any]]:
                result = replica.query(sql, level="strong")
                return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]

            return broken(query, tables, Expected({"duck": 11}, 12, told))


def broken(query: Any, tables: Tables, expected: Expected) -> set[str]:
    return {finding.promise for finding in ask(query, tables, expected) if finding.broken_by}


def test_two_shops_at_once_with_lost_answers_keep_every_promise(broker: str, tmp_path: Path) -> None:
    assert sell(broker, tmp_path, 0.4, []) == set()


@pytest.mark.slow
def test_without_conditions_two_shops_sell_the_same_thing_twice(broker: str, tmp_path: Path) -> None:
    assert LEFT in sell(broker, tmp_path, 0, [trouble.CONDITIONS])


@pytest.mark.slow
def test_without_operation_ids_a_retried_order_is_doubled(broker: str, tmp_path: Path) -> None:
    assert ONE_ORDER in sell(broker, tmp_path, 0.4, [trouble.OPERATIONS])


# -- each promise, by rows that break it ---------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "promises"),
    [
        ("UPDATE stock_t SET qty = qty", set()),
        ("UPDATE stock_t SET qty = -1", {"stock never fell below zero", LEFT}),
        ("UPDATE stock_t SET qty = 2", {LEFT, "nobody was refused what is still there"}),
        ("DELETE FROM stock_t", {LEFT}),
        ("UPDATE carts_t SET state = 'open' WHERE cart_id = 2", {"every cart was ordered or refused", TOLD}),
        ("DELETE FROM carts_t WHERE cart_id = 2", {"every cart was ordered or refused"}),
        ("UPDATE carts_t SET state = 'refused' WHERE cart_id = 1", {ONE_ORDER}),
        ("INSERT INTO orders_t VALUES ('y', 1, 'duck', 0, 0)", {ONE_ORDER, PAID}),
        ("INSERT INTO orders_t VALUES ('y', 9, 'duck', 0, 0)", {ONE_ORDER, PAID}),
        ("UPDATE orders_t SET cart_id = 2", {ONE_ORDER, TOLD}),
        ("DELETE FROM orders_t", {LEFT, ONE_ORDER, TOLD, "every payment is for an order"}),
        ("UPDATE orders_t SET order_id = 'y'", {PAID, TOLD, "every payment is for an order"}),
        ("INSERT INTO payments_t VALUES ('x', 10)", {PAID}),
        ("UPDATE payments_t SET amount = 9", {PAID}),
        ("DELETE FROM payments_t", {PAID}),
        ("INSERT INTO payments_t VALUES ('y', 10)", {"every payment is for an order"}),
    ],
)
def test_each_promise_is_found_broken(change: str, promises: set[str]) -> None:
    con = duckdb.connect()
    con.execute("""
        CREATE TABLE stock_t AS SELECT 'duck' AS sku, 1 AS qty, 5 AS price;
        CREATE TABLE carts_t AS FROM (VALUES (1, 'a', 'duck', 2, 'ordered'), (2, 'a', 'duck', 2, 'refused'))
            AS t(cart_id, shop, sku, qty, state);
        CREATE TABLE orders_t AS SELECT 'x' AS order_id, 1 AS cart_id, 'duck' AS sku, 2 AS qty, 10 AS amount;
        CREATE TABLE payments_t AS SELECT 'x' AS order_id, 10 AS amount;
    """)
    con.execute(change)

    def query(sql: str) -> list[dict[str, Any]]:
        found = con.sql(sql)
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    assert broken(query, TABLES, Expected({"duck": 3}, 2, {1: "x", 2: None})) == promises


def test_no_promise_goes_untested_for_want_of_customers() -> None:
    con = duckdb.connect()
    con.execute("CREATE TABLE carts_t (cart_id INT, shop TEXT, sku TEXT, qty INT, state TEXT)")
    con.execute("CREATE TABLE orders_t (order_id TEXT, cart_id INT, sku TEXT, qty INT, amount INT)")
    con.execute("CREATE TABLE stock_t (sku TEXT, qty INT); CREATE TABLE payments_t (order_id TEXT, amount INT)")

    def query(sql: str) -> list[dict[str, Any]]:
        return [{"row": row} for row in con.sql(sql).fetchall()]

    assert broken(query, TABLES, Expected({"duck": 3}, 1, {})) == {LEFT, "every cart was ordered or refused"}


@pytest.mark.parametrize(
    ("look", "wrong"),
    [
        (Look(7, 3, 2, 15, 15), 0),
        (Look(None, 0, 0, 0, 0), 0),  # it has seen nothing yet
        (Look(7, 4, 2, 15, 15), 1),
        (Look(7, 2, 1, 15, 10), 2),
    ],
)
def test_a_look_at_part_of_an_order_is_wrong(look: Look, wrong: int) -> None:
    assert len(look.wrong(began_with=10)) == wrong


@pytest.mark.parametrize(
    ("change", "broken_promises"),
    [
        ({}, 0),
        ({"digest": "2"}, 1),
        ({"position": "stock/0:9", "digest": "2"}, 2),
        ({"wrong": ["a row is there twice"]}, 1),
        ({"unproven": ["the log has lost records"]}, 1),
        ({"table": "other"}, 2),
    ],
)
def test_rooms_that_differ_or_do_not_add_up_are_found(
    change: dict[str, Any], broken_promises: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"table": "stock", "position": "stock/0:8", "digest": "1", "wrong": [], "unproven": []}
    account |= {"rejected": 3, "repeated": 4}
    audits = {"n": [account], "s": [{**account, **change}]}
    monkeypatch.setattr("examples.shop.check.audit", lambda store, servers: audits[store])
    findings, sums = compare([Room("r", "north", "n"), Room("r", "south", "s")], "")
    assert sum(bool(finding.broken_by) for finding in findings) == broken_promises
    assert sums == {"rejected": 3, "repeated": 4}


def test_an_audit_that_fails_breaks_the_promise(tmp_path: Path) -> None:
    findings, _ = compare([Room("r", name, str(tmp_path / name)) for name in ("north", "south")], "127.0.0.1:1")
    assert len(findings[0].broken_by) == 2 and "no such file" in findings[0].broken_by[0]


# -- its README ------------------------------------------------------------------------------------


def test_the_lines_in_the_readme_are_those_of_the_code() -> None:
    folder = ROOT / "examples" / "shop"
    sources = [path.read_text() for path in folder.glob("*.py")]
    quoted = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert quoted
    for block in quoted:
        assert any(block in source for source in sources), block


def test_the_readme_names_every_file_and_no_other() -> None:
    folder = ROOT / "examples" / "shop"
    named = set(re.findall(r"\]\((\w+\.py)\)", (folder / "README.md").read_text()))
    assert named == {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
