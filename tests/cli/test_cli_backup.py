"""``backup``, ``restore`` and ``replica run --config``, as a shell runs them."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import merganser as mg
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.check import check
from merganser.pipeline.cli.bars import Bars
from merganser.pipeline.loading.ledger import LEDGER
from support.cli import MERGANSER, Cli, Shop
from support.waiting import wait_for


@pytest.fixture(scope="module")
def archive(shop: Shop, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with one backup of the shared shop."""
    path = tmp_path_factory.mktemp("archive")
    with mg.connect(broker) as log, StoreFile(shop.store) as store:
        mg.Archive(path).backup(store, log)
    return path


def test_a_backup_is_made_listed_proved_and_restored(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    place = ["--archive", tmp_path / "archive"]
    made = cli("backup", "create", "--store", shop.store, *place, "--annotate", "why=a test", "--json").json[0]
    assert (made["type"], made["rows"], made["annotations"]) == ("full", 2, {"why": "a test"})
    again = cli("backup", "create", "--store", shop.store, *place, "--type", "incr")
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{6}\n", again.out) and "incr, 2 rows, 0 new bytes" in again.err
    listed = cli("backup", "list", *place, "--json").json
    assert [(b["id"], b["base"]) for b in listed] == [(made["id"], None), (again.out.strip(), made["id"])]
    assert "why=a test" in cli("backup", "list", *place).out
    proved = cli("backup", "verify", *place, "--drill")
    assert proved.err.startswith("sound: 2 backups, ")
    assert proved.code == 0 and proved.out.count("2 rows, every digest as it was backed up") == 2
    shown = cli("restore", *place, "--store", tmp_path / "new.duckdb", "--dry-run").out
    assert f"base     {made['id']}, 2 rows" in shown and "log      not needed" in shown
    assert not (tmp_path / "new.duckdb").exists()
    done = cli("restore", *place, "--store", tmp_path / "new.duckdb", "--json").json[0]
    assert (done["rows"], done["base"], done["compared"]) == (2, made["id"], again.out.strip())
    sql = f'select order_id, qty from "{shop.table}" order by 1'
    assert cli("query", sql, "--store", tmp_path / "new.duckdb", "--format", "json").json == [
        {"order_id": 1, "qty": 2},
        {"order_id": 2, "qty": 2},
    ]


def test_a_store_that_is_there_is_not_replaced(cli: Cli, shop: Shop, archive: Path, tmp_path: Path) -> None:
    path = shop.copy_to(tmp_path / "shop.duckdb")
    cli("restore", "--archive", archive, "--store", path).failed(2, "is not replaced", "group 'shop'")
    done = cli("restore", "--archive", archive, "--store", path, "--force")
    assert done.code == 0 and "before-restore" in done.err


def test_damage_is_told_and_refused(cli: Cli, archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "archive"
    subprocess.run(["cp", "-r", archive, copy], check=True)
    file = max((copy / "files").iterdir(), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-3])
    done = cli("backup", "verify", "--archive", copy)
    assert done.code == 1 and file.name in done.out and "error: " in done.err and "hint: " in done.err
    cli("restore", "--archive", copy, "--store", tmp_path / "new.duckdb").failed(1, "is damaged", file.name)
    manifest = next((copy / "backups").glob("2*/manifest.json"))
    manifest.unlink()
    cli("restore", "--archive", copy, "--store", tmp_path / "new.duckdb").failed(1, "deleted")
    assert "deleted" in cli("backup", "list", "--archive", copy).out
    cli("backup", "expire", "--archive", copy, "--forget", manifest.parent.name)
    assert cli("backup", "list", "--archive", copy, "--json").json == []


def test_damage_that_only_reading_shows_has_a_way_out(cli: Cli, shop: Shop, archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "archive"
    subprocess.run(["cp", "-r", archive, copy], check=True)
    file = max((copy / "files").iterdir(), key=lambda path: path.stat().st_size)
    good = file.read_bytes()
    file.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    create = ["backup", "create", "--store", shop.store, "--archive", copy]
    again = cli(*create).out.strip()  # names the file, and does not read it
    damaged = cli("backup", "verify", "--archive", copy)
    assert damaged.code == 1 and again in damaged.out and "remove those of backups" in damaged.err
    cli("backup", "expire", "--archive", copy, "--forget", again)
    assert again not in cli("backup", "list", "--archive", copy).out
    file.unlink()
    assert cli(*create).code == 0 and file.read_bytes() == good
    assert cli("backup", "verify", "--archive", copy, "--drill").code == 0


def test_reading_an_archive_comes_to_its_end_beside_backups(archive: Path) -> None:
    told: list[tuple[int, int]] = []
    check(mg.Archive(archive), tell=lambda read, of: told.append((read, of)))
    assert told[-1][0] == told[-1][1] > 0


def test_a_step_that_comes_again_has_the_bar_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    with Bars() as bars:
        for _ in range(3):
            bars.begin("load", 5)
            bars.advance(5)
            bars.begin("apply", 0)
    last = screen.getvalue().rpartition("\x1b[1A")[2]
    assert last.count("load") == last.count("apply") == 1 and last.count("100 %") == 2


def test_expire_says_what_it_keeps_and_why(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    place = ["--archive", tmp_path / "archive"]
    old, new = (cli("backup", "create", "--store", shop.store, *place).out.strip() for _ in range(2))
    shown = cli("backup", "expire", *place, "--keep-full", 1, "--dry-run")
    assert re.search(rf"{old} +full +remove +nothing keeps it", shown.out) and "would be" in shown.err
    assert len(cli("backup", "list", *place, "--json").json) == 2
    *verdicts, sums = cli("backup", "expire", *place, "--keep-full", 1, "--json").json
    assert [(v["id"], v["kept"]) for v in verdicts] == [(old, False), (new, True)] and not sums["waiting"]
    assert [b["id"] for b in cli("backup", "list", *place, "--json").json] == [new]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["backup", "list"], 1, "there is no archive"),
        (["backup", "verify", "2020"], 1, "there is no archive"),
        (["restore", "--store", "new.duckdb"], 1, "there is no archive"),
        (["backup", "expire"], 1, "there is no archive"),
    ],
)
def test_where_there_is_no_archive_nothing_is_made(
    words: list[str], code: int, told: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli(*words, "--archive", tmp_path / "nothing").failed(code, told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["backup", "expire"], "nothing says what to keep"),
        (["backup", "expire", "--keep-full", 0], "--keep-full"),
        (["backup", "verify", "2020"], "no backup '2020'"),
        (["restore", "--store", "new.duckdb", "--to", "yesterday"], "latest, a position"),
        (["restore", "--store", "new.duckdb", "--to", "2026-01-31T12:00:00"], "no zone"),
        (["restore", "--store", "new.duckdb", "--tables", "nonsense"], "unknown table"),
        (["restore", "--store", "new.duckdb", "--base", "2020"], "no backup '2020'"),
        (["restore", "--store", "new.duckdb", "--base", "none"], "no backup is begun with, so the group"),
    ],
)
def test_wrong_use_is_one_line_and_a_hint(
    words: list[str], told: str, cli: Cli, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli(*words, "--archive", archive).failed(2, told)
    assert not list(tmp_path.iterdir())


def test_a_note_that_is_none_is_refused(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    words = ["backup", "create", "--store", shop.store, "--archive", tmp_path / "a", "--annotate", "nonsense"]
    cli(*words).failed(2, "NAME=VALUE")
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_is_told(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    place = ["--archive", tmp_path / "archive"]
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("01" * 32 + "\n")
    other.write_text("02" * 32)
    assert cli("backup", "create", "--store", shop.store, *place, "--key-file", key).code == 0
    assert cli("backup", "verify", *place, "--key-file", key).code == 0
    cli("backup", "verify", *place, "--key-file", other).failed(1, "the key given is")
    cli("restore", *place, "--store", tmp_path / "new.duckdb").failed(1, "no key was given")
    assert cli("restore", *place, "--store", tmp_path / "new.duckdb", "--key-file", key).code == 0


def test_restore_needs_no_kafka(cli: Cli, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = cli("restore", "--archive", archive, "--store", tmp_path / "new.duckdb", "--timeout", 0.5)
    assert done.code == 0 and "does not answer" in done.err and "2 rows" in done.out


def test_kafka_leads_on_where_the_archive_ends(cli: Cli, orders: str, store: Path, tmp_path: Path) -> None:
    place = ["--archive", tmp_path / "archive"]
    cli("backup", "create", "--store", store, *place)
    before = datetime.now(UTC)
    wait_for("the clock to move on", lambda: datetime.now(UTC) > before + timedelta(milliseconds=50))
    cli("put", orders, stdin='{"order_id": 8, "sku": "late", "qty": 1}')

    def restored(to: str) -> dict[str, object]:
        done: dict[str, object] = cli(
            "restore", *place, "--store", tmp_path / f"{to[-12:]}.duckdb", "--to", to, "--json"
        ).json[0]
        return done

    latest, then, ever = restored("latest"), restored(before.isoformat()), restored("2199-01-01T00:00:00Z")
    assert (latest["rows"], latest["live_offsets"]) == (3, 1)
    assert (then["rows"], then["live_offsets"]) == (2, 0)
    assert ever["target"] == latest["target"] and ever["rows"] == 3
    # and the replica goes on from there, without a double
    cli("put", orders, stdin='{"order_id": 9, "sku": "later", "qty": 1}')
    path = tmp_path / "latest.duckdb"
    assert cli("replica", "run", "--store", path, "--group", "shop", "--tables", orders, "--until-end").code == 0
    assert cli("query", f'select count(*) n from "{orders}"', "--store", path, "--format", "json").json == [{"n": 4}]
    assert cli("audit", "--store", path, "--log").code == 0


# -- a node ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[replica]\nstroe = 'x'", "replica.stroe: there is no such key"),
        ("[archive]\nurl = 'a'\n[[backup]]\ncron = 'never'", "backup.cron: 'never'"),
        ("", "Missing option '--store'"),
    ],
)
def test_a_bad_config_starts_nothing(text: str, told: str, cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "merganser.toml"
    config.write_text(text)
    cli("replica", "run", "--config", config).failed(2, told)
    assert [path.name for path in tmp_path.iterdir()] == ["merganser.toml"]


@pytest.fixture
def node(cli: Cli, orders: str, tmp_path: Path) -> Iterator[Path]:
    """A folder in which a node of *orders* runs that archives, and is due for its first backup."""
    (tmp_path / "merganser.toml").write_text(
        f"""
        [replica]
        store = "shop.duckdb"
        group = "shop-{uuid.uuid4().hex[:8]}"
        tables = ["{orders}"]
        [archive]
        url = "archive"
        roll = 0.5
        [[backup]]
        cron = "0 0 1 1 *"
        [expire]
        keep-full = 1
        [serve]
        http = "127.0.0.1:0"
        """
    )
    cli("put", orders, stdin='{"order_id": 1, "sku": "a", "qty": 1}')
    line = [*MERGANSER, "replica", "run", "--config", str(tmp_path / "merganser.toml"), "--json", "--every", "0.1"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(line, stdout=out, stderr=err)
    try:
        yield tmp_path
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "err").read_text()


def test_a_node_archives_and_makes_its_backups(node: Path, cli: Cli, orders: str) -> None:
    def said() -> dict[str, Any]:
        lines = (node / "out").read_text().splitlines()
        return json.loads(lines[-1]) if lines else {}

    def backup() -> dict[str, object]:
        found = said().get("backup") or {}
        assert isinstance(found, dict)
        return found

    wait_for("the first backup", lambda: backup().get("last") is not None, timeout_s=120)
    [made] = cli("backup", "list", "--archive", node / "archive", "--json").json
    assert made["rows"] == 1, "not of the store before it had read the log"
    assert made["id"] == backup()["last"] and made["schedule"] == "full 0 0 1 1 *" and not made["late"]
    assert backup()["next"] and not backup()["failed"] and f"backup {made['id']} made" in (node / "err").read_text()
    cli("put", orders, stdin='{"order_id": 2, "sku": "a", "qty": 1}')
    place, both = mg.Archive(node / "archive"), [mg.TopicPartition(orders, p) for p in range(2)]
    wait_for("the new row to be archived", lambda: sum(place.log().ends(both).values()) == 2)
    restored = cli("restore", "--archive", node / "archive", "--store", node / "new.duckdb", "--json").json[0]
    assert restored["rows"] == 2

    def metrics() -> dict[str, list[Any]]:
        with urllib.request.urlopen(f"{said()['http']['url']}/metrics", timeout=10) as answer:
            return {f.name: f.samples for f in text_string_to_metric_families(answer.read().decode())}

    def archived() -> dict[tuple[str, str], float]:
        """The ledger of imports is archived as well, once another test of the session has made one."""
        found = metrics()["merganser_archived_offset"]
        return {(s.labels["table"], s.labels["partition"]): s.value for s in found if s.labels["table"] != LEDGER}

    wait_for("the node to know that", lambda: sum(archived().values()) == 2)
    assert set(archived()) == {(orders, "0"), (orders, "1")}
    assert {s.value for s in metrics()["merganser_archive_stopped"]} == {0}
    wait_for("the look at the log's end", lambda: {s.value for s in metrics()["merganser_archive_lag_records"]} == {0})
    [last] = metrics()["merganser_backup_last_timestamp_seconds"]
    assert last.value == datetime.fromisoformat(made["created"]).timestamp()
    [following] = metrics()["merganser_backup_next_timestamp_seconds"]
    assert following.value == datetime.fromisoformat(str(backup()["next"])).timestamp() > last.value
    told, page = metrics(), (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
    assert all(f"`{name}`" in page or f"`{name}_total`" in page for name in told if name.startswith("merganser_"))
