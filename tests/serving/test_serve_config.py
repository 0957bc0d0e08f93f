"""``[serve]`` in merganser.toml: followed to the letter; options go before it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from merganser.pipeline.config import NodeConfig, ServeConfig, read_config
from merganser.pipeline.serving.doors import limits_of, tls_of
from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.http.server import bound
from merganser.pipeline.serving.users.binding import Address
from merganser.schemas.errors import BadConfig, UsageError

WHOLE = """
[serve]
http = "0.0.0.0:8443"
flight = "0.0.0.0:8815"
users = "users.json"
tls-cert = "tls/chain.pem"
tls-key = "/etc/key.pem"
insecure = true
request-log = "requests.jsonl"
running = 8
query-seconds = 2.5
"""


def read(folder: Path, text: str) -> NodeConfig:
    path = folder / "merganser.toml"
    path.write_text(text)
    return read_config(path)


def test_every_key_is_taken_and_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE).serve
    assert found == ServeConfig(
        "0.0.0.0:8443", "0.0.0.0:8815", tmp_path / "users.json", tmp_path / "tls" / "chain.pem", Path("/etc/key.pem"),
        True, tmp_path / "requests.jsonl", 8, 2.5,
    )  # fmt: skip
    assert (limits_of(found).running, limits_of(found).query_s) == (8, 2.5)


def test_without_it_no_door_is_open(tmp_path: Path) -> None:
    assert not read(tmp_path, "").serve.open and limits_of(ServeConfig()) == ServingLimits()
    assert ServeConfig(http=":1").open and ServeConfig(flight=":1").open


def test_options_go_before_it(tmp_path: Path) -> None:
    given = NodeConfig(serve=ServeConfig(http="127.0.0.1:1"))
    found = read(tmp_path, WHOLE).after(given).serve
    assert found.http == "127.0.0.1:1" and found.users == tmp_path / "users.json" and found.running == 8


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[serve]\nhtpp = ':1'", "serve.htpp"),
        ("[serve]\nhttp = 8080", "serve.http"),
        ("[serve]\ninsecure = 'yes'", "serve.insecure"),
        ("[serve]\nrunning = 0", "serve.running"),
        ("[serve]\nrunning = true", "serve.running"),
        ("[serve]\nquery-seconds = -1", "serve.query-seconds"),
    ],
)
def test_what_cannot_be_followed_is_named(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        read(tmp_path, text)
    assert caught.value.key == key


def test_half_of_tls_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs both"):
        tls_of(ServeConfig(tls_cert=tmp_path / "cert"))
    with pytest.raises(UsageError, match="No such file"):
        tls_of(ServeConfig(tls_cert=tmp_path / "cert", tls_key=tmp_path / "key"))
    (tmp_path / "cert").write_text("no PEM")
    with pytest.raises(UsageError, match="no TLS"):
        tls_of(ServeConfig(tls_cert=tmp_path / "cert", tls_key=tmp_path / "cert"))


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio takes Nagle's algorithm off sockets that name TCP; one that does not costs each answer 40 ms."""
    with bound(Address("127.0.0.1", 0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP
