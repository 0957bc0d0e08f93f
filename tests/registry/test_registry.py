"""What every registry promises, in the log and by URL alike."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.pool import Pool
from typing import Any

import pytest
from confluent_kafka import Producer
from registry_workers import Spec, die_before_commit, open_spec, record, register_many

from merganser.schemas.errors import (
    IncompatibleSchema,
    LogUnavailable,
    OtherSchema,
    RegistryUnavailable,
    UnsupportedFormat,
)
from merganser.schemas.kafka import Cluster, Connection
from merganser.schemas.position import TopicPartition
from merganser.schemas.registry import open_registry
from merganser.schemas.registry_log import LogRegistry, _Reader
from merganser.schemas.registry_records import schema_record
from merganser.schemas.table import SchemaVersion

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def log_spec(broker: str) -> Spec:
    return ("log", broker, f"_schemas-{uuid.uuid4().hex[:8]}")


@pytest.fixture(params=["log", pytest.param("url", marks=pytest.mark.slow)])
def spec(request: pytest.FixtureRequest) -> Spec:
    if request.param == "log":
        return request.getfixturevalue("log_spec")
    return ("url", request.getfixturevalue("apicurio").url, "")


@pytest.fixture
def subject() -> str:
    return f"t{uuid.uuid4().hex[:8]}-value"


def written_by_many(spec: Spec, writers: int, count: int) -> list[tuple[str, int, int]]:
    prefix = f"many-{uuid.uuid4().hex[:8]}"
    with spawn.Manager() as manager:
        start = manager.Barrier(writers)
        pool: Pool
        with spawn.Pool(writers) as pool:
            jobs = [pool.apply_async(register_many, (spec, prefix, n, count, start)) for n in range(writers)]
            return [made for job in jobs for made in job.get(300)]


def doubles(made: list[tuple[str, int, int]]) -> list[object]:
    """Ids, and versions of a subject, that two different schemas were given."""
    ids = Counter(id for _, _, id in made)
    versions = Counter((subject, version) for subject, version, _ in made)
    return [k for counts in (ids, versions) for k, n in counts.items() if n > 1]


@pytest.mark.parametrize(("writers", "count"), [(2, 20), pytest.param(4, 100, marks=pytest.mark.slow)])
def test_concurrent_writers_share_no_id_and_no_version(spec: Spec, writers: int, count: int) -> None:
    made = written_by_many(spec, writers, count)
    assert len(made) == writers * count
    assert doubles(made) == []
    registry = open_spec(spec)
    for name in {subject for subject, _, _ in made}:
        listed = {(v.subject, v.version, v.id) for v in registry.versions(name)}
        assert listed == {m for m in made if m[0] == name}


@pytest.mark.slow
def test_the_naive_way_shares_ids(log_spec: Spec) -> None:
    _, where, topic = log_spec
    assert doubles(written_by_many(("naive", where, topic), 4, 20))


def test_the_same_schema_again_writes_nothing(spec: Spec, subject: str) -> None:
    registry = open_spec(spec)
    first = registry.register(subject, record("R"))
    turned = dict(reversed(record("R").items()))
    assert registry.register(subject, turned) == first
    assert open_spec(spec).register(subject, record("R")).version == 1
    assert registry.versions(subject) == [first]


def test_schemas_of_another_log_keep_their_numbers_and_ids(log_spec: Spec) -> None:
    registry, other = open_spec(log_spec), open_spec(log_spec)
    wanted = [SchemaVersion("a-value", 2, 41, record("A")), SchemaVersion("a-key", 1, 42, record("K"))]
    registry.adopt(wanted, "check")
    assert registry.subjects() == []
    registry.adopt(wanted, "reserve")
    assert other.subjects() == [] and other.register("b-value", record("B")).id == 43
    assert other.versions("a-value") == []
    registry.adopt(wanted, "use")
    registry.adopt(wanted, "use")
    assert open_spec(log_spec).versions("a-value") == wanted[:1] and other.versions("a-key") == wanted[1:]
    with pytest.raises(OtherSchema, match="id 43 is that of 'b-value'"):
        other.adopt([SchemaVersion("c-value", 1, 43, record("C"))], "reserve")
    assert "c-value" not in registry.subjects()


@pytest.mark.slow
def test_a_server_has_to_have_them_already(apicurio: Any, subject: str) -> None:
    registry = open_spec(("url", apicurio.url, ""))
    made = registry.register(subject, record("R"))
    registry.adopt([made], "use")
    for other in (replace(made, id=made.id + 1000), replace(made, version=2), replace(made, schema=record("X"))):
        with pytest.raises(OtherSchema):
            registry.adopt([other], "check")


def test_one_schema_in_two_subjects_has_one_id(spec: Spec, subject: str) -> None:
    registry = open_spec(spec)
    mine = {**record("R"), "doc": subject}
    assert registry.register(subject, mine).id == registry.register(f"other-{subject}", mine).id


def test_an_incompatible_schema_is_refused_and_nothing_written(spec: Spec, subject: str) -> None:
    registry = open_spec(spec)
    registry.register(subject, record("R"))
    broken = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "string"}]}
    with pytest.raises(IncompatibleSchema, match=subject):
        registry.register(subject, broken)
    assert [v.version for v in open_spec(spec).versions(subject)] == [1]


def test_versions_come_oldest_first_and_a_restart_reads_the_same(spec: Spec, subject: str) -> None:
    registry = open_spec(spec)
    made = [registry.register(subject, record("R", extra)) for extra in range(3)]
    assert registry.versions(subject) == made
    assert open_spec(spec).versions(subject) == made
    assert subject in open_spec(spec).subjects()


def test_another_writers_version_is_seen_at_once(spec: Spec, subject: str) -> None:
    reader, writer = open_spec(spec), open_spec(spec)
    for extra in range(5):
        assert len(reader.versions(subject)) == extra
        writer.register(subject, record("R", extra))
        assert len(reader.versions(subject)) == extra + 1


def test_an_unknown_subject_has_no_versions(spec: Spec) -> None:
    assert open_spec(spec).versions("nobody-value") == []


def test_a_primitive_schema_keeps_its_attributes(spec: Spec) -> None:
    key = {"type": "string", "merganser.encoding": "kafka", "merganser.column": "id"}
    name = f"k{uuid.uuid4().hex[:8]}-key"
    open_spec(spec).register(name, key)
    assert open_spec(spec).versions(name)[0].schema == key


def test_threads_share_a_registry(spec: Spec, subject: str) -> None:
    registry = open_spec(spec)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: registry.register(f"{subject}-{n % 4}", record("R", n)), range(12)))
    assert doubles([(v.subject, v.version, v.id) for v in made]) == []


def test_a_registry_that_is_away_is_said_so_in_time() -> None:
    begun = time.monotonic()
    log = LogRegistry(Connection("127.0.0.1:1").client_config(), timeout_s=2)
    with pytest.raises(LogUnavailable):
        log.versions("a-value")
    with pytest.raises(LogUnavailable):
        log.register("a-value", record("R"))
    assert time.monotonic() - begun < 60


def test_a_registry_by_url_that_is_away_is_said_so_in_time() -> None:
    pytest.importorskip("authlib", reason="needs the registry extra")
    begun = time.monotonic()
    registry = open_registry("http://user:secret@127.0.0.1:1", {})
    with pytest.raises(RegistryUnavailable) as caught:
        registry.versions("a-value")
    assert time.monotonic() - begun < 60
    assert "secret" not in str(caught.value)


def test_attributes_of_a_schema_are_kept_and_tell_it_from_another(spec: Spec, subject: str) -> None:
    plain = record(f"R{uuid.uuid4().hex[:8]}")
    said = {**plain, "merganser": {"checks": ["a > 0", "a <> 5"], "conditions": "partition"}}
    registry = open_spec(spec)
    registry.register(f"other-{subject}", plain)
    registry.register(subject, said)
    assert [v.schema for v in open_spec(spec).versions(subject)] == [said]
    assert [v.schema for v in open_spec(spec).versions(f"other-{subject}")] == [plain]


# -- what a server makes of a schema ---------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_looks_past_a_difference_is_not_believed(apicurio: Any, subject: str) -> None:
    registry = open_spec(("url", apicurio.url, ""))
    first = registry.register(subject, record("R"))
    documented = {**record("R"), "doc": "what it is"}
    assert registry.register(subject, documented).id == first.id
    renamed = {**record("R"), "fields": [{"name": "a", "type": "int", "aliases": ["b"]}]}
    with pytest.raises(IncompatibleSchema, match="aliases"):
        registry.register(subject, renamed)


@pytest.mark.slow
def test_a_subject_deleted_and_made_anew_is_not_remembered(apicurio: Any, subject: str) -> None:
    registry, other = open_spec(("url", apicurio.url, "")), open_spec(("url", apicurio.url, ""))
    registry.register(subject, record("R"))
    other._client.delete_subject(subject)  # type: ignore[attr-defined]  # softly: the server asks for it
    other._client.delete_subject(subject, permanent=True)  # type: ignore[attr-defined]
    assert registry.versions(subject) == []
    anew = other.register(subject, record("Other"))
    assert registry.versions(subject) == [anew]


@pytest.mark.slow
def test_a_server_that_went_away_is_used_again_when_it_is_back(apicurio: Any, subject: str) -> None:
    registry = open_spec(("url", apicurio.url, ""))
    registry.register(subject, record("R"))
    apicurio.stop()
    try:
        with pytest.raises(RegistryUnavailable):
            registry.versions(subject)
    finally:
        apicurio.start()
    registry.versions(subject)


@pytest.mark.slow
def test_another_schema_type_on_a_server_is_refused_by_name(apicurio: Any, subject: str) -> None:
    registry_url = pytest.importorskip("merganser.schemas.registry_url")
    registry = registry_url.UrlRegistry(apicurio.url, {})
    wanted = registry._schema_type('syntax = "proto3"; message M { int32 a = 1; }', "PROTOBUF")
    registry._client.register_schema(subject, wanted)
    with pytest.raises(UnsupportedFormat, match="PROTOBUF"):
        registry.versions(subject)


# -- the log's own ---------------------------------------------------------------------------


def test_a_writer_killed_before_its_commit_leaves_nothing(log_spec: Spec, subject: str) -> None:
    registry = open_spec(log_spec)
    registry.register(subject, record("R"))
    with spawn.Manager() as manager:
        written = manager.Event()
        child = spawn.Process(target=die_before_commit, args=(log_spec, f"half-{subject}", written))
        child.start()
        assert written.wait(120)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(10)
    after = registry.register(subject, record("R", 1))
    assert (after.version, after.id) == (2, 2)
    assert open_spec(log_spec).subjects() == [subject]


def test_a_registration_under_way_is_waited_for(log_spec: Spec, subject: str) -> None:
    _, servers, topic = log_spec
    registry = open_spec(log_spec)
    first = registry.register(subject, record("R"))
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"merganser.{topic}"})
    producer.init_transactions(10)
    producer.begin_transaction()
    key, value = schema_record(SchemaVersion(subject, 2, 2, record("R", 1)))
    producer.produce(topic, key=key, value=value, partition=0)
    producer.flush(10)
    timer = threading.Timer(0.5, producer.commit_transaction)
    timer.start()
    assert [v.version for v in registry.versions(subject)] == [first.version, 2]
    timer.join()


def test_aborted_records_at_the_end_are_no_reason_to_wait(log_spec: Spec, subject: str) -> None:
    _, servers, topic = log_spec
    registry = open_spec(log_spec)
    registry.register(subject, record("R"))
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "somebody-else"})
    producer.init_transactions(10)
    for _ in range(3):
        producer.begin_transaction()
        producer.produce(topic, key=b"{}", value=b"{}", partition=0)
        producer.flush(10)
        producer.abort_transaction(10)
    begun = time.monotonic()
    assert len(registry.versions(subject)) == 1
    assert len(open_spec(log_spec).versions(subject)) == 1
    assert time.monotonic() - begun < 60


def test_an_open_transaction_of_somebody_ends_in_an_error(log_spec: Spec, subject: str) -> None:
    _, servers, topic = log_spec
    open_spec(log_spec).register(subject, record("R"))
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "hanging"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, key=b"{}", value=b"{}", partition=0)
    producer.flush(10)
    with pytest.raises(LogUnavailable, match="read to"):
        LogRegistry(Connection(servers).client_config(), topic=topic, timeout_s=1).versions(subject)
    producer.abort_transaction(10)


def test_the_topic_is_compacted_and_has_one_partition(log_spec: Spec, subject: str) -> None:
    _, servers, topic = log_spec
    open_spec(log_spec).register(subject, record("R"))
    facts = Cluster(Connection(servers).client_config()).describe([topic])[topic]
    assert (facts.compacted, facts.partitions) == (True, 1)


def test_reading_makes_no_topic(log_spec: Spec) -> None:
    _, servers, topic = log_spec
    assert open_spec(log_spec).versions("a-value") == []
    assert Cluster(Connection(servers).client_config()).ends([TopicPartition(topic, 0)]) == {}


def test_a_fresh_answer_costs_one_question_and_reads_nothing_again(
    log_spec: Spec, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_spec(log_spec)
    registry.register(subject, record("R"))
    registry.versions(subject)  # up to the record: its transaction's marker may have come after the end was asked for
    made = registry.versions(subject)
    asked, ends = list[object](), Cluster.ends

    def counted(self: Cluster, *what: Any) -> Any:
        asked.append(what)
        return ends(self, *what)

    monkeypatch.setattr(Cluster, "ends", counted)
    monkeypatch.setattr(_Reader, "_open", lambda self: pytest.fail("it reads again"))
    assert [registry.versions(subject) for _ in range(20)] == [made] * 20 and len(asked) == 20
