"""Two nodes on a real broker, asked by the commands and by curl, over TLS too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import merganser as mg
from merganser.schemas.errors import NoReplica
from support.cli import MERGANSER
from support.nodes import Node, node
from support.waiting import wait_for

ORDER = {
    "type": "record",
    "name": "order",
    "fields": [{"name": "order_id", "type": "long"}, {"name": "qty", "type": "int"}],
}


@pytest.fixture(scope="module")
def table(broker: str) -> str:
    name = f"orders-{uuid.uuid4().hex[:8]}"
    with mg.connect(broker) as log:
        log.create_table(name, ORDER, ["order_id"], partitions=2)
    return name


@pytest.fixture(scope="module")
def nodes(broker: str, table: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    folder = tmp_path_factory.mktemp("nodes")
    archive = f'[archive]\nurl = "{folder / "archive"}"\nroll = 0.2\n'
    with node(folder, broker, [table], "one", archive) as one, node(folder, broker, [table], "two") as two:
        yield one, two


def shell(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    line = [*MERGANSER, *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})})


def curl(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sS", "--max-time", "30", *args], capture_output=True, timeout=300)


def write(broker: str, table: str, numbers: range) -> mg.Position:
    with mg.connect(broker) as log, log.producer() as producer:
        for number in numbers:
            producer.put(table, {"order_id": number, "qty": 1})
        return producer.flush()


def test_each_write_is_read_by_its_token_through_curl(broker: str, table: str, nodes: tuple[Node, Node]) -> None:
    sql = f'select count(*) as n from "{table}" where order_id = '
    with mg.connect(broker) as log, log.producer() as producer:
        for number in range(20):
            producer.put(table, {"order_id": 10_000 + number, "qty": 1})
            token = producer.flush()
            done = curl(
                f"{nodes[number % 2].url}/query", "-H", f"Merganser-After: {token}", "-H", "Accept: text/csv",
                "-H", "Content-Type: application/sql", "--data-binary", sql + str(10_000 + number),
            )  # fmt: skip
            assert done.stdout == b'"n"\n1\n', done


def test_two_nodes_are_proved_equal(broker: str, table: str, nodes: tuple[Node, Node]) -> None:
    write(broker, table, range(500))
    done = shell("verify", "--replicas", nodes[0].url, nodes[1].url, "--json")
    assert done.returncode == 0, done
    [found] = json.loads(done.stdout)["tables"]
    assert (
        found["same"] and found["digests"][0] == found["digests"][1] and found["digests"][0].partition("-")[0] >= "500"
    )


def test_a_node_backs_itself_up_when_asked(broker: str, table: str, nodes: tuple[Node, Node], tmp_path: Path) -> None:
    write(broker, table, range(1000, 1100))
    done = shell("backup", "create", "--url", nodes[0].url, "--annotate", "why=asked", "--json", "--timeout", 60)
    assert done.returncode == 0, done
    made = json.loads(done.stdout)
    assert made["type"] == "full" and made["annotations"] == {"why": "asked"} and made["rows"] >= 100
    with mg.Client(nodes[0].url) as client:
        assert mg.Position.parse(client.status()["position"]).reaches(mg.Position.parse(made["position"]))
    failed = shell("backup", "create", "--url", nodes[1].url)
    assert failed.returncode in (1, 2) and "no archive" in failed.stderr and "Traceback" not in failed.stderr


def test_a_client_goes_on_when_a_node_dies_and_never_back(
    broker: str, table: str, nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    with node(tmp_path, broker, [table], "three") as third:
        with mg.Client([third.url, nodes[0].url]) as client:
            seen = -1
            for round_ in range(30):
                token = write(broker, table, range(20_000 + round_, 20_001 + round_))
                if round_ == 10:
                    os.kill(third.process.pid, signal.SIGSTOP)  # its port answers, and it does not
                if round_ == 12:
                    os.kill(third.process.pid, signal.SIGCONT)
                sql = f'select count(*) from "{table}" where order_id between 20000 and 29999'
                how: dict[str, Any] = {"after": token} if round_ % 3 == 0 else {"level": "session"}
                [(found,)] = client.query(sql, **how, timeout=30).rows()
                assert found >= seen and (round_ % 3 or found == round_ + 1)
                seen = found


def test_metrics_tell_of_commits_and_lag(nodes: tuple[Node, Node], table: str) -> None:
    def metrics() -> str:
        return curl(f"{nodes[0].url}/metrics").stdout.decode()

    wait_for("a look at the log", lambda: "merganser_log_unstable_seconds{" in metrics())
    text = metrics()
    assert f'merganser_lag_records{{partition="0",table="{table}"}}' in text
    assert f'merganser_log_unstable_seconds{{partition="1",table="{table}"}} 0.0' in text
    assert "merganser_commit_seconds_count" in text and 'merganser_part_failed{part="archive"} 0.0' in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*line.split(), *files, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_users_and_tls_from_end_to_end(broker: str, table: str, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    users = tmp_path / "users.json"
    secret = {"MERGANSER_PASSWORD": "correct horse"}
    assert shell("user", "add", "ann", "--users", users, env=secret).returncode == 0
    more = f'users = "{users}"\ntls-cert = "{cert}"\ntls-key = "{key}"\n'
    with node(tmp_path, broker, [table], "four", more) as guarded:
        assert guarded.url.startswith("https://")
        ask = [f"{guarded.url}/query?sql=select+1+as+n", "--cacert", str(cert)]
        assert json.loads(curl(*ask, "-u", "ann:correct horse").stdout)["rows"] == [[1]]
        refused = json.loads(curl(*ask, "-u", "ann:wrong horse").stdout)
        assert refused["code"] == "LoginFailed" and refused["hint"]
        assert curl(ask[0], "-u", "ann:correct horse").returncode == 60  # a certificate that nobody vouches for
        old = curl(*ask, "--tls-max", "1.1", "-u", "ann:correct horse")
        assert old.returncode in (35, 56)
        with mg.Client(guarded.url, auth=("ann", "correct horse"), ca=cert) as client:
            assert client.query("select 1").rows() == [(1,)]
        with mg.Client(guarded.url, auth=("ann", "correct horse")) as client, pytest.raises(NoReplica):
            client.query("select 1")
        line = ("query", "select 2 as n", "--url", guarded.url, "--ca", cert, "--user", "ann", "--format", "json")
        assert json.loads(shell(*line, env=secret).stdout) == {"n": 2}


def test_a_door_for_strangers_is_not_opened(broker: str, table: str, tmp_path: Path) -> None:
    run = ["replica", "run", "--store", tmp_path / "x.duckdb", "--group", "x", "--tables", table]
    done = shell(*run, "--bootstrap-servers", broker, "--http", "0.0.0.0:0")
    assert done.returncode == 2 and "no HTTP at 0.0.0.0:0" in done.stderr and "--insecure" in done.stderr
    done = shell(*run, "--bootstrap-servers", broker, "--http", "127.0.0.1:0", "--users", tmp_path / "nobody")
    assert done.returncode == 2 and "No such file" in done.stderr
