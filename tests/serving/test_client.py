"""mg.Client: the same words as on a Replica, over several addresses, and never an answer that is older, or cut."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import urllib3

import merganser as mg
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.client import alive
from merganser.pipeline.serving.client import client as client_module
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.http.problems import headers_of, problem, status_of
from merganser.pipeline.serving.marks import APPLIED, POSITION, TYPES
from merganser.pipeline.serving.users.secrets import Cost, Hash, new_token, token_hash
from merganser.pipeline.serving.users.users import User, changing
from merganser.schemas import errors
from serving.world import ORDERS, PatientLog, World, world
from stories.keyed import decimal, having
from support.waiting import wait_for

#: What nobody listens at.
CLOSED = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("shop"), 50) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(shop: World) -> Iterator[str]:
    with Doors(ServeConfig(http="127.0.0.1:0"), shop.replica, shop.log) as doors:
        assert doors.http is not None
        yield doors.http


# -- on a node -------------------------------------------------------------------------------


def test_it_answers_as_the_replica_does(shop: World, url: str) -> None:
    sql = """SELECT id, qty, sku, _timestamp, id::HUGEINT AS h, id::DECIMAL(9,2) AS d, MAP {'a': id} AS m,
        '5b6f7a9e-0000-4000-8000-0123456789ab'::UUID AS u FROM orders WHERE id < ? ORDER BY id"""
    with mg.Client([url]) as client:
        here, there = shop.replica.query(sql, [5]), client.query(sql, [5])
    assert there.rows() == here.rows() and there.columns == here.columns and len(there) == 5
    assert there.arrow().schema.equals(here.arrow().schema) and there.position == here.position


def test_get_and_tokens(shop: World, url: str) -> None:
    with mg.Client(url) as client:
        shop.put(ORDERS, 777, qty=7)
        row = client.get(ORDERS, {"id": 777}, after=shop.end)
        assert row == shop.replica.get(ORDERS, {"id": 777}) and row is not None and row["qty"] == 7
        assert client.get(ORDERS, {"id": -1}) is None
        with pytest.raises(errors.UsageError, match="the key of"):
            client.get(ORDERS, {"qty": 1})
        with pytest.raises(errors.UnknownTable):
            client.get("nowhere", {"id": 1})


@pytest.mark.parametrize(
    ("type_", "keys", "spelling"),
    [
        (decimal(38, 10), ["1000000000000000000000000000.0000000001", "1000000000000000000000000000"], "{}000"),
        (decimal(38, 38), ["0.01000000000000000000000000000000000001", "0.01"], "{}"),
    ],
)
def test_get_of_a_long_decimal(tmp_path: Path, type_: Any, keys: list[str], spelling: str) -> None:
    keys = [key if "." in key else key + "." for key in keys]
    with served(tmp_path, type_, [Decimal(key) for key in keys]) as (_, client):
        found = [client.get("t", {"k": Decimal(spelling.format(key))}) for key in keys]
        assert [row and row["n"] for row in found] == [0, 1]


def test_get_by_nanoseconds(tmp_path: Path) -> None:
    keys = [1_700_000_000_123_456_789, 1_700_000_000_123_456_788]
    type_ = {"type": "long", "logicalType": "timestamp-nanos"}
    with served(tmp_path, type_, keys) as (replica, client):
        assert [client.get("t", {"k": key}) for key in keys] == [replica.get("t", {"k": key}) for key in keys]
        assert client.get("t", {"k": 0}) is None


@contextmanager
def served(folder: Path, type_: Any, keys: list[Any]) -> Iterator[tuple[mg.Replica, mg.Client]]:
    """A replica of a table with these keys, and a client of it."""
    log = PatientLog()
    with having(folder, type_, keys, log) as replica, Doors(ServeConfig(http="127.0.0.1:0"), replica, log) as doors:
        with mg.Client(str(doors.http)) as client:
            yield replica, client


PARAMS: dict[str, Any] = {
    "BIGINT": 2**62, "HUGEINT": 2**100, "DOUBLE": 0.1, "VARCHAR": "ä\"'", "BOOLEAN": True, "BLOB": b"\x00\xff",
    "DATE": dt.date(2026, 1, 31), "TIME": dt.time(12, 34, 56, 789), "TIMESTAMP": dt.datetime(2026, 1, 31, 12, 0, 0, 1),
    "DECIMAL(9,2)": Decimal("1.25"), "UUID": uuid.UUID(int=7), "INTEGER[]": [1, 2],
}  # fmt: skip


@pytest.mark.parametrize("type_", PARAMS)
def test_parameters_of_each_type_arrive(url: str, type_: str) -> None:
    with mg.Client(url) as client:
        [(value,)] = client.query(f"SELECT ?::{type_}", [PARAMS[type_]]).rows()
        [(named,)] = client.query(f"SELECT $x::{type_}", {"x": PARAMS[type_]}).rows()
    assert value == named == PARAMS[type_]


def test_errors_are_those_of_the_replica(url: str) -> None:
    with mg.Client(url) as client:
        with pytest.raises(errors.BadQuery) as caught:
            client.query("select * from nowhere")
        assert "nowhere" in str(caught.value) and caught.value.hint
        with pytest.raises(errors.NotFreshEnough) as late:
            client.query("select 1", after=f"{ORDERS}/0:999999", timeout=0.3)
        assert "behind" in late.value.behind
        with pytest.raises(errors.NotHeld):
            client.query("select 1", after="elsewhere/0:1", timeout=0.3)
        with pytest.raises(errors.UsageError):
            client.query("select 1", level="linearizable")  # type: ignore[arg-type]
        assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]  # and so the traceback's, which had another


@pytest.mark.parametrize("params", [5, "duck", b"duck"])
def test_a_value_by_itself_is_no_list_of_parameters(shop: World, url: str, params: Any) -> None:
    """Text would be taken for its letters."""
    with mg.Client(url) as client:
        for asked in (client, shop.replica):
            with pytest.raises(errors.UsageError, match="params are a list"):
                asked.query("select ?", params)


def test_what_is_no_token_is_told(shop: World, url: str) -> None:
    with mg.Client(url) as client:
        for asked in (client, shop.replica):
            with pytest.raises(errors.UsageError, match="5 is no token"):
                asked.query("select 1", after=5)  # type: ignore[arg-type]


def test_a_large_answer_comes_whole(url: str) -> None:
    with mg.Client(url) as client:
        result = client.query("select range as i, repeat('x', 50) as t from range(300000)")
    assert result.arrow().column("i").to_pylist() == list(range(300_000))


def test_users_and_tokens(shop: World, tmp_path: Path) -> None:
    token = new_token("bot")
    with changing(tmp_path / "users") as change:
        change.add(User("ann", "reader", password=Hash.of("correct horse", Cost(4, 8, 1))))
        change.add(User("bot", "reader", token=token_hash(token)))
    with Doors(ServeConfig(http="127.0.0.1:0", users=tmp_path / "users"), shop.replica, shop.log) as doors:
        address = str(doors.http)
        for auth in (("ann", "correct horse"), token):
            with mg.Client(address, auth=auth) as client:
                assert client.query("select 1").rows() == [(1,)]
        for wrong in (("ann", "wrong horse"), "bot.wrong", None):
            with mg.Client(address, auth=wrong) as client, pytest.raises(errors.LoginFailed):
                client.query("select 1")


def test_a_client_needs_no_duckdb(url: str) -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        f"import merganser as mg\nprint(mg.Client({url!r}).query('select 42').rows())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[(42,)]\n", done.stderr


def test_the_first_address_that_is_there_answers(url: str) -> None:
    with mg.Client([CLOSED, url]) as client:
        assert client.query("select 1").rows() == [(1,)]
        assert client._order()[0] == url  # the silent one is asked last for a while
    with mg.Client([CLOSED, "http://127.0.0.1:2"]) as client, pytest.raises(errors.NoReplica) as caught:
        client.query("select 1")
    assert ":1: " in str(caught.value) and ":2: " in str(caught.value)


@pytest.mark.parametrize("address", ["", "a:8080", "ftp://a", "http://", "http://u:p@a:80", "http://a?b=c"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(errors.UsageError):
        mg.Client([address])


# -- on nodes that follow a script -----------------------------------------------------------

Reply = tuple[int, dict[str, str], bytes]


class Node:
    """A node at *position*, as far as a client sees one."""

    def __init__(self, position: int) -> None:
        self.position, self.asked = position, list[dict[str, Any]]()
        self.error: mg.MerganserError | None = None
        self.reply: Callable[[], Reply] | None = None
        self.ignores_after = False
        self.looks = 0
        """How often it was asked whether it is alive."""

    def answer(self, path: str, body: bytes) -> Reply:
        if path == "/livez":
            self.looks += 1
            return 200, {}, b"{}"
        if path == "/position":
            return 200, {}, json.dumps({"position": self.text, "applied": self.text}).encode()
        question = json.loads(body)
        self.asked.append(question)
        if self.reply is not None:
            return self.reply()
        error = self.error
        target = mg.Position.parse(question["after"] or "")
        if error is None and not mg.Position.parse(self.text).reaches(target) and not self.ignores_after:
            error = errors.NotFreshEnough("after", question["timeout"], "behind")
        if error is not None:
            return status_of(error), headers_of(error), json.dumps(problem(error)).encode()
        return 200, {}, self.whole

    @property
    def text(self) -> str:
        return f"t/0:{self.position}"

    @property
    def whole(self) -> bytes:
        sink = pa.BufferOutputStream()
        told = {TYPES: b'["BIGINT"]', POSITION: self.text.encode(), APPLIED: self.text.encode()}
        table = pa.table({"at": [self.position] * 1000}).replace_schema_metadata(told)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=100)
        return bytes(sink.getvalue())


@contextmanager
def listening(*nodes: Node) -> Iterator[list[str]]:
    servers = []
    for node in nodes:

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            its = node

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, headers, data = self.its.answer(self.path, body)
                self.send_response(status)
                headers = {"Content-Length": str(len(data)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_address[1]}" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def seen(client: mg.Client, **how: Any) -> int:
    return int(client.query("select", **how).rows()[0][0])


def test_a_session_never_goes_back_whichever_address_answers() -> None:
    ahead, behind = Node(10), Node(5)
    with listening(ahead, behind) as urls, mg.Client(urls) as client:
        assert seen(client, level="session") == 10
        ahead.error = errors.TooBusy("x")
        with pytest.raises((errors.NotFreshEnough, errors.TooBusy)):
            client.query("select", level="session", timeout=0.5)
        assert seen(client) == 5  # eventual may go back, and does not make a session forget
        behind.position = 12
        assert seen(client, level="session") == 12
        ahead.error = None
        assert seen(client, level="session") == 12


def test_a_node_that_gives_an_older_answer_is_not_believed() -> None:
    node = Node(5)
    node.ignores_after = True
    with listening(node) as urls, mg.Client(urls) as client, pytest.raises(errors.ServiceError, match="older"):
        client.query("select", after="t/0:10")


def test_a_token_is_read_where_it_has_arrived() -> None:
    behind, ahead = Node(5), Node(10)
    with listening(behind, ahead) as urls, mg.Client(urls) as client:
        assert seen(client, after="t/0:8") == 10
        assert not behind.asked  # nobody waited there
        assert seen(client) == 5


def test_who_has_to_wait_leaves_time_for_the_others() -> None:
    first, second = Node(5), Node(5)
    with listening(first, second) as urls, mg.Client(urls) as client:
        with pytest.raises(errors.NotFreshEnough):
            client.query("select", after="t/0:8", timeout=60)
    assert first.asked[0]["timeout"] <= 30 and len(second.asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.TooBusy("x"),
        errors.QueryCancelled("since the node stops"),
        errors.NotHeld("t/0"),
        errors.TableStopped("t", "x"),
    ],
)
def test_what_another_node_may_do_better_is_asked_there(error: mg.MerganserError) -> None:
    first, second = Node(1), Node(2)
    first.error = error
    with listening(first, second) as urls, mg.Client(urls) as client:
        assert seen(client) == 2
        second.error = error
        with pytest.raises(type(error)):
            client.query("select")


@pytest.mark.parametrize(
    "error", [errors.BadQuery("x"), errors.LoginFailed(), errors.TooManyLogins("a", 1.0), errors.TooLarge("x")]
)
def test_what_is_the_callers_own_is_asked_once(error: mg.MerganserError) -> None:
    first, second = Node(1), Node(2)
    first.error = error
    with listening(first, second) as urls, mg.Client(urls) as client, pytest.raises(type(error)):
        client.query("select")
    assert not second.asked


def test_an_answer_that_is_cut_anywhere_is_never_taken_for_a_whole_one() -> None:
    node, spare = Node(1), Node(2)
    whole = node.whole
    with listening(node, spare) as urls, mg.Client(urls) as client:
        for length in range(0, len(whole), 97):
            node.reply = lambda cut=whole[:length]: (200, {"Content-Length": str(len(whole))}, cut)
            assert seen(client) == 2, length
            client._shunned.clear()
        node.reply = lambda: (200, {}, whole + b"more")
        with pytest.raises(errors.ServiceError):
            client.query("select")


@pytest.mark.parametrize("reply", [(200, {}, b"<html>"), (200, {}, b""), (500, {}, b"<html>"), (404, {}, b"{}")])
def test_what_is_no_node_is_told(reply: Reply) -> None:
    node = Node(1)
    node.reply = lambda: reply
    with listening(node) as urls, mg.Client(urls) as client, pytest.raises(errors.ServiceError):
        client.query("select")


def test_a_node_that_is_frozen_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "LOOK_S", 0.05)
    monkeypatch.setattr(client_module, "ANSWER_S", 0.2)
    spare, alive_there = Node(2), mg.Client._alive
    with socket.create_server(("127.0.0.1", 0)) as frozen, listening(spare) as urls:  # listens, and accepts nobody
        address = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        # Where all of this machine is slow, so is the spare one: it is never given up.
        monkeypatch.setattr(mg.Client, "_alive", lambda self, url: url in urls or alive_there(self, url))
        with mg.Client([address, *urls]) as client:
            assert seen(client, timeout=60) == 2
            assert client._order()[0] == urls[0]


def test_a_node_that_takes_long_and_is_alive_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "LOOK_S", 0.05)
    monkeypatch.setattr(client_module, "ANSWER_S", 30.0)
    slow, spare = Node(1), Node(2)

    def after_a_while() -> Reply:
        wait_for("it to be asked whether it is alive", lambda: slow.looks > 1)
        return 200, {}, slow.whole

    slow.reply = after_a_while
    with listening(slow, spare) as urls, mg.Client(urls) as client:
        assert seen(client) == 1 and not spare.asked


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("node", "node")])
def test_whether_a_node_is_alive_is_asked_at_its_address(
    host: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "LOOK_S", 0.05)
    asked: list[str] = []
    pool = alive.watchful(urllib3.PoolManager(), lambda url: asked.append(url) is not None)
    connection = pool.connection_from_url(f"http://{shown}:8080")._new_conn()
    here, there = socket.socketpair()
    with here, there, pytest.raises(TimeoutError):
        connection.sock, connection.timeout = here, 1.0  # type: ignore[assignment]
        connection.getresponse()
    assert connection.host == host and asked == [f"http://{shown}:8080"]


def test_nobody_is_followed_elsewhere_with_a_password() -> None:
    thief, node = Node(1), Node(2)
    with listening(thief, node) as urls:
        node.reply = lambda: (307, {"Location": urls[0] + "/query"}, b"")
        with mg.Client(urls[1], auth=("ann", "correct horse")) as client, pytest.raises(errors.ServiceError):
            client.query("select")
    assert not thief.asked
