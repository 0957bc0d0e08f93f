"""``archive run`` and ``archive check``, and ``replica run --archive``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from merganser.pipeline.archive.archive import Archive
from support.cli import MERGANSER, Cli
from support.waiting import wait_for

ROWS = '{"order_id": 1, "sku": "a", "qty": 1}\n{"order_id": 2, "sku": "b", "qty": 2}\n'


@pytest.fixture
def archived(cli: Cli, orders: str, tmp_path: Path) -> Path:
    """An archive of *orders* with two rows."""
    cli("put", orders, stdin=ROWS)
    folder = tmp_path / "archive"
    done = cli("archive", "run", "--archive", folder, "--tables", orders, "--until-end", "--json", "--every", "0.05")
    assert done.code == 0, done
    assert done.json[-1]["archived"] >= 2 and done.json[-1]["lag"] == 0  # a ledger of imports may go with it
    return folder


def test_an_archive_is_run_and_checked(cli: Cli, orders: str, archived: Path) -> None:
    done = cli("archive", "check", "--archive", archived, "--json")
    assert done.code == 0
    report = done.json[0]
    assert report["sound"] and report["log_asked"] and not report["notes"]
    assert sum(each["rows"] for each in report["partitions"] if each["table"] == orders) == 2
    text = cli("archive", "check", "--archive", archived)
    assert text.code == 0 and text.out.splitlines()[-1].startswith("sound: ") and orders in text.out
    assert cli("archive", "run", "--archive", archived, "--tables", orders, "--until-end").code == 0


def test_what_is_wrong_is_a_line_each_and_exit_1(cli: Cli, archived: Path) -> None:
    gone, bad = next(archived.rglob("*.parquet")), next(archived.rglob("head.json"))
    gone.unlink()
    bad.write_bytes(bad.read_bytes()[:-9])
    done = cli("archive", "check", "--archive", archived)
    assert done.code == 1 and "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert any(gone.name in line and "missing" in line for line in lines)
    assert any(bad.name in line and "changed" in line for line in lines)
    found = cli("archive", "check", "--archive", archived, "--json")
    assert found.code == 1 and {each["kind"] for each in found.json[0]["findings"]} >= {"missing", "changed"}


def test_a_replica_is_filled_from_the_archive(cli: Cli, orders: str, archived: Path, tmp_path: Path) -> None:
    import merganser as mg

    with mg.connect() as log:
        ends = log.ends([mg.TopicPartition(orders, p) for p in range(2)])
        admin = AdminClient({"bootstrap.servers": log.bootstrap_servers})
        for future in admin.delete_records([TopicPartition(*tp, end) for tp, end in ends.items() if end]).values():
            future.result(20)
    run = ["replica", "run", "--group", "g", "--tables", orders, "--until-end", "--store", tmp_path / "s.duckdb"]
    cli(*run).failed(1, "begins at offset")
    assert cli(*run, "--archive", archived).code == 0
    done = cli("query", f'select sku from "{orders}" order by 1', "--store", tmp_path / "s.duckdb", "--format", "json")
    assert [row["sku"] for row in done.json] == ["a", "b"]
    cli(*run, "--archive", tmp_path / "nothing").failed(1, "there is no archive")
    cli(*run[:-3], "--store", tmp_path / "s", "--split", "--archive", archived).failed(2, "--split")


def test_a_local_broker_of_another_cluster_does_not_hinder_a_check(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Archive(str(tmp_path / "lost")).claim("the cluster that is lost")
    cli("archive", "check", "--archive", tmp_path / "lost").failed(1, "is the archive of cluster the cluster that")
    monkeypatch.delenv("MERGANSER_BOOTSTRAP_SERVERS")
    monkeypatch.setenv("MERGANSER_HOME", os.environ["MERGANSER_TEST_HOME"])
    if not cli("broker", "status", "--json").json[0]["running"]:
        pytest.skip("the tests' broker is no local one")
    done = cli("archive", "check", "--archive", tmp_path / "lost", "--json")
    assert done.code == 0 and done.json[0]["sound"] and not done.json[0]["log_asked"]


def test_an_archive_of_a_log_that_is_empty_by_now_comes_to_its_end(
    cli: Cli, orders: str, tmp_path: Path, broker: str
) -> None:
    cli("put", orders, stdin=ROWS)
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_records([TopicPartition(orders, p, -1) for p in range(2)]).values():
        future.result(20)
    place = ["--archive", tmp_path / "archive"]
    run = [*MERGANSER, "archive", "run", *place, "--tables", orders, "--until-end"]
    assert subprocess.run([str(word) for word in run], timeout=300, check=False).returncode == 0
    store = tmp_path / "s.duckdb"
    follow = ["replica", "run", "--store", store, "--group", "g", "--tables", orders, "--accept-partial", "--until-end"]
    assert cli(*follow).code == 0
    assert cli("backup", "create", "--store", store, *place).code == 0
    assert cli("backup", "create", "--store", store, *place, "--type", "incr").code == 0
    cli("put", orders, stdin=ROWS)
    assert cli("archive", "run", *place, "--tables", orders, "--until-end").code == 0
    assert cli("archive", "check", *place).code == 0
    assert cli("backup", "verify", *place, "--drill").code == 0


def test_an_encrypted_archive_is_read_with_its_key_only(cli: Cli, orders: str, tmp_path: Path) -> None:
    cli("put", orders, stdin=ROWS)
    key, other, folder = tmp_path / "key", tmp_path / "other", tmp_path / "archive"
    key.write_text("ab" * 32 + "\n")
    other.write_text("cd" * 32)
    run = ["archive", "run", "--archive", folder, "--tables", orders, "--until-end"]
    assert cli(*run, "--key-file", key).code == 0
    assert cli("archive", "check", "--archive", folder, "--key-file", key).code == 0
    assert cli("archive", "check", "--archive", folder, "--quick").code == 0
    cli("archive", "check", "--archive", folder).failed(1, "encrypted", "no key was given")
    cli("archive", "check", "--archive", folder, "--key-file", other).failed(1, "the key given is")
    cli(*run, "--key-file", tmp_path / "none").failed(2, "No such file")


def test_wrong_use_is_told_and_nothing_is_written(cli: Cli, orders: str, archived: Path, tmp_path: Path) -> None:
    cli("archive", "run", "--archive", "nonsense://x", "--tables", orders).failed(2, "no store of objects")
    cli("archive", "run", "--archive", tmp_path / "x", "--tables", "no-such-table").failed(2, "no-such-table")
    cli("archive", "run", "--archive", tmp_path / "x", "--tables", ",").failed(2, "one table name")
    cli("archive", "check", "--archive", tmp_path / "y", "--json").code  # noqa: B018
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_what_was_read_is_archived(
    cli: Cli, orders: str, tmp_path: Path, number: signal.Signals
) -> None:
    line = [*MERGANSER, "archive", "run", "--archive", str(tmp_path / "a"), "--tables", orders, "--json"]
    process = subprocess.Popen([*line, "--every", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: list[dict[str, Any]] = []

    def listen() -> None:
        assert process.stdout is not None
        said.extend(json.loads(text) for text in process.stdout)

    threading.Thread(target=listen, daemon=True).start()
    try:
        wait_for("it runs", lambda: bool(said))
        cli("put", orders, stdin=ROWS)
        wait_for("it lags", lambda: said[-1]["lag"] >= 2)  # imports of other tests are archived too
        looks = len(said)
        wait_for("it has read them", lambda: len(said) > looks + 20)
        process.send_signal(number)
        assert process.wait(120) == 0
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
    report = cli("archive", "check", "--archive", tmp_path / "a", "--json").json[0]
    rows = [each["rows"] for each in report["partitions"] if each["table"] == orders]
    assert not report["findings"] and sum(rows) == 2, report


def test_a_check_needs_no_kafka(cli: Cli, archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERGANSER_BOOTSTRAP_SERVERS")
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path / "empty"))
    done = cli("archive", "check", "--archive", archived)
    assert done.code == 0 and "no log at hand" in done.out
    assert not (tmp_path / "empty").exists() and Archive(archived).cluster_id()
