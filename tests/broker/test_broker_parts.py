"""The parts of the local broker that need no Kafka: configuration, lock file, fetching, logs, the queue."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from merganser.pipeline.broker import config, jars, process
from merganser.pipeline.broker.classcache import ClassCache
from merganser.pipeline.broker.config import Cluster, Node
from merganser.pipeline.broker.home import Folders, merganser_home
from merganser.pipeline.broker.jars import Jar
from merganser.pipeline.broker.java import java
from merganser.pipeline.broker.local import free_ports, plan
from merganser.pipeline.broker.lock import render_lock
from merganser.pipeline.broker.logs import last_words
from merganser.pipeline.broker.progress import PlainProgress, Progress
from merganser.schemas.errors import BrokerError

ONE = config.plan_cluster("MkU3OEVBNTcwNTJENDM2Qg", "4.3.1", [20001, 20002])
THREE = config.plan_cluster("MkU3OEVBNTcwNTJENDM2Qg", "4.3.1", [20001, 20002, 20003, 20004, 20005, 20006])


def properties(cluster: Cluster, node: int = 0) -> dict[str, object]:
    return config.server_properties(cluster, cluster.nodes[node], Path("/data/node-1"))


# -- configuration -----------------------------------------------------------------------------


def test_kafka_binds_loopback_only() -> None:
    for cluster in (ONE, THREE):
        for node in range(len(cluster.nodes)):
            for name in ("listeners", "advertised.listeners", "controller.quorum.voters"):
                places = str(properties(cluster, node)[name]).split(",")
                assert all("127.0.0.1" in place for place in places), places


def test_three_nodes_keep_three_copies_and_need_two() -> None:
    rendered = properties(THREE)
    assert rendered["default.replication.factor"] == 3
    assert rendered["min.insync.replicas"] == 2
    assert rendered["transaction.state.log.min.isr"] == 2
    assert str(rendered["controller.quorum.voters"]) == "1@127.0.0.1:20002,2@127.0.0.1:20004,3@127.0.0.1:20006"
    assert THREE.bootstrap_servers == "127.0.0.1:20001,127.0.0.1:20003,127.0.0.1:20005"


def test_topics_are_made_on_purpose_and_kept_as_kafka_keeps_them() -> None:
    rendered = properties(ONE)
    assert rendered["auto.create.topics.enable"] == "false"
    assert not [name for name in rendered if name.startswith("log.retention")]


def test_killed_members_lose_their_partitions_after_six_seconds() -> None:
    rendered = properties(ONE)
    assert rendered["group.consumer.session.timeout.ms"] == 6000
    assert rendered["group.consumer.min.session.timeout.ms"] == 6000


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("/home/ann/data", "/home/ann/data"),
        ("C:\\data", "C:\\\\data"),
        ("/home/bjørn", "/home/bj\\u00f8rn"),
        ("/home/🦆", "/home/\\ud83e\\udd86"),
    ],
)
def test_any_home_survives_a_properties_file(value: str, written: str) -> None:
    assert config.render({"log.dirs": value}) == f"log.dirs={written}\n"


@pytest.mark.parametrize("cluster", [ONE, THREE])
def test_a_cluster_reads_back_as_it_was_written(cluster: Cluster) -> None:
    assert Cluster.from_json(cluster.to_json()) == cluster


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"format": 2}',
        ONE.to_json().replace("20001", '"x"'),
        THREE.to_json().replace('"id"', '"ID"'),
    ],
)
def test_damaged_cluster_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Cluster.from_json(text)


def test_homes_formatted_side_by_side_get_different_ports() -> None:
    first, second = plan(3, "4.3.1"), plan(3, "4.3.1")
    ports = [port for cluster in (first, second) for node in cluster.nodes for port in node.ports]
    assert len(set(ports)) == 12
    assert first.cluster_id != second.cluster_id


def test_home_is_the_environments_or_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path))
    assert merganser_home() == tmp_path
    monkeypatch.delenv("MERGANSER_HOME")
    assert "merganser" in str(merganser_home())


def test_all_that_is_kept_is_under_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MERGANSER_JARS", raising=False)
    at = Folders(tmp_path)
    for path in (
        at.jars,
        at.lock,
        at.data,
        at.cluster,
        at.pids,
        at.tmp,
        at.config(1),
        at.log(1),
        at.console(1),
    ):
        assert path.is_relative_to(tmp_path)


# -- jars --------------------------------------------------------------------------------------


def jar_of(content: bytes, artifact: str = "duck") -> Jar:
    return Jar("org.example", artifact, "1.0", hashlib.sha256(content).hexdigest())


def serve(monkeypatch: pytest.MonkeyPatch, answers: list[bytes | Exception]) -> list[str]:
    """Let the registry answer with these, in turn. Returns the names asked for."""
    asked: list[str] = []

    def download(group: str, artifact: str, version: str, into: Path, progress: Progress) -> Path:
        asked.append(f"{group}:{artifact}:{version}")
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        path = into / f"{artifact}-{version}.jar"
        path.write_bytes(answer)
        return path

    monkeypatch.setattr(jars, "download", download)
    monkeypatch.setattr(jars, "FIRST_PAUSE_S", 0.001)
    return asked


def test_the_committed_lock_names_kafka_and_each_file_once() -> None:
    locked = jars.locked_jars()
    assert jars.kafka_version(locked) == "4.3.1"
    assert len({jar.filename for jar in locked}) == len(locked) > 40
    versions = {jar.version for jar in locked if jar.group == "org.apache.kafka"}
    assert versions == {"4.3.1"}, "one Kafka: an old kafka-clients among them breaks the broker"


def test_the_committed_lock_holds_names_versions_and_hashes_only() -> None:
    text = jars.LOCK_FILE.read_text()
    assert "://" not in text
    assert render_lock(list(jars.parse_lock(text))) == text


@pytest.mark.parametrize("line", ["a:b:1", "a:b:1 12", "a:b " + "0" * 64, "a:b:1 " + "X" * 64])
def test_a_line_that_pins_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        jars.parse_lock(line)


def test_a_cached_jar_is_not_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, [b"quack"])
    wanted = [jar_of(b"quack")]
    assert jars.ensure_jars(wanted, tmp_path, Progress()) == jars.ensure_jars(wanted, tmp_path, Progress())
    assert asked == ["org.example:duck:1.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["duck-1.0.jar"]


def test_a_changed_jar_is_refused_and_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, [b"quack"])
    jar = jar_of(b"quack")
    (tmp_path / jar.filename).write_bytes(b"hiss")
    with pytest.raises(BrokerError, match=r"duck-1\.0\.jar is not the pinned org\.example:duck:1\.0"):
        jars.ensure_jars([jar], tmp_path, Progress())
    assert not asked
    assert jars.ensure_jars([jar], tmp_path, Progress()), "the same again fetches it afresh, as the hint says"


def test_a_jar_that_arrives_changed_never_enters_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(monkeypatch, [b"hiss"])
    with pytest.raises(BrokerError, match=r"fetched org\.example:duck:1\.0, but its SHA-256") as caught:
        jars.ensure_jars([jar_of(b"quack")], tmp_path, Progress())
    assert "will not run" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_network_trouble_is_retried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, [ConnectionError("reset"), RuntimeError("HTTP 503"), b"quack"])
    assert jars.ensure_jars([jar_of(b"quack")], tmp_path, Progress())[0].read_bytes() == b"quack"
    assert len(asked) == 3


def test_a_dead_network_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, [ConnectionError("no route\nto host")])
    with pytest.raises(BrokerError) as caught:
        jars.ensure_jars([jar_of(b"quack")], tmp_path, Progress())
    assert len(asked) == jars.ATTEMPTS
    assert "\n" not in str(caught.value)
    assert "no route" in str(caught.value)
    assert "network" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_plain_progress_says_how_much(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    serve(monkeypatch, [b"quack"])
    jars.ensure_jars([jar_of(b"quack", "a"), jar_of(b"quack", "b")], tmp_path, PlainProgress(sys.stdout))
    assert capsys.readouterr().out == "fetching 2 jars of Apache Kafka, once\nfetched 2 of 2 jars, 0.0 MB\n"


# -- logs --------------------------------------------------------------------------------------

STAMP = "[2026-11-21 03:13:51,875]"
LOCKED = f"""{STAMP} INFO starting (kafka.server.KafkaServer)
{STAMP} ERROR Exiting Kafka due to fatal exception (kafka.Kafka$)
org.apache.kafka.common.KafkaException: Failed to acquire lock on file .lock in /data
\tat kafka.log.LogManager.lock(LogManager.scala:1)
\tat kafka.Kafka.main(Kafka.scala:1)
{STAMP} INFO shut down (kafka.server.KafkaServer)
"""
JVM = "Unrecognized VM option 'Quick'\nError: Could not create the Java Virtual Machine.\n"


@pytest.mark.parametrize(
    ("log", "console", "words"),
    [
        (LOCKED, "", "org.apache.kafka.common.KafkaException: Failed to acquire lock on file .lock in /data"),
        (f"{STAMP} ERROR disk is full (x)\n{STAMP} INFO bye (x)\n", "", "disk is full (x)"),
        ("", JVM, "Unrecognized VM option 'Quick'"),
        (f"{STAMP} INFO just begun (x)\n", "", "just begun (x)"),
        ("", "", "it said nothing"),
    ],
)
def test_a_crash_is_told_by_the_line_that_says_most(log: str, console: str, words: str) -> None:
    assert last_words(log, console) == words


# -- the class cache ----------------------------------------------------------------------------


@pytest.fixture
def made_of(tmp_path: Path) -> Callable[[], ClassCache]:
    for name in ("a.jar", "b.jar", "release"):
        (tmp_path / name).write_bytes(name.encode())
    return lambda: ClassCache([tmp_path / "a.jar", tmp_path / "b.jar"], tmp_path / "release")


def write_classes(path: Path) -> None:
    path.write_bytes(b"classes")


def test_the_class_cache_is_used_as_it_was_made_or_not_at_all(made_of: Callable[[], ClassCache]) -> None:
    cache = made_of()
    assert not cache.settled and cache.flags() == []
    assert cache.make(write_classes) is None
    assert made_of().settled and made_of().flags()[0] == f"-XX:AOTCache={cache.path}"
    cache.path.write_bytes(b"clasSes")
    assert cache.flags() == [] and not cache.settled, "it is made again"
    assert cache.make(write_classes) is None and cache.flags()
    cache.path.unlink()
    assert cache.flags() == [] and not cache.settled


@pytest.mark.parametrize("changed", ["a.jar", "release"])
def test_a_class_cache_of_other_jars_or_another_java_is_not_used(
    made_of: Callable[[], ClassCache], tmp_path: Path, changed: str
) -> None:
    old = made_of()
    old.make(write_classes)
    (tmp_path / changed).write_bytes(b"another")
    assert made_of().flags() == [] and not made_of().settled
    made_of().make(write_classes)
    assert made_of().flags() and not old.path.exists(), "one is kept"


def test_a_class_cache_serves_the_same_java_in_another_place(made_of: Callable[[], ClassCache], tmp_path: Path) -> None:
    """Two checkouts share the jars, and each has a Java of its own in its .venv."""
    made_of().make(write_classes)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "release", tmp_path / "other" / "release")
    jars = [tmp_path / "a.jar", tmp_path / "b.jar"]
    assert ClassCache(jars, tmp_path / "other" / "release").flags() == made_of().flags() != []


def test_a_class_cache_that_cannot_be_made_is_not_tried_each_time(made_of: Callable[[], ClassCache]) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"a part")
        raise BrokerError("Kafka did not start")

    cache = made_of()
    assert "Kafka did not start" in (cache.make(fails) or "")
    assert cache.settled and cache.flags() == [] and not cache.path.exists()
    assert "No such file" in (made_of().make(lambda path: None) or ""), "Java may write none"


def test_java_passes_over_a_cache_that_it_cannot_use(made_of: Callable[[], ClassCache]) -> None:
    cache = made_of()
    cache.make(write_classes)
    done = subprocess.run([java(), *cache.flags(), "-version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and "aot" not in done.stderr, done


# -- taking turns ------------------------------------------------------------------------------


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    lock, order = tmp_path / "lock", []
    waiting = threading.Event()

    def second() -> None:
        with process.exclusive(lock, 10, waiting.set):
            order.append("second")

    with process.exclusive(lock, 10, lambda: None):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_wait_for_a_turn_is_bounded(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with process.exclusive(lock, 10, lambda: None):
        second = process.exclusive(lock, 0.1, lambda: None)
        with pytest.raises(BrokerError, match="another process"):
            second.__enter__()


def test_free_ports_are_free() -> None:
    assert all(process.port_is_free(port) for port in free_ports(4))


def test_a_node_is_two_ports() -> None:
    assert Node(1, 20001, 20002).ports == (20001, 20002)
