"""``archive erase``, as a shell runs it, on a real log."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Cli

ROWS = '{"order_id": 1, "sku": "her-secret", "qty": 1}\n{"order_id": 2, "sku": "his", "qty": 2}\n'


@pytest.fixture
def backed_up(cli: Cli, orders: str, tmp_path: Path) -> list[object]:
    """The words that name an archive of *orders* with two rows, and a full backup of them."""
    place = ["--archive", tmp_path / "archive"]
    assert cli("put", orders, stdin=ROWS).code == 0
    follow(cli, orders, tmp_path)
    assert cli("backup", "create", "--store", tmp_path / "shop.duckdb", *place).code == 0
    return place


def follow(cli: Cli, orders: str, folder: Path) -> None:
    run = ["replica", "run", "--group", "g", "--tables", orders, "--until-end", "--store", folder / "shop.duckdb"]
    assert cli(*run).code == 0


def test_a_key_is_erased_once_its_row_is_deleted(
    cli: Cli, orders: str, backed_up: list[object], tmp_path: Path
) -> None:
    erase = ["archive", "erase", orders, "1", *backed_up]
    cli(*erase).failed(1, "is no delete")
    assert cli("delete", orders, "1").code == 0
    follow(cli, orders, tmp_path)
    assert cli("backup", "create", "--type", "incr", "--store", tmp_path / "shop.duckdb", *backed_up).code == 0
    shown = cli(*erase)
    assert shown.code == 0 and "nothing was done: --execute does it" in shown.err
    assert "1 row, 0 in quarantine" in shown.err and "has not passed 2 records" in shown.err
    done = cli(*erase, "--execute", "--json").json[0]
    assert done["executed"] and (done["erased"]["records"], done["erased"]["stand_ins"]) == (2, 0)
    assert [len(done["erased"][kind]) for kind in ("backups", "points")] == [1, 1]
    report = cli("archive", "check", *backed_up, "--json").json[0]
    assert report["sound"] and [n["kind"] for n in report["notes"]] == ["erased"]
    assert sum(each["erased"] for each in report["partitions"]) == 2
    assert cli("backup", "verify", *backed_up, "--drill").code == 0
    assert [len(each["erased"]) for each in cli("backup", "list", *backed_up, "--json").json] == [1, 1]
    again = cli(*erase, "--execute")
    assert again.code == 0 and "nothing of this key" in again.out
    assert not [path for path in tmp_path.glob("archive/**/*") if path.is_file() and b"her-secret" in path.read_bytes()]
    restored = ["--store", tmp_path / "then.duckdb"]
    assert cli("restore", *backed_up, *restored).code == 0
    assert cli("query", f'select sku from "{orders}"', *restored, "--format", "json").json == [{"sku": "his"}]
    assert cli("archive", "run", *backed_up, "--tables", orders, "--until-end").code == 0


def test_what_cannot_be_erased_is_told(cli: Cli, orders: str, backed_up: list[object], tmp_path: Path) -> None:
    cli("archive", "erase", "nobody", "1", *backed_up).failed(2, "nobody")
    cli("archive", "erase", orders, "one", *backed_up).failed(2, "order_id")
    cli("archive", "erase", orders, "1", "2", *backed_up).failed(2, "one key at a time")
    cli("archive", "erase", orders, "1", "--archive", tmp_path / "none").failed(1, "there is no archive")
    assert "nothing of this key" in cli("archive", "erase", orders, "3", *backed_up).out
