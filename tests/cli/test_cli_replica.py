"""``replica run``, and ``status`` and ``audit`` of what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka.admin import AdminClient

from support.cli import MERGANSER, Cli
from support.waiting import wait_for


class Running:
    """A ``replica run --json``, and what it says."""

    def __init__(self, store: Path, table: str, *words: str) -> None:
        line = [*MERGANSER, "replica", "run", "--store", str(store), "--group", "shop", "--tables", table]
        line += ["--json", "--every", "0.1", *words]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(json.loads(line) for line in self.process.stdout)

    def wait_until(self, what: str, **fields: object) -> None:
        wait_for(what, lambda: bool(self.said) and fields.items() <= self.said[-1].items())

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.process.wait(120), self.process.stderr.read() if self.process.stderr else ""


@pytest.fixture
def running(cli: Cli, orders: str, store: Path) -> Iterator[Running]:
    replica = Running(store, orders)
    try:
        replica.wait_until("the replica is up to date", lag=0)
        yield replica
    finally:
        replica.process.kill()
        replica.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_replica_cleanly(running: Running, cli: Cli, orders: str, store: Path, number: int) -> None:
    cli("put", orders, stdin='{"order_id": 9, "sku": "a", "qty": 1}')
    running.wait_until("the new row is applied", applied=5, lag=0)
    code, err = running.end(number)
    assert code == 0 and "Traceback" not in err
    assert not store.with_name(store.name + ".wal").exists()


def test_while_a_replica_runs_others_are_told_who_has_the_store(
    running: Running, cli: Cli, orders: str, store: Path
) -> None:
    cli("query", "select 1", "--store", store).failed(1, "in use by another process", str(running.process.pid))
    again = cli("replica", "run", "--store", store, "--group", "shop", "--tables", orders)
    again.failed(1, "in use by another process")


def test_a_replica_that_cannot_go_on_ends_with_the_reason(
    running: Running, cli: Cli, orders: str, store: Path, broker: str
) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    admin.delete_topics([orders])[orders].result(30)
    assert running.process.wait(60) == 1
    assert running.process.stderr is not None
    error, hint = running.process.stderr.read().splitlines()
    assert error.startswith(f"error: table '{orders}' stopped") and hint.startswith("hint: ")
    [table] = cli("status", "--store", store, "--json").json[0]["tables"]
    assert "deleted" in table["stopped"]
    assert cli("audit", "--store", store).code == 0


def test_what_a_killed_replica_left_can_be_read(running: Running, cli: Cli, orders: str, store: Path) -> None:
    cli("put", orders, stdin='{"order_id": 9, "sku": "a", "qty": 1}')
    running.wait_until("the new row is applied", applied=5, lag=0)
    running.end(signal.SIGKILL)
    assert store.with_name(store.name + ".wal").exists()
    found = cli("query", f'select count(*) as n from "{orders}"', "--store", store, "--format", "json")
    assert found.json == [{"n": 3}]
    assert cli("audit", "--store", store, "--log").code == 0


def test_a_replica_without_a_terminal_says_when_it_has_caught_up(cli: Cli, orders: str, tmp_path: Path) -> None:
    line = [*MERGANSER, "replica", "run", "--store", str(tmp_path / "new.duckdb"), "--group", "g", "--tables", orders]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert "lag 0" in next(text for text in process.stdout if "lag 0" in text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


# -- status and audit --------------------------------------------------------------------------


def test_status_tells_position_lag_and_quarantine(cli: Cli, orders: str, store: Path) -> None:
    cli("put", orders, stdin='{"order_id": 9, "sku": "a", "qty": 1}')
    status = cli("status", "--store", store, "--json").json[0]
    [table] = status["tables"]
    assert (table["table"], table["applied"], table["lag"], table["quarantined"]) == (orders, 4, 1, 0)
    assert status["group"] == "shop" and orders in status["position"]
    assert orders in cli("status", "--store", store).out


def test_an_account_that_adds_up(cli: Cli, orders: str, store: Path) -> None:
    done = cli("audit", "--store", store, "--log")
    assert done.code == 0 and "The log has exactly these records." in done.out
    [account] = cli("audit", "--store", store, "--json").json
    terms = [account[name] for name in ("offsets", "live", "superseded", "deletes", "quarantined", "gaps")]
    assert terms == [4, 2, 1, 1, 0, 0] and account["digest"].startswith("2-") and not account["wrong"]


@pytest.mark.parametrize(
    ("sql", "off"),
    [
        ('DELETE FROM "{orders}" WHERE order_id = 1', "1 are live"),
        ('INSERT INTO "{orders}" SELECT * FROM "{orders}" WHERE order_id = 1', "another row"),
        ('UPDATE "{orders}" SET _offset = _offset + 1000', "rows of offsets"),
        ('UPDATE "{orders}" SET _partition = 7 WHERE order_id = 1', "partitions that the store does not hold"),
        ("UPDATE _merganser.positions SET next_offset = next_offset + 1 WHERE partition = 0", "records and"),
        ("UPDATE _merganser.positions SET deletes = deletes + 1 WHERE partition = 0", "records and"),
    ],
)
def test_an_account_that_is_off_is_named(cli: Cli, orders: str, store: Path, sql: str, off: str) -> None:
    _change(store, sql.format(orders=orders))
    done = cli("audit", "--store", store)
    assert done.code == 1 and orders in done.err and off in done.err
    assert "Every offset is accounted for" not in done.out


def test_a_lost_row_that_the_numbers_hide_is_found_in_the_log(cli: Cli, orders: str, store: Path) -> None:
    """A record passed off as a gap: the sum holds, and only the log knows better."""
    _change(store, f'DELETE FROM "{orders}" WHERE order_id = 1')
    where = f'puts > 0 AND partition = (SELECT min(_partition) FROM "{orders}")'
    _change(store, f"UPDATE _merganser.positions SET puts = puts - 1, gaps = gaps + 1 WHERE {where}")
    assert cli("audit", "--store", store).code == 0
    cli("audit", "--store", store, "--log", "--json").failed(1, orders, "the log has")


def _change(store: Path, sql: str) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute(sql)


def test_a_node_takes_the_limits_of_its_store_from_its_file(cli: Cli, orders: str, tmp_path: Path) -> None:
    file = tmp_path / "merganser.toml"
    said = f'[replica]\nstore = "s.duckdb"\ngroup = "g"\ntables = ["{orders}"]\n'
    file.write_text(f"{said}[limits]\nhead-room = {2**60}\n")
    cli("replica", "run", "--config", file, "--until-end").failed(1, "no room for store")
    file.write_text(said)
    assert cli("replica", "run", "--config", file, "--until-end").code == 0
