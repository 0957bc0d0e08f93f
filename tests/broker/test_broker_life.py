"""The local broker's life, on real Kafka: each test has a home of its own and leaves no process behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from merganser.pipeline.broker import LocalBroker, Progress, kafka_tool
from merganser.pipeline.broker.config import Cluster
from merganser.pipeline.broker.local import _check_ports
from merganser.schemas.errors import BrokerError
from support.waiting import wait_for

WORKER = Path(__file__).with_name("broker_workers.py")


class Heard(Progress):
    """Keeps what a person would have read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def formatted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was started and stopped once: the others are copies of it, which saves the formatting."""
    home = tmp_path_factory.mktemp("formatted")
    local = LocalBroker(home)
    try:
        local.start(wait_s=120)
    finally:
        local.stop()
    return home


@pytest.fixture
def home(formatted: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "home"
    shutil.copytree(formatted / "broker" / "data", copy / "broker" / "data")
    yield copy
    LocalBroker(copy).stop()


@pytest.fixture
def new_home(formatted: Path, tmp_path: Path) -> Iterator[Path]:
    """An empty one; whatever is done once a machine is done."""
    yield tmp_path / "new"
    if (tmp_path / "new").exists():
        LocalBroker(tmp_path / "new").stop()


def client_port(home: Path) -> int:
    return int(json.loads((home / "broker/data/cluster.json").read_text())["nodes"][0]["client_port"])


def write(servers: str, topic: str, value: bytes, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)
    producer = Producer({"bootstrap.servers": servers, "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def read(servers: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "log_level": 0})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes | None] = []

        def arrived() -> bool:
            message = consumer.poll(0.5)
            if message is not None and not message.error():
                found.append(message.value())
            return bool(found)

        wait_for(f"a record of {topic}", arrived)
        return found[0]
    finally:
        consumer.close()


def worker(home: Path) -> subprocess.Popen[str]:
    line = [sys.executable, str(WORKER), str(home)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def nodes_of(home: Path) -> list[int]:
    """Every Kafka process of a home, by asking the system."""
    config = str(home / "broker" / "config")
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(word.startswith(config) for word in words):
            found.append(process.pid)
    return found


def uses_the_class_cache(pid: int) -> bool:
    """Whether a process has it mapped; only Linux tells."""
    maps = Path(f"/proc/{pid}/maps")
    return not maps.exists() or ".aot" in maps.read_text()


# -- start, reuse, stop --------------------------------------------------------------------------


def test_start_reuses_what_runs_status_tells_it_and_data_outlives_a_stop_and_a_kill(home: Path) -> None:
    local = LocalBroker(home)
    assert not local.status().running
    first = local.start(wait_s=120)
    assert first.running and len(first.pids) == 1
    assert uses_the_class_cache(first.pids[0])
    write(first.bootstrap_servers, "kept", b"row")
    assert LocalBroker(home).start(wait_s=120).pids == first.pids

    status = local.status()
    assert status.running and status.problems == ()
    assert (status.brokers, status.kafka_version, status.home) == (1, "4.3.1", home)
    assert status.data_bytes > 0 and status.resident_bytes > 0
    os.kill(status.pids[0], signal.SIGSTOP)
    try:
        assert "does not answer" in local.status().problems[0]
    finally:
        os.kill(status.pids[0], signal.SIGCONT)

    stopped = local.stop()
    assert not stopped.running and not stopped.problems
    assert nodes_of(home) == []
    assert local.stop() == stopped, "stopping twice is stopping once"

    second = local.start(wait_s=120)
    assert (second.cluster_id, second.bootstrap_servers) == (first.cluster_id, first.bootstrap_servers)
    assert read(second.bootstrap_servers, "kept") == b"row"

    os.kill(second.pids[0], signal.SIGKILL)
    third = local.start(wait_s=120)
    assert third.pids != second.pids
    assert read(third.bootstrap_servers, "kept") == b"row"


def test_status_of_a_new_home_writes_nothing(tmp_path: Path) -> None:
    assert not LocalBroker(tmp_path / "nowhere").status().running
    assert not (tmp_path / "nowhere").exists()


def test_a_start_killed_while_formatting_leaves_no_broken_home_and_two_at_once_get_one_broker(new_home: Path) -> None:
    starter = worker(new_home)
    wait_for("formatting has begun", lambda: any((new_home / "broker").glob("formatting-*/node-1*")))
    starter.kill()
    starter.communicate(timeout=300)
    assert not (new_home / "broker" / "data").exists()

    starters = [worker(new_home) for _ in range(2)]
    said = [starter.communicate(timeout=120) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert nodes_of(new_home) == json.loads(said[0][0])["pids"], "it outlives both"
    assert list((new_home / "broker").glob("formatting-*")) == []


@pytest.mark.slow  # tests/kafka/test_foreign_tools.py reads rows with them each time
def test_kafkas_own_tools_run_from_the_same_jars(home: Path) -> None:
    servers = LocalBroker(home).start(wait_s=120).bootstrap_servers
    write(servers, "tools", b"quack")
    listed = kafka_tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", servers, "--list", home=home)
    assert listed.stdout.split() == ["tools"], listed.stderr
    arguments = ("--bootstrap-server", servers, "--topic", "tools", "--from-beginning", "--max-messages", "1")
    read_back = kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", *arguments, home=home)
    assert read_back.stdout == "quack\n", read_back.stderr


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_pid_file_that_lies_or_is_lost_misleads_nobody(home: Path) -> None:
    local, pids = LocalBroker(home), home / "broker" / "pids.json"
    pids.write_text(json.dumps({"1": os.getpid()}))
    heard = Heard()
    status = local.start(progress=heard)
    assert any(f"pid {os.getpid()} is stale" in line for line in heard.lines), heard.lines
    assert status.pids != (os.getpid(),)

    pids.unlink()
    assert local.start(wait_s=120).pids == status.pids
    local.stop()
    assert nodes_of(home) == []


def test_a_stop_never_signals_a_stranger(home: Path) -> None:
    (home / "broker" / "pids.json").write_text(json.dumps({"1": os.getpid()}))
    assert "stale" in LocalBroker(home).stop().problems[0]


def test_a_taken_port_is_named(home: Path) -> None:
    port = client_port(home)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(BrokerError, match=f"port {port} of node 1 is taken by .*pid {os.getpid()}") as caught:
            LocalBroker(home).start(wait_s=120)
    assert "MERGANSER_HOME" in caught.value.hint
    assert nodes_of(home) == []
    _check_ports(Cluster.from_json((home / "broker/data/cluster.json").read_text()).nodes)  # free again, it would start


def test_another_number_of_brokers_is_refused(home: Path) -> None:
    with pytest.raises(BrokerError, match=r"holds data of 1 broker\(s\), and 3 were asked for"):
        LocalBroker(home).start(brokers=3)
    with pytest.raises(BrokerError, match="1 or 3"):
        LocalBroker(home).start(brokers=2)


def test_a_crash_at_start_shows_kafkas_reason(home: Path) -> None:
    meta = home / "broker/data/node-1/meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError, match=r"node 1 ended while starting: .*7") as caught:
        LocalBroker(home).start(wait_s=120)
    assert str(home / "broker/logs/node-1.log") in caught.value.hint
    assert nodes_of(home) == []


def test_a_damaged_home_is_named(home: Path) -> None:
    (home / "broker/data/cluster.json").write_text("{")
    with pytest.raises(BrokerError, match=r"cluster\.json cannot be read") as caught:
        LocalBroker(home).start(wait_s=120)
    assert "aside" in caught.value.hint
    shutil.rmtree(home / "broker" / "data")


@pytest.mark.slow
def test_a_stubborn_node_is_killed_and_told(home: Path) -> None:
    local = LocalBroker(home)
    pid = local.start(wait_s=120).pids[0]
    os.kill(pid, signal.SIGSTOP)
    assert "was killed" in local.stop(wait_s=0.5).problems[0]
    assert nodes_of(home) == []


# -- three nodes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_nodes_serve_while_one_is_dead(new_home: Path) -> None:
    local = LocalBroker(new_home)
    status = local.start(brokers=3, wait_s=120)
    assert len(status.pids) == 3
    write(status.bootstrap_servers, "before", b"1", replicas=3)
    os.kill(status.pids[0], signal.SIGKILL)

    def dead_seen() -> bool:
        return "node 1 does not run" in local.status().problems

    wait_for("the dead node is seen", dead_seen)
    producer = Producer({"bootstrap.servers": status.bootstrap_servers, "acks": "all", "log_level": 0})
    producer.produce("before", b"2")
    assert producer.flush(60) == 0, "two of three are enough"
    assert read(status.bootstrap_servers, "before") == b"1"

    again = local.start(wait_s=120)
    assert again.pids[1:] == status.pids[1:], "only the dead one was started"
    assert not again.problems or "stale" in again.problems[0]
    assert not local.stop().problems
    assert LocalBroker(new_home).start(wait_s=120).brokers == 3, "the number is remembered"
