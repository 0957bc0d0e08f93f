"""The commands that ask a node: query, status, verify, snapshot-file, and the prompt."""

from __future__ import annotations

import io
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

import merganser as mg
from merganser.__main__ import main
from merganser.consumers.digest import table_digest
from merganser.pipeline.cli.query import Fresh
from merganser.pipeline.cli.shell import Shell, candidates, history_file, of_client
from merganser.pipeline.cli.status import _show_node
from merganser.pipeline.cli.verify import Facts, ReplicasDiffer, compared
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.users.secrets import Cost, Hash, new_token, token_hash
from merganser.pipeline.serving.users.users import User, changing
from merganser.schemas.errors import MerganserError, TopicRecreated, UsageError
from serving.world import ORDERS, TABLES, World, world
from support.cli import Cli, Done
from support.waiting import wait_for


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands that ask no broker."""
    for name in ("MERGANSER_PASSWORD", "MERGANSER_TOKEN", "MERGANSER_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: object, stdin: str | bytes = "") -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("shop"), 50) as opened:
        yield opened


@contextmanager
def door(replica: mg.Replica, log: Any, **config: Any) -> Iterator[str]:
    with Doors(ServeConfig(http="127.0.0.1:0", **config), replica, log) as doors:
        yield str(doors.http)


@pytest.fixture(scope="module")
def url(shop: World) -> Iterator[str]:
    with door(shop.replica, shop.log) as opened:
        yield opened


def test_query_asks_a_node_in_each_format(cli: Cli, url: str, shop: World) -> None:
    sql = "select id, qty from orders where id < 2 order by id"
    assert cli("query", sql, "--url", url, "--format", "json").json == [{"id": 0, "qty": 0}, {"id": 1, "qty": 1}]
    assert cli("query", sql, "--url", url, "--format", "csv").out == '"id","qty"\n0,0\n1,1\n'
    done = cli("query", sql, "--url", url)
    assert "2 rows at " + str(shop.replica.read_position) in done.err
    shop.put(ORDERS, 5000)
    fresh = ("query", "select count(*) as n from orders where id = 5000", "--url", url, "--format", "json")
    assert cli(*fresh, "--after", shop.end).json == [{"n": 1}]
    assert cli("query", "--url", url, "--format", "json", stdin="select 7 as n\n").json == [{"n": 7}]


def test_query_says_what_is_wrong(cli: Cli, url: str) -> None:
    cli("query", "select", "--url", url).failed(2)
    cli("query", "select 1").failed(2, "--store FILE or --url")
    cli("query", "select 1", "--url", url, "--store", "x").failed(2, "either")
    cli("query", "select 1", "--url", "http://127.0.0.1:1").failed(1, "no replica answered")
    cli("query", "select 1", "--url", "127.0.0.1:1").failed(2, "not an address")
    cli("query", "select 1", "--url", url, "--user", "ann").failed(2, "password")
    cli("query", "--url", url).failed(2, "no SQL")


def test_a_user_logs_in(cli: Cli, shop: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = new_token("bot")
    with changing(tmp_path / "users") as change:
        change.add(User("ann", "reader", password=Hash.of("correct horse", Cost(4, 8, 1))))
        change.add(User("bot", "reader", token=token_hash(token)))
    with door(shop.replica, shop.log, users=tmp_path / "users") as guarded:
        cli("query", "select 1", "--url", guarded).failed(1, "log in")
        monkeypatch.setenv("MERGANSER_PASSWORD", "correct horse")
        assert cli("query", "select 1 as n", "--url", guarded, "--user", "ann", "--format", "json").json == [{"n": 1}]
        cli("snapshot-file", tmp_path / "x", "--url", guarded, "--user", "ann").failed(1, "operators")
        monkeypatch.delenv("MERGANSER_PASSWORD")
        monkeypatch.setenv("MERGANSER_TOKEN", token)
        assert cli("status", "--url", guarded, "--json").json[0]["group"] == "shop"


def test_status_of_a_node(cli: Cli, url: str) -> None:
    wait_for("it to be ready", lambda: cli("status", "--url", url, "--json").json[0]["ready"])
    done = cli("status", "--url", url)
    assert done.code == 0 and "group shop" in done.out and ": ready" in done.out
    assert {line.split()[0] for line in done.out.splitlines()} >= set(TABLES)


def test_status_of_a_node_tells_of_bad_records_and_open_transactions(cli: Cli, tmp_path: Path) -> None:
    with world(tmp_path, rows=50) as bad:
        bad.log.put(ORDERS, 0, b"no key", b"no row")
        bad.replica.wait(bad.end)
        bad.log.stable[mg.TopicPartition(ORDERS, 0)] = 40
        with door(bad.replica, bad.log) as opened:

            def shown() -> list[str]:
                return str(cli("status", "--url", opened).out).splitlines()

            wait_for("the log to be looked at", lambda: any("transaction open" in line for line in shown()))
            lines = shown()
            tables = {t["table"]: t for t in cli("status", "--url", opened, "--json").json[0]["tables"]}
    assert lines[1].split() == ["table", "partitions", "lag", "quarantined", "pending", "state"]
    assert [ORDERS, "1", "0", "1", "0", "follows"] in [line.split() for line in lines]
    assert [(tables[t]["quarantined"], tables[t]["pending"]) for t in TABLES] == [(1, 0), (0, 0)]


def test_status_of_a_node_tells_what_goes_wrong_beside_its_tables(shop: World, cli: Cli) -> None:
    archive = {"position": "orders/0:1", "waiting_for": None, "stopped": {"orders": "gone"}, "failed": "no room"}
    backup = {"last": "2026", "next": "2026-02-01T03:00:00+00:00", "next_type": "incr", "failed": "no place"}
    beside = {"archive": archive, "backup": backup}
    with Doors(ServeConfig(http="127.0.0.1:0"), shop.replica, shop.log, lambda: beside) as doors:
        told = cli("status", "--url", doors.http).out.splitlines()
    assert "archive up to orders/0:1" in told and "archive: orders stopped: gone" in told
    assert "archive: failed: no room" in told and "backup: failed: no place" in told
    assert "backup: last 2026, next incr at 2026-02-01T03:00:00+00:00" in told


def test_status_of_a_node_tells_the_way_out_and_what_nobody_reads_past(cli: Cli, tmp_path: Path) -> None:
    with world(tmp_path, 5) as opened, door(opened.replica, opened.log) as url:
        place = next(tp for tp in opened.end if tp.topic == ORDERS)
        opened.log.stable[place] = 0
        stopped = TopicRecreated(ORDERS, "the topic was deleted")
        opened.replica._progress.stop_table(stopped)

        def told() -> str:
            return cli("status", "--url", url).out

        wait_for("the open transaction to be seen", lambda: f"{place} has had a transaction open" in told())
        assert f"{ORDERS} stopped (TopicRecreated): {stopped.hint}" in told()


@pytest.mark.parametrize(
    ("facts", "failing"),
    [({}, 0), ({"waiting_for": "archive file:///a: No space left on device"}, 1), ({"failed": "it ended"}, 1)],
)
def test_an_archive_that_is_tried_again_and_again_fails_for_its_alarm(
    shop: World, facts: dict[str, str], failing: int
) -> None:
    archive = {"position": "orders/0:1", "waiting_for": None, "stopped": {}, "failed": None, **facts}
    backup = {"last_at": None, "next": None, "waiting_for": "the replica to catch up", "failed": None}
    beside = {"archive": archive, "backup": backup}
    with Doors(ServeConfig(http="127.0.0.1:0"), shop.replica, shop.log, lambda: beside) as doors:
        with urllib.request.urlopen(f"{doors.http}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
    assert f'merganser_part_failed{{part="archive"}} {failing}.0' in metrics
    assert 'merganser_part_failed{part="backup"} 0.0' in metrics


def test_the_lag_of_a_log_that_does_not_answer_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    table = {"table": "t", "partitions": 1, "lag": 0, "stopped": None, "open_transactions": []}
    facts = {"group": "g", "cluster": "c", "ready": True, "position": "t/0:7", "log_away": "away", "failed": None,
             "waiting_for": None, "unfollowed": [], "tables": [table]}  # fmt: skip
    _show_node("http://n", facts)
    assert "?" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("t "))


def test_a_snapshot_file_is_a_plain_database(cli: Cli, url: str, shop: World, tmp_path: Path) -> None:
    out = tmp_path / "out.duckdb"
    made = cli("snapshot-file", out, "--url", url, "--json").json[0]
    with duckdb.connect(str(out), read_only=True) as con, shop.replica.reading() as cursor:
        for table in TABLES:
            assert table_digest(con, table) == table_digest(cursor, table)
            assert con.sql(f"from {table} limit 0").types == cursor.sql(f"from {table} limit 0").types
        [(position,)] = con.sql("select position from _merganser.snapshot").fetchall()
    assert position == made["position"] == str(shop.replica.read_position)
    before = out.read_bytes()
    cli("snapshot-file", out, "--url", url).failed(2, "is there already")
    cli("snapshot-file", out, "--url", "http://127.0.0.1:1", "--force").failed(1, "no replica")
    assert out.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {"out.duckdb"}
    assert cli("snapshot-file", out, "--url", url, "--force").code == 0


def test_a_snapshot_that_is_cut_anywhere_makes_no_file(shop: World, tmp_path: Path) -> None:
    from merganser.pipeline.serving.jobs.snapshot import spooled, write_file

    with spooled(shop.replica, lambda table: True).file as file:
        whole = file.read()
    out = tmp_path / "out.duckdb"
    for length in range(0, len(whole), len(whole) // 23):
        with pytest.raises(Exception):  # noqa: B017  # Arrow's, DuckDB's or ours
            write_file(io.BytesIO(whole[:length]), out)
        assert not list(tmp_path.iterdir()), length
    assert set(write_file(io.BytesIO(whole), out).tables) == set(TABLES)


# -- verify ----------------------------------------------------------------------------------


def test_two_nodes_at_one_position_hold_the_same(cli: Cli, shop: World, url: str, tmp_path: Path) -> None:
    with mg.Replica(tmp_path / "other.duckdb", shop.log, "other", list(TABLES)) as other:  # type: ignore[arg-type]
        other.wait(shop.end)
        with door(other, shop.log) as second:
            found = cli("verify", "--replicas", url, second, "--json").json[0]
            assert {t["table"]: t["same"] for t in found["tables"]} == dict.fromkeys(TABLES, True)
            assert not found["not_compared"] and not found["only_one_has"]
            assert "same" in cli("verify", "--replicas", url, second).out


def facts(offset: int, digest: str) -> Facts:
    return Facts(f"t/0:{offset}", digest, "0-0")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.5
        return self.now_s


def test_a_difference_at_one_position_is_found_and_one_between_positions_is_none() -> None:
    same = compared(lambda *_: {"t": facts(5, "1-a")}, lambda *_: {"t": facts(5, "1-a")}, 5, Clock())
    same.check()
    other = compared(lambda *_: {"t": facts(5, "1-a")}, lambda *_: {"t": facts(5, "1-b")}, 5, Clock())
    with pytest.raises(ReplicasDiffer, match="t"):
        other.check()
    never = compared(lambda *_: {"t": facts(5, "1-a")}, lambda *_: {"t": facts(6, "1-b")}, 2, Clock())
    assert never.waiting == {"t"} and not never.both
    with pytest.raises(MerganserError, match="one position"):
        never.check()
    quarantine = compared(
        lambda *_: {"t": Facts("t/0:1", "a", "1-x")}, lambda *_: {"t": Facts("t/0:1", "a", "1-y")}, 5, Clock()
    )
    with pytest.raises(ReplicasDiffer):
        quarantine.check()


def test_whoever_is_behind_is_waited_for() -> None:
    at = {"left": 9, "right": 3}
    asked: list[tuple[str, str]] = []

    def ask(name: str) -> Any:
        def answer(after: str, timeout_s: float) -> dict[str, Facts]:
            asked.append((name, after))
            if after:
                at[name] = max(at[name], int(after.rpartition(":")[2]))
            return {"t": facts(at[name], "x")}

        return answer

    assert compared(ask("left"), ask("right"), 5, Clock()).both["t"][0].position == "t/0:9"
    assert asked == [("left", ""), ("right", "t/0:9")]


def test_replicas_without_a_common_table_are_no_answer() -> None:
    with pytest.raises(UsageError):
        compared(lambda *_: {"a": facts(1, "x")}, lambda *_: {"b": facts(1, "x")}, 5, Clock())


# -- the prompt ------------------------------------------------------------------------------


def test_the_prompt_runs_statements_and_commands(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with mg.Client(url) as client:
        shown: list[Any] = []
        shell = Shell(of_client(client, Fresh(), 30), lambda result: shown.append(result.rows()))
        lines = iter(["select", "1 as n;", "", "\\level strong", "select count(*) from orders;", "\\d", "\\d orders",
                      "\\nonsense", "selec 1;", "\\?", "exit"])  # fmt: skip
        for statement in shell._statements(lambda prompt: next(lines)):
            shell.do(statement)
    out, err = capsys.readouterr()
    assert shown[0] == [(1,)] and len(shown) == 2
    assert "orders" in out and "BIGINT" in out and "\\level" in out
    assert err.count(" ms") == 2 and err.count("error: ") == 2 and "unknown command" in err and "Traceback" not in err


def test_the_prompt_asks_as_fresh_as_it_was_opened(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with mg.Client(url) as client:
        shown: list[Any] = []
        for fresh, timeout_s, *lines in (
            (Fresh("bounded", max_staleness=60.0), 30, "select 1;"),
            (Fresh("bounded", max_staleness=60.0), 30, "\\level strong", "select 2;"),
            (Fresh(after="orders/0:1000000"), 0.5, "select 3;"),
        ):
            shell = Shell(of_client(client, fresh, timeout_s), lambda result: shown.append(result.rows()))
            for line in lines:
                shell.do(line)
    assert shown == [[(1,)], [(2,)]] and "not fresh enough" in capsys.readouterr().err


def test_a_prompt_of_a_store_does_not_pass_a_level_over(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merganser.pipeline.cli import query

    monkeypatch.setattr(query, "_from_stdin", lambda: None)
    for words in (["--level", "strong"], ["--after", "orders/0:7"], ["--level", "bounded", "--max-staleness", "5"]):
        cli("query", "--store", tmp_path / "shop.duckdb", *words).failed(2, "a prompt shows a store as it is")


def test_a_prompt_shows_answers_in_the_format_asked_for(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from merganser.pipeline.cli import query

    monkeypatch.setattr(query, "_from_stdin", lambda: None)
    monkeypatch.setattr(Shell, "run", lambda self: self.do("select 1 as one, 'a' as word;"))
    assert cli("query", "--url", url, "--format", "json").out == '{"one": 1, "word": "a"}\n'
    assert cli("query", "--url", url, "--format", "csv").out == '"one","word"\n1,"a"\n'
    cli("query", "--url", url, "--format", "arrow").failed(2, "a prompt shows answers as text")


def test_long_answers_are_cut_and_that_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with mg.Client(url) as client:
        shown: list[int] = []
        Shell(of_client(client, Fresh(), 30), lambda result: shown.append(len(result))).do("from range(5000);")
    assert shown == [1000] and "the first 1,000 of 5,000 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "word", "expected"),
    [
        ("select * from ", "or", ["orders"]),
        ("select * from ", "", ["orders", "stock"]),
        ("select ", "orders.", ["orders.id", "orders.qty"]),
        ("select ", "ORDERS.q", ["ORDERS.qty"]),
        ("", "sel", ["SELECT"]),
        ("select ", "sk", ["sku"]),
        ("select ", "nothing.", []),
    ],
)
def test_tables_columns_and_words_are_completed(before: str, word: str, expected: list[str]) -> None:
    assert candidates(before, word, {"orders": ["id", "qty"], "stock": ["sku"]}) == expected


def test_the_history_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path))
    assert history_file().parent == tmp_path and history_file().stat().st_mode & 0o077 == 0


def test_json_of_the_commands_is_json(cli: Cli, url: str) -> None:
    assert json.loads(cli("status", "--url", url, "--json").out)["tables"]
