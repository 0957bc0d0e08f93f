"""Tables are made, declared, changed and refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from merganser.pipeline.log import Log, _settings_file, connect
from merganser.schemas.errors import (
    BadKeyColumns,
    BadSchema,
    IncompatibleSchema,
    LogUnavailable,
    TableExists,
    UnknownTable,
    UnsupportedFormat,
    UsageError,
)
from merganser.schemas.kafka import Cluster, Connection, Heard
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import AvroSchema, SchemaVersion, key_subject, value_subject
from support.waiting import wait_for


def record(*fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "t", "fields": [{"name": n, "type": t} for n, t in fields], **more}


ORDERS = record(("id", "long"), ("sku", "string"), ("price", "double"), ("note", ["null", "string"]))


@pytest.fixture
def log(broker: str) -> Iterator[Log]:
    with connect(broker) as log:
        yield log


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def topic(log: Log, name: str, partitions: int = 2) -> Cluster:
    """A topic that is not ours."""
    cluster = Cluster(Connection(log.bootstrap_servers).client_config())
    assert cluster.create_topic(name, partitions, {})
    return cluster


def write(log: Log, name: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": log.bootstrap_servers})
    for value in values:
        producer.produce(name, value)
    assert producer.flush(10) == 0


def test_a_new_table_keeps_all_and_stamps_by_batch(log: Log, name: str) -> None:
    table = log.create_table(name, ORDERS, ["id"])
    assert (table.key, table.partitions, table.compacted, table.latest.schema) == (("id",), 4, False, ORDERS)
    settings = Cluster(Connection(log.bootstrap_servers).client_config()).describe([name])[name].settings
    assert settings["retention.ms"] == "-1" and settings["message.timestamp.type"] == "LogAppendTime"
    assert log.table(name) == table and table in log.tables()


def test_the_same_again_is_a_no_op(log: Log, name: str) -> None:
    table = log.create_table(name, ORDERS, ["id"], partitions=3)
    assert log.create_table(name, dict(reversed(ORDERS.items())), ["id"], partitions=3) == table
    assert log.create_table(name, json.dumps(ORDERS), ["id"]) == table


def test_an_older_service_may_still_ask_for_its_own_schema(log: Log, name: str) -> None:
    log.create_table(name, ORDERS, ["id"])
    wider = {**ORDERS, "fields": [*ORDERS["fields"], {"name": "qty", "type": "int", "default": 0}]}
    assert log.create_table(name, ORDERS, ["id"]).name == log.alter_table(name, wider).name
    assert log.create_table(name, ORDERS, ["id"]).latest.schema == wider


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"key": ["sku"]}, "its key is"),
        ({"key": []}, "not none"),
        ({"key_encoding": "long"}, "its key is"),
        ({"partitions": 9}, "4 partitions, not 9"),
        ({"compact": True}, "not compacted"),
        ({"config": {"retention.ms": "5"}}, "retention.ms"),
        ({"schema": record(("id", "long"), ("sku", "int"))}, "no|more|column 'sku'"),
    ],
)
def test_another_table_of_the_name_is_refused_with_the_difference(
    log: Log, name: str, other: dict[str, Any], why: str
) -> None:
    log.create_table(name, ORDERS, ["id"])
    asked: dict[str, Any] = {"schema": ORDERS, "key": ["id"], **other}
    with pytest.raises(TableExists, match=why):
        log.create_table(name, **asked)


@pytest.mark.parametrize(("column", "why"), [("nope", "no such"), ("note", "null"), ("price", "double")])
def test_a_column_that_cannot_be_a_key_is_refused(log: Log, name: str, column: str, why: str) -> None:
    with pytest.raises(BadKeyColumns, match=why):
        log.create_table(name, ORDERS, [column])
    assert name not in [t.name for t in log.tables()]


@pytest.mark.parametrize("bad", ["", "a b", "_schemas", "__consumer_offsets", ".", "a/b", "x" * 250])
def test_a_name_that_is_none_is_refused(log: Log, bad: str) -> None:
    with pytest.raises(UsageError, match="no table name"):
        log.create_table(bad, ORDERS)


def test_a_name_that_sql_cannot_tell_apart_is_refused(log: Log, name: str) -> None:
    log.create_table(name, ORDERS)
    with pytest.raises(TableExists, match="same name in SQL"):
        log.create_table(name.upper(), ORDERS)


@pytest.mark.parametrize("wrong", ["a b", "a/b", "ü", ".", "x" * 300])
def test_a_name_that_no_topic_can_have_is_an_unknown_table(log: Log, wrong: str) -> None:
    """Not a broker that is away: whoever waits for that would wait for ever."""
    with pytest.raises(UnknownTable):
        log.table(wrong)


@pytest.mark.parametrize("wrong", ["", None, 5])
def test_what_is_no_name_is_refused(log: Log, wrong: Any) -> None:
    with pytest.raises(UsageError, match="a table's name is text"):
        log.table(wrong)


def test_a_bad_schema_makes_no_topic(log: Log, name: str) -> None:
    with pytest.raises(BadSchema):
        log.create_table(name, record(("_offset", "long")))
    with pytest.raises(UnknownTable):
        log.table(name)


def test_compaction_needs_a_key(log: Log, name: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        log.create_table(name, ORDERS, compact=True)
    assert log.create_table(name, ORDERS, ["id"], compact=True).compacted


@pytest.mark.parametrize("step", ["topic", "key", "value"])
def test_a_crash_at_any_step_is_mended_by_the_same_call(
    log: Log, name: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    register = log._registry.register

    def crashing(subject: str, schema: AvroSchema) -> SchemaVersion:
        if step == "topic":
            raise Crash
        made = register(subject, schema)
        if subject == (key_subject(name) if step == "key" else value_subject(name)):
            raise Crash
        return made

    monkeypatch.setattr(log._registry, "register", crashing)
    with pytest.raises(Crash):
        log.create_table(name, ORDERS, ["id"])
    monkeypatch.undo()
    if step != "value":
        with pytest.raises(UnknownTable):
            log.table(name)
    assert log.create_table(name, ORDERS, ["id"]).key == ("id",)


def test_two_who_make_one_table_at_once_get_the_same(broker: str, name: str) -> None:
    def make(_: int) -> Any:
        with connect(broker) as log:
            return log.create_table(name, ORDERS, ["id"])

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(make, range(3))
    assert all(other == first for other in others)


def test_two_who_make_different_tables_at_once_are_not_both_served(broker: str, name: str) -> None:
    def make(key: list[str]) -> Any:
        try:
            with connect(broker) as log:
                return log.create_table(name, ORDERS, key)
        except (TableExists, IncompatibleSchema) as refused:
            return refused

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(make, [["id"], ["sku"]]))
    assert sum(isinstance(r, Exception) for r in results) >= 1


# -- changing --------------------------------------------------------------------------------


def test_a_change_that_readers_cannot_follow_is_refused(log: Log, name: str) -> None:
    log.create_table(name, ORDERS, ["id"])
    with pytest.raises(IncompatibleSchema):
        log.alter_table(name, {**ORDERS, "fields": [*ORDERS["fields"], {"name": "qty", "type": "int"}]})
    assert len(log.table(name).values) == 1


def test_a_key_column_cannot_change(log: Log, name: str) -> None:
    log.create_table(name, record(("id", "int"), ("sku", "string")), ["id"])
    with pytest.raises(BadKeyColumns):
        log.alter_table(name, record(("id", "long"), ("sku", "string")))
    with pytest.raises(BadKeyColumns):
        log.alter_table(name, record(("sku", "string")))


def test_an_unknown_table_cannot_be_changed(log: Log, name: str) -> None:
    with pytest.raises(UnknownTable):
        log.alter_table(name, ORDERS)


# -- topics of others ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "format"),
    [
        (b'{"id": 1}', "JSON"),
        (b'{"before": null, "after": {}, "op": "c"}', "Debezium JSON"),
        (b"hello", "plain text"),
        (b"\x0a\x05\xff\xfe\x01\x02\x03", "binary"),
    ],
)
def test_values_that_are_not_avro_are_refused_by_name(log: Log, name: str, value: bytes, format: str) -> None:
    topic(log, name)
    write(log, name, value, value)
    with pytest.raises(UnsupportedFormat, match=format):
        log.table(name)
    with pytest.raises(UnsupportedFormat, match=format):
        log.create_table(name, ORDERS, existing=True)


def test_a_topic_without_a_schema_says_how_to_declare_it(log: Log, name: str) -> None:
    topic(log, name)
    with pytest.raises(UnknownTable) as caught:
        log.table(name)
    assert "--existing" in caught.value.hint


def test_a_topic_with_records_is_not_taken_for_our_own(log: Log, name: str) -> None:
    topic(log, name)
    write(log, name, b"\x00\x00\x00\x00\x01\x02")
    with pytest.raises(TableExists, match="existing"):
        log.create_table(name, ORDERS)


@pytest.mark.parametrize(("encoding", "column"), [("string", "sku"), ("long", "id")])
def test_a_topic_with_plain_keys_is_declared(log: Log, name: str, encoding: Any, column: str) -> None:
    topic(log, name)
    table = log.create_table(name, ORDERS, [column], key_encoding=encoding, existing=True)
    assert (table.key, table.key_encoding, table.partitions) == ((column,), encoding, 2)
    assert table.key_schema is not None
    assert table.key_schema.schema == {
        "type": encoding,
        "merganser.encoding": "kafka",
        "merganser.column": column,
    }
    assert log.create_table(name, ORDERS, [column], key_encoding=encoding, existing=True) == table


def test_a_topic_with_schemas_is_declared_without_giving_one(log: Log, name: str) -> None:
    topic(log, name)
    log._registry.register(value_subject(name), ORDERS)
    log._registry.register(key_subject(name), record(("id", "long"), name="k"))
    assert log.create_table(name, existing=True).key == ("id",)
    assert log.create_table(name, key=["id"], existing=True).latest.schema == ORDERS
    with pytest.raises(TableExists, match="its key is"):
        log.create_table(name, key=["sku"], existing=True)


def test_naming_the_column_of_a_primitive_avro_key_keeps_its_id(log: Log, name: str) -> None:
    topic(log, name)
    log._registry.register(value_subject(name), ORDERS)
    theirs = log._registry.register(key_subject(name), "string")
    with pytest.raises(BadKeyColumns, match="which column"):
        log.table(name)
    table = log.create_table(name, key=["sku"], existing=True)
    assert (table.key, table.key_encoding) == (("sku",), "avro")
    assert table.key_schema is not None and table.key_schema.id == theirs.id


def test_a_missing_topic_cannot_be_declared(log: Log, name: str) -> None:
    with pytest.raises(UnknownTable):
        log.create_table(name, ORDERS, existing=True)


# -- the way there ---------------------------------------------------------------------------


def test_a_log_that_is_away_is_said_so_in_time() -> None:
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        connect("127.0.0.1:1", timeout_s=1)


def test_why_no_broker_answers_is_told() -> None:
    """A refused connection, an unknown name, a wrong password: all are the same timeout to the question."""

    def told() -> str:
        with pytest.raises(LogUnavailable) as away:
            connect("127.0.0.1:1", timeout_s=0.5)
        return str(away.value)

    wait_for("Connection refused in the error", lambda: "Connection refused" in told())


def test_of_what_is_heard_while_a_question_waits_the_most_telling_is_kept() -> None:
    heard = Heard()
    heard.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert heard.why == ""
    heard.note(KafkaError(KafkaError._TRANSPORT, "b:1: Connection refused (after 0ms in state CONNECT)"))
    heard.note(KafkaError(KafkaError._TRANSPORT, "b:1: Disconnected"))
    assert heard.why == "b:1: Connection refused"
    heard.note(KafkaError(KafkaError._AUTHENTICATION, "b:2: invalid credentials"))
    heard.note(KafkaError(KafkaError._TRANSPORT, "b:2: Disconnected"))
    assert heard.why == "b:2: invalid credentials"
    heard.forget()
    assert heard.why == ""


def test_what_a_broker_answers_is_not_explained_by_another_one_that_is_away() -> None:
    cluster = Cluster({"bootstrap.servers": "127.0.0.1:1"}, 1)
    cluster._heard.note(KafkaError(KafkaError._AUTHENTICATION, "b:2: invalid credentials"))
    silent = cluster.unavailable(KafkaException(KafkaError(KafkaError._TIMED_OUT, "Timed out")))
    assert "invalid credentials" in str(silent)
    answered = cluster.unavailable(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not for you")))
    assert str(answered).endswith("not for you")


@pytest.mark.parametrize(
    "setting",
    ["sasl.jaas.config=PlainLoginModule required;", "sasl.bogus=1", "security.protocol=BOTH", "ssl.ca.location=/none"],
)
def test_settings_that_the_client_does_not_take_are_refused_by_name(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"security.protocol=SSL\n{setting}\n")
    monkeypatch.setenv("MERGANSER_KAFKA_CONFIG", str(file))
    with pytest.raises(UsageError, match="settings") as refused:
        connect("127.0.0.1:1", timeout_s=1)
    assert "librdkafka" in refused.value.hint


def test_a_client_id_of_ones_own_is_taken_and_time_limits_are_not() -> None:
    asked = Connection("127.0.0.1:1", {"client.id": "shop", "socket.timeout.ms": "1"}).client_config()
    assert asked["client.id"] == "shop" and asked["socket.timeout.ms"] == 10_000
    assert Connection("127.0.0.1:1").client_config()["client.id"] == "merganser"


@pytest.mark.parametrize("timeout_s", [0, -3, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(UsageError, match="seconds above 0"):
        connect("127.0.0.1:1", timeout_s=timeout_s)


def test_a_long_timeout_is_no_error(broker: str) -> None:
    """Kafka's client takes no request of more than an hour."""
    with connect(broker, timeout_s=float("inf")) as log:
        assert log.cluster_id and log.ends([TopicPartition("nowhere", 0)]) == {}


def test_the_environment_names_the_log(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_BOOTSTRAP_SERVERS", broker)
    with connect() as log:
        assert log.bootstrap_servers == broker and log.cluster_id


def test_ends_and_starts_leave_out_what_is_not_there(log: Log, name: str) -> None:
    log.create_table(name, ORDERS, ["id"], partitions=1)
    asked = [TopicPartition(name, 0), TopicPartition(name, 5), TopicPartition("nowhere", 0)]
    assert log.ends(asked) == log.starts(asked) == {TopicPartition(name, 0): 0}


def test_passwords_do_not_show() -> None:
    connection = Connection("a:1", {"sasl.password": "secret"}, "http://u:secret@r")
    assert "secret" not in repr(connection)


def test_security_settings_come_from_a_properties_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# comment\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n\n")
    monkeypatch.setenv("MERGANSER_KAFKA_CONFIG", str(file))
    assert _settings_file() == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    file.write_text("nonsense\n")
    with pytest.raises(UsageError, match="line 1"):
        _settings_file()
    monkeypatch.setenv("MERGANSER_KAFKA_CONFIG", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="absent"):
        connect("127.0.0.1:1", timeout_s=1)
