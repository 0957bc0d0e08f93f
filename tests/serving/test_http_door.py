"""The HTTP door of a live replica, asked by a real client: curl, and raw bytes where curl is too polite."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote as quoted

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import merganser as mg
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving import doors
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.http.openapi import document
from merganser.pipeline.serving.users.secrets import Cost, Hash, new_token, token_hash
from merganser.pipeline.serving.users.users import User, changing
from serving.world import HIDDEN, MARKER, ORDERS, World, world
from support.waiting import wait_for

CHEAP = Cost(4, 8, 1)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def refused(self, status: int, *words: str) -> None:
        """One JSON object with error and hint, and no traceback."""
        assert self.status == status, self
        told = self.json
        assert told["error"] and told["hint"] and set(told) == {"error", "hint", "code", "fields"}
        assert "Traceback" not in self.body.decode() and 'File "' not in self.body.decode()
        for word in words:
            assert word in told["error"], told


@dataclass
class Served:
    """A replica and its door."""

    world: World
    doors: Doors
    port: int

    def ask(self, method: str, path: str, body: bytes | str | None = None, /, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            got = connection.getresponse()
            return Reply(got.status, {n.lower(): v for n, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def query(self, sql: str, **headers: str) -> Reply:
        return self.ask("POST", "/query", sql.encode(), content_type="application/sql", **headers)


@contextmanager
def served(folder: Path, rows: int = 50, **config: Any) -> Iterator[Served]:
    with world(folder, rows) as opened:
        with Doors(ServeConfig(http="127.0.0.1:0", **config), opened.replica, opened.log) as doors:
            assert doors.http is not None
            yield Served(opened, doors, int(doors.http.rpartition(":")[2]))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One door that anybody on this machine may come in by."""
    with served(tmp_path_factory.mktemp("door")) as opened:
        yield opened


# -- answers ---------------------------------------------------------------------------------


def test_an_answer_says_where_it_was_read(door: Served) -> None:
    reply = door.query("select count(*) as n from orders where id < 50")
    assert reply.json["rows"] == [[50]] and reply.json["columns"] == [{"name": "n", "type": "BIGINT"}]
    assert reply.headers["merganser-position"] == reply.json["position"] == str(door.world.replica.read_position)
    assert reply.headers["cache-control"] == "no-store"


def test_a_write_is_read_by_its_token(door: Served) -> None:
    for id_ in range(1000, 1010):
        door.world.put(ORDERS, id_)
        token = str(door.world.end)
        for header in ({"Merganser_After": token}, {"Merganser_Level": "strong"}, {"Merganser_Max_Staleness": "0.001"}):
            level = {"Merganser_Level": "bounded"} if "Merganser_Max_Staleness" in header else {}
            reply = door.query(f"select count(*) from orders where id = {id_}", **header, **level)
            assert reply.json["rows"] == [[1]], (header, reply)


def test_a_token_that_does_not_come_is_504_and_one_of_another_log_421(door: Served) -> None:
    reply = door.query("select 1", Merganser_After=f"{ORDERS}/0:999999", Merganser_Timeout="0.2")
    reply.refused(504, "not fresh enough")
    assert reply.json["code"] == "NotFreshEnough" and reply.json["fields"]["level"] == "after"
    door.query("select 1", Merganser_After="elsewhere/0:1", Merganser_Timeout="0.2").refused(421, "elsewhere/0")
    door.query("select 1", Merganser_After="nonsense").refused(400, "nonsense")


def test_parameters_and_formats(door: Served) -> None:
    body = json.dumps(
        {"sql": "select id, qty from orders where id between $lo and $hi order by id", "params": {"lo": 3, "hi": 4}}
    )
    json_, csv, arrow = (
        door.ask("POST", f"/query?format={f}", body, content_type="application/json") for f in ("json", "csv", "arrow")
    )
    assert json_.json["rows"] == [[3, 3], [4, 4]]
    assert csv.body == b'"id","qty"\n3,3\n4,4\n' and csv.headers["content-type"].startswith("text/csv")
    assert pa.ipc.open_stream(arrow.body).read_all().to_pydict() == {"id": [3, 4], "qty": [3, 4]}
    lines = door.ask("GET", "/query?sql=select+1+as+a", accept="application/x-ndjson")
    assert lines.body == b'{"a":1}\n'


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_large_answer_comes_whole_packed_or_not(door: Served, encoding: str) -> None:
    sql = "select range as i, 'row ' || range as t from range(100000)"
    bare = door.query(sql, Accept="text/csv")
    packed = door.query(sql, Accept="text/csv", Accept_Encoding=encoding)
    assert bare.body.count(b"\n") == 100_001 and packed.headers["content-encoding"] == encoding
    assert len(packed.body) < len(bare.body) / 2
    assert pa.CompressedInputStream(pa.BufferReader(packed.body), encoding).read() == bare.body


def test_what_is_asked_wrong_is_refused_as_json(door: Served) -> None:
    door.query("selec 1").refused(400)
    door.query("select * from nowhere").refused(400, "nowhere")
    door.query("select 1; select 2").refused(400)
    door.query("delete from orders").refused(400)
    door.ask("GET", "/query").refused(400, "no SQL")
    door.ask("GET", "/query?sql=select+1", accept="image/png").refused(406)
    for method, path, allowed in (
        ("PUT", "/query", "GET, HEAD, POST"),
        ("POST", "/tables/orders", "GET, HEAD"),
        ("GET", "/backups", "POST"),
        ("POST", "/", "GET, HEAD"),
    ):
        reply = door.ask(method, path)
        reply.refused(405)
        assert reply.headers["allow"] == allowed, (method, path)
    door.ask("POST", "/query", b"sql=1", content_type="application/x-www-form-urlencoded").refused(415)
    door.ask("GET", "/tables/nowhere").refused(404, "nowhere")
    door.ask("GET", "/backups/7").refused(404)
    door.ask("POST", "/backups").refused(400, "no archive")


@pytest.mark.parametrize("path", ["/nowhere", "/query?sql=selec", "/tables", "/position", "/status", "/livez"])
def test_what_is_no_answer_of_sql_ends_its_line_too(door: Served, path: str) -> None:
    body = door.ask("GET", path).body
    assert body.endswith(b"}\n") and body.count(b"\n") == 1


def test_a_body_that_is_too_large_is_refused_before_it_comes(door: Served) -> None:
    for head in ("Content-Length: 99999999", "Content-Length: 9999999999999999999"):
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
            connection.sendall(f"POST /query HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A door whose answers break off, after rows have gone out: beyond a limit that no query is refused for. (What
    DuckDB fails at late, it may tell before the rows that it has made by then.)"""
    monkeypatch.setattr(doors, "limits_of", lambda config: ServingLimits(answer_rows=300_000))
    with served(tmp_path) as opened:
        yield opened


WHOLE, CUT = "select range from range(200000)", "select range from range(1000000)"


def test_an_error_in_the_middle_is_never_a_whole_answer(narrow: Served) -> None:
    assert narrow.query(WHOLE, Accept="text/csv").body.endswith(b"\n199999\n")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        narrow.query(CUT, Accept="text/csv")


def test_who_speaks_http_1_0_does_not_take_a_part_for_the_whole_answer(narrow: Served) -> None:
    """There is no other framing there than where the connection ends."""

    def answered(sql: str) -> Iterator[bytes]:
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=30) as connection:
            path = f"/query?format=csv&sql={quoted(sql)}".encode()
            connection.sendall(b"GET " + path + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
            yield from iter(lambda: connection.recv(2**16), b"")

    assert b"".join(answered(WHOLE)).endswith(b"\n199999\n")
    answer = answered(CUT)
    assert next(answer).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ConnectionError):
        list(answer)


# -- what there is, and how it is ------------------------------------------------------------


def test_tables_and_position(door: Served) -> None:
    tables = {t["table"]: t for t in door.ask("GET", "/tables").json["tables"]}
    assert tables[ORDERS]["key"] == ["id"] and {"name": "qty", "type": "INTEGER"} in tables[ORDERS]["columns"]
    assert door.ask("GET", f"/tables/{ORDERS}").json == tables[ORDERS]
    assert door.ask("GET", "/position").json["applied"] == str(door.world.replica.position)


def test_status_and_health(door: Served) -> None:
    wait_for("it to be ready", lambda: door.ask("GET", "/readyz").status == 200)
    status = door.ask("GET", "/status").json
    assert status["ready"] and status["group"] == "shop" and status["log_away"] is None
    assert {t["table"] for t in status["tables"]} == {ORDERS, HIDDEN}
    assert door.ask("GET", "/livez").json == {"ok": True}


def test_metrics_are_prometheus_text_and_documented(door: Served) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    door.query("select 1")
    families = {f.name: f for f in text_string_to_metric_families(door.ask("GET", "/metrics").body.decode())}
    ours = {name for name in families if name.startswith("merganser_")}
    page = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
    undocumented = {n for n in ours if f"`{n}`" not in page and f"`{n}_total`" not in page}
    assert not undocumented
    puts = {s.labels["table"]: s.value for s in families["merganser_records"].samples if s.labels["outcome"] == "put"}
    assert puts[ORDERS] >= 50
    commits = families["merganser_commit_seconds"].samples
    assert next(s.value for s in commits if s.name.endswith("_count")) > 0
    bounds = [s.value for s in commits if s.name.endswith("_bucket")]
    assert bounds == sorted(bounds)
    assert any(s.labels.get("path") == "/query" and s.value for s in families["merganser_requests"].samples)


def test_a_table_of_the_store_that_is_not_followed_is_named(tmp_path: Path) -> None:
    with world(tmp_path, 5) as opened:
        opened.replica.close()
        opened.replica = mg.Replica(opened.path, opened.log, "shop", [ORDERS])
        with Doors(ServeConfig(http="127.0.0.1:0"), opened.replica, opened.log) as doors:
            door = Served(opened, doors, int(str(doors.http).rpartition(":")[2]))
            assert door.ask("GET", "/status").json["unfollowed"] == [HIDDEN]
            metrics = door.ask("GET", "/metrics").body.decode()
            assert f'merganser_table_unfollowed{{table="{HIDDEN}"}} 1.0' in metrics
            old = f"select count(*) from {HIDDEN}"
            assert door.query(old).json["rows"] == [[1]], "what is here"
            assert door.query(old, Merganser_Level="strong").status == 421


def test_an_open_transaction_is_seen_with_its_age(tmp_path: Path) -> None:
    with served(tmp_path) as door:
        place = next(tp for tp in door.world.end if tp.topic == ORDERS)
        door.world.log.stable[place] = 40

        def unstable() -> list[dict[str, Any]]:
            tables = {t["table"]: t for t in door.ask("GET", "/status").json["tables"]}
            found: list[dict[str, Any]] = tables[ORDERS]["open_transactions"]
            return found

        wait_for("it to be seen", lambda: bool(unstable()))
        [stuck] = unstable()
        assert stuck["offset"] == 40 and stuck["records"] == door.world.end[place] - 40
        wait_for("it to grow old", lambda: unstable()[0]["seconds"] > 0)


def test_every_route_is_described_and_every_description_a_route(door: Served) -> None:
    api = door.ask("GET", "/openapi.json").json
    assert api == document()
    for path, operations in api["paths"].items():
        for method in operations:
            reply = door.ask(method.upper(), path.replace("{table}", ORDERS).replace("{job}", "1"))
            assert reply.status != 405 and (reply.status != 404 or path == "/backups/{job}"), (method, path, reply)
    from merganser.pipeline.serving.http.app import App

    routes = {route.path for route in App(None, None).routes}  # type: ignore[arg-type, attr-defined]
    assert routes - {""} == set(api["paths"])


def test_pages_need_nothing_from_elsewhere(door: Served) -> None:
    for path in ("/", "/docs", "/style.css"):
        reply = door.ask("GET", path)
        assert reply.status == 200 and "default-src 'self'" in reply.headers["content-security-policy"]
        text = reply.body.decode()
        loaded = re.findall(r"""(?:src|href|url\(|@import|from)\s*=?\s*["']([^"'#]+)""", text)
        assert not [each for each in loaded if "//" in each], path
    assert "<h2><code>POST /query</code>" in door.ask("GET", "/docs").body.decode()
    for path in ("/../users.py", "/%2e%2e/users.py", "/..%2fusers.py", "/page"):
        assert door.ask("GET", path).status == 404


# -- hang-ups --------------------------------------------------------------------------------

ENDLESS = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = -1"


def request(sql: str) -> bytes:
    data = sql.encode()
    lines = ["POST /query HTTP/1.1", "Host: localhost", "Content-Type: application/sql", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


def counts(door: Served) -> Any:
    return door.world.replica, door


def test_who_hangs_up_has_the_query_cancelled(door: Served) -> None:
    def running() -> float:
        return _metric(door, "merganser_queries_running")

    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(request(ENDLESS))
        wait_for("the query to run", lambda: running() == 1)
    wait_for("the query to be cancelled", lambda: running() == 0)


def test_who_hangs_up_while_reading_leaves_nothing_behind(door: Served) -> None:
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(request("select range, repeat('x', 200) from range(2000000)"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    wait_for("the answer to be closed", lambda: _metric(door, "merganser_answers_open") == 0)


def test_readers_that_stand_still_hold_nobody_up(door: Served) -> None:
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(request("select range, repeat('x', 200) from range(500000)"))
        assert connection.recv(1000)
        door.world.goes_on(123_456)
        assert door.query("select 1").json["rows"] == [[1]]


def _metric(door: Served, name: str) -> float:
    for line in door.ask("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(name)


# -- bytes that are no request ---------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_bring_the_door_down(door: Served, data: st.DataObject) -> None:
    good = request("select 1")
    kind = data.draw(st.sampled_from(["noise", "cut", "flipped", "spliced"]))
    if kind == "noise":
        sent = data.draw(st.binary(min_size=1, max_size=200))
    elif kind == "cut":
        sent = good[: data.draw(st.integers(1, len(good) - 1))]
    elif kind == "flipped":
        at = data.draw(st.integers(0, len(good) - 1))
        sent = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    else:
        at = data.draw(st.integers(0, len(good)))
        sent = good[:at] + data.draw(st.binary(max_size=50)) + good[at:]
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
    assert b"Traceback" not in reply
    assert reply == b"" or reply.startswith(b"HTTP/1.1 ")


def test_after_all_that_the_door_is_open_and_the_loop_goes_on(door: Served) -> None:
    assert door.query("select 1").json["rows"] == [[1]]
    door.world.goes_on(123_457)


# -- users -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str], Path]]:
    """A door with users: their Authorization headers, and the request log."""
    folder = tmp_path_factory.mktemp("guarded")
    token = new_token("bot")
    hashed = Hash.of("correct horse", CHEAP)
    with changing(folder / "users") as change:
        change.add(User("reader", "reader", password=hashed))
        change.add(User("some", "reader", frozenset({ORDERS}), hashed))
        change.add(User("ops", "operator", password=hashed))
        change.add(User("bot", "reader", token=token_hash(token)))
    import base64

    def basic(user: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:correct horse".encode()).decode()

    headers = {user: basic(user) for user in ("reader", "some", "ops")} | {"bot": f"Bearer {token}"}
    config = {"users": folder / "users", "request_log": folder / "requests.jsonl"}
    with served(folder, **config) as opened:
        yield opened, headers, folder / "requests.jsonl"


Guarded = tuple[Served, dict[str, str], Path]


def test_nothing_but_health_and_pages_is_answered_without_a_log_in(guarded: Guarded) -> None:
    door = guarded[0]
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            reply = door.ask(method.upper(), path.replace("{table}", ORDERS).replace("{job}", "1"))
            if operation.get("security") == [] or path in ("/openapi.json", "/docs"):
                assert reply.status in (200, 503), (path, reply)
            else:
                reply.refused(401)
                assert reply.headers["www-authenticate"].startswith("Basic ")


def test_passwords_and_tokens_come_in(guarded: Guarded) -> None:
    door, headers, _ = guarded
    for user in headers:
        assert door.query("select 1", Authorization=headers[user]).status == 200, user


def test_only_operators_have_work_done(guarded: Guarded) -> None:
    door, headers, _ = guarded
    for user in ("reader", "bot", "some"):
        door.ask("POST", "/backups", Authorization=headers[user]).refused(403, "operators")
        door.ask("GET", "/snapshot", Authorization=headers[user]).refused(403)
        door.ask("POST", "/digests", b"{}", Authorization=headers[user]).refused(403)
    assert door.ask("GET", "/snapshot", Authorization=headers["ops"]).status == 200


def test_grants_hold_everywhere(guarded: Guarded) -> None:
    door, headers, _ = guarded
    some = headers["some"]
    assert door.query("select count(*) from orders", Authorization=some).status == 200
    replies = [door.query(f"select * from {HIDDEN}", Authorization=some)]
    replies[0].refused(403)
    for path in ("/tables", "/status", "/position"):
        replies.append(door.ask("GET", path, Authorization=some))
    replies.append(door.ask("GET", "/metrics", Authorization=some))
    replies.append(door.ask("GET", f"/tables/{HIDDEN}", Authorization=some))
    for reply in replies[1:4]:
        assert reply.status == 200 and HIDDEN not in reply.body.decode() and "_merganser" not in reply.body.decode()
    replies[4].refused(403)
    replies[5].refused(404)
    assert all(MARKER not in reply.body.decode() for reply in replies)
    assert MARKER in door.query(f"select * from {HIDDEN}", Authorization=headers["reader"]).body.decode()


def test_no_secret_is_in_the_request_log(guarded: Guarded) -> None:
    door, headers, log = guarded
    before = log.read_text().count('"/query"') if log.exists() else 0
    sql = "select 'litera1-secret', 42424242, $$dollar-secret$$ -- comment-secret"
    body = json.dumps({"sql": sql + "\n, ? as p", "params": ["param-secret"]})
    assert door.ask("POST", "/query", body, content_type="application/json", Authorization=headers["bot"]).status == 200
    door.ask("GET", "/query?sql=select+'url-secret'&format=csv", Authorization=headers["reader"])
    door.query("select 'broken-secret", Authorization=headers["reader"])
    wait_for("the log to have all three", lambda: log.read_text().count('"/query"') >= before + 3)
    text = log.read_text()
    for secret in ("secret", "42424242", "correct horse", "Basic", "Bearer", headers["bot"].partition(" ")[2]):
        assert secret not in text, secret
    lines = [json.loads(line) for line in text.splitlines()]
    mine = next(line for line in reversed(lines) if line.get("user") == "bot")
    assert mine["status"] == "200" and mine["rows"] == 1 and mine["sql"].startswith("select ?")


def test_guessing_is_slowed_down(guarded: Guarded) -> None:
    door = guarded[0]
    import base64

    wrong = "Basic " + base64.b64encode(b"guess:wrong password").decode()
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 20:  # the wait doubles each time: it gets longer than any request
        statuses.append(door.query("select 1", Authorization=wrong).status)
    assert statuses[:5] == [401] * 5 and statuses[-1] == 429
    reply = door.query("select 1", Authorization=wrong)
    assert reply.status in (401, 429)


def test_many_requests_at_once_are_each_answered(door: Served) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.append(door.query("select sum(range) from range(1000)").json["rows"][0][0])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(a) for a in answers] == [499500] * 16
