"""Clients that are slow, on purpose or not, keep nobody out of the HTTP door."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from merganser.pipeline.serving.http import connection, querying, server
from merganser.pipeline.serving.http.asking import LARGEST_BODY
from serving.test_flight import self_signed
from serving.test_http_door import ENDLESS, Served, _metric, request, served
from support.naive import both_ways, caught
from support.waiting import wait_for

_HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
_REFUSED = b"POST /tables HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


def unbounded(*args: Any, came_in: Any, **kwargs: Any) -> H11Protocol:
    """uvicorn's own."""
    return H11Protocol(*args, **kwargs)


def ended(client: socket.socket, trickle: bool) -> Callable[[], bool]:
    """Whether the door has ended the connection of *client*, which sends a byte each time if it is to *trickle*."""
    client.settimeout(0.01)

    def look() -> bool:
        try:
            if trickle:
                client.sendall(b"a")
            return client.recv(65536) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return look


@both_ways
@pytest.mark.parametrize(
    ("sent", "trickle"),
    [(b"", False), (_HEAD, True), (_HEAD + b"\r\n" + _HEAD, True), (_REFUSED, True)],
    ids=["nothing", "a head", "a head after an answer", "a body after an answer"],
)
def test_a_connection_without_the_whole_of_a_request_ends_however_its_bytes_come(
    naive: bool, sent: bytes, trickle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(server, "Connection", unbounded)
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with served(tmp_path, rows=1) as door, socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(sent)
        with caught(naive):
            wait_for("the connection to end", ended(client, trickle), 1 if naive else 20)


@both_ways
def test_slow_clients_take_nobodys_connection(naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whom nothing is owed stay: a query goes on beside them."""
    monkeypatch.setattr(server, "_CONNECTIONS", 8)
    monkeypatch.setattr(connection, "MOST", 6)
    if naive:
        monkeypatch.setattr(server, "Connection", unbounded)
    with served(tmp_path, rows=1) as door, socket.create_connection(("127.0.0.1", door.port)) as busy:
        busy.sendall(request(ENDLESS))
        wait_for("the query to run", lambda: _metric(door, "merganser_queries_running") == 1)
        slow = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(10)]
        with caught(naive):
            for client in slow:
                client.sendall(_HEAD)
            for _ in range(5):
                assert door.query("select 1").status == 200
            assert _metric(door, "merganser_queries_running") == 1
        for client in slow:
            client.close()


@both_ways
def test_who_takes_nothing_of_an_answer_is_left(naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALLED_S", 0.3)
    if naive:
        monkeypatch.setattr(server, "Connection", unbounded)
    with served(tmp_path, rows=1) as door, socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(request("select range, repeat('x', 200) from range(100000)"))
        assert client.recv(12) == b"HTTP/1.1 200"  # the rest is more than all that lies between
        with caught(naive):
            over = lambda: _metric(door, "merganser_answers_open") == 0  # noqa: E731
            wait_for("the answer to be dropped", over, 2 if naive else 20)


@both_ways
def test_who_takes_a_wide_row_steadily_is_not_left(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_S", 0.8)
    if naive:
        monkeypatch.setattr(querying, "parts", lambda piece: [piece])
    columns = ", ".join(f"c as c{n}" for n in range(16))
    wide = f"with w as (select repeat('x', 1000000) as c) select {columns}"
    with served(tmp_path, rows=1) as door, socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(request(f"{wide} from w"))
        got, pace = 0, threading.Event()
        while got < 16_000_000 and (data := client.recv(262_144)):  # some 5 MB in a second
            got += len(data)
            pace.wait(len(data) / 5e6)
        with caught(naive):
            assert got >= 16_000_000


def test_a_question_is_read_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: not in the event loop."""
    reading, go_on, told, asked = threading.Event(), threading.Event(), list[bool](), querying.asked

    def slowly(said: Any) -> Any:
        reading.set()
        told.append(go_on.wait(20))
        return asked(said)

    monkeypatch.setattr(querying, "asked", slowly)
    with served(tmp_path, rows=1) as door:
        replies: list[int] = []
        asking = threading.Thread(target=lambda: replies.append(door.query("select 1").status))
        asking.start()
        assert reading.wait(20)
        assert door.ask("GET", "/livez").status == 200
        go_on.set()
        asking.join()
        assert told == [True], "it was answered before the question was read, not after"
        assert replies == [200]


def test_json_larger_than_a_question_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, rows=1) as door:
        long = json.dumps({"sql": "select len(?)", "params": ["x" * (LARGEST_BODY - 100)]})
        assert door.ask("POST", "/query", long, content_type="application/json").json["rows"] == [[LARGEST_BODY - 100]]
        door.ask("POST", "/query", long + " " * 100, content_type="application/json").refused(413)
    assert LARGEST_BODY <= 2 * 2**20


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    renew(cert, key)
    return cert, key


def renew(cert: Path, key: Path) -> bytes:
    """Another certificate, in its files."""
    pem, private = self_signed()
    for path, data in ((key, private), (cert, pem)):
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(path)
    return ssl.PEM_cert_to_DER_cert(pem.decode()).__bytes__()


def shown(door: Served, name: str | None) -> bytes:
    """The certificate that the door shows to who asks for *name*."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as plain:
        with trusting.wrap_socket(plain, server_hostname=name) as client:
            return client.getpeercert(binary_form=True) or b""


def test_a_certificate_that_is_renewed_is_taken_over(tmp_path: Path, files: tuple[Path, Path]) -> None:
    cert, key = files
    with served(tmp_path, rows=1, tls_cert=cert, tls_key=key) as door:
        first = shown(door, "localhost")
        open_before = http.client.HTTPSConnection("127.0.0.1", door.port, context=unverified())
        open_before.request("GET", "/livez")
        assert open_before.getresponse().read()
        second = renew(cert, key)
        assert second != first
        assert shown(door, "localhost") == second and shown(door, None) == second
        cert.write_text("no certificate")
        assert shown(door, None) == second, "what does not fit changes nothing"
        third = renew(cert, key)
        assert shown(door, None) == third
        open_before.request("GET", "/livez")
        assert open_before.getresponse().status == 200
        open_before.close()


def unverified() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def test_who_does_not_agree_on_tls_is_left(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_HANDSHAKE_S", 0.3)
    with served(tmp_path, rows=1, tls_cert=files[0], tls_key=files[1]) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as client:
            wait_for("the connection to end", ended(client, False), 20)


@both_ways
def test_who_does_not_agree_on_tls_takes_nobodys_connection(
    naive: bool, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor any file descriptor beyond a few, which the store and the log need too."""
    monkeypatch.setattr(server, "MOST_AGREEING", 10_000 if naive else 5)
    with served(tmp_path, rows=1, tls_cert=files[0], tls_key=files[1]) as door:
        clients = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(20)]
        with caught(naive):
            for client in clients[:15]:
                wait_for("the oldest to end", ended(client, False), 1 if naive else 20)
            assert [ended(client, False)() for client in clients[-4:]] == [False] * 4
            for _ in range(10):
                assert shown(door, "localhost")
        for client in clients:
            client.close()
