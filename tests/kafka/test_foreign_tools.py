"""Tools that know nothing of us read what we write, and we read what they write."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import DeserializingConsumer, Producer, SerializingProducer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import IntegerSerializer, StringSerializer
from kafka_tables import ROW, fill, framed, ids

import merganser as mg
from merganser.pipeline.broker.java import kafka_tool
from merganser.schemas.registry_records import canonical
from support.apicurio import Apicurio
from support.waiting import wait_for

ROWS = 25


def make_topic(admin: AdminClient, name: str, partitions: int = 2) -> None:
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result(20)
    wait_for("the broker has heard of the topic", lambda: name in admin.list_topics(timeout=20).topics)


# -- they read ---------------------------------------------------------------------------------


def test_kafkas_own_console_consumer_reads_our_rows(log: mg.Log, broker: str, name: str) -> None:
    log.create_table(name, ROW, ["id"], partitions=2)
    fill(log, name, range(ROWS), "quack")
    done = kafka_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", broker, "--topic", name, "--from-beginning"),
        *("--max-messages", str(ROWS), "--timeout-ms", "60000"),
    )
    assert done.returncode == 0, done.stderr
    assert all(f"quack{id_}" in done.stdout for id_ in range(ROWS))
    assert f"Processed a total of {ROWS} messages" in done.stderr


def kcat(*args: str, needs: str = "") -> list[str]:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed (apt-get install kcat)")
    if needs not in subprocess.run(["kcat", "-V"], capture_output=True, text=True, timeout=10).stdout:
        pytest.skip(f"this kcat is built without {needs}, as Debian's is")
    done = subprocess.run(["kcat", "-q", *args], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_kcat_reads_our_records(log: mg.Log, broker: str, name: str) -> None:
    table = log.create_table(name, ROW, ["id"], partitions=1)
    fill(log, name, range(ROWS))
    with log.producer() as producer:
        producer.delete(name, {"id": 3})
    lines = kcat("-C", "-b", broker, "-t", name, "-o", "beginning", "-e", "-f", "%o %K %S\n")
    assert table.key_schema is not None
    key_bytes = len(framed(table.key_schema.id, table.key_schema.schema, {"id": 3}))
    assert [int(line.split()[0]) for line in lines] == list(range(ROWS + 1))
    assert lines[-1] == f"{ROWS} {key_bytes} -1"  # a null value: the delete


@pytest.mark.slow
def test_kcat_decodes_our_rows_by_the_registry(broker: str, apicurio: Apicurio, name: str) -> None:
    with mg.connect(broker, registry=apicurio.url) as log:
        log.create_table(name, ROW, ["id"], partitions=1)
        fill(log, name, range(ROWS), "quack")
    lines = kcat(
        *("-C", "-b", broker, "-t", name, "-o", "beginning", "-e"),
        *("-s", "avro", "-r", apicurio.url),
        "-f",
        "%k %s\n",
        needs="Avro",
    )
    assert lines == [f'{{"id": {id_}}} {{"id": {id_}, "text": "quack{id_}"}}' for id_ in range(ROWS)]


@pytest.mark.slow
def test_confluents_deserializer_reads_our_rows(broker: str, apicurio: Apicurio, name: str) -> None:
    with mg.connect(broker, registry=apicurio.url) as log:
        log.create_table(name, ROW, ["id"], partitions=1)
        fill(log, name, range(ROWS))
    client = SchemaRegistryClient({"url": apicurio.url})
    consumer = DeserializingConsumer(
        {
            "bootstrap.servers": broker,
            "group.id": name,
            "auto.offset.reset": "earliest",
            "key.deserializer": AvroDeserializer(client),
            "value.deserializer": AvroDeserializer(client),
        }
    )
    consumer.subscribe([name])
    found = []
    while len(found) < ROWS:
        message = consumer.poll(30)
        assert message is not None and message.error() is None
        found.append((message.key(), message.value()))
    consumer.close()
    assert found == [({"id": id_}, {"id": id_, "text": f"a{id_}"}) for id_ in range(ROWS)]


# -- they write --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("key", ["avro", "string"])
def test_a_plain_avro_producers_topic_becomes_a_table(
    broker: str, apicurio: Apicurio, admin: AdminClient, name: str, tmp_path: Path, key: str
) -> None:
    make_topic(admin, name)
    client = SchemaRegistryClient({"url": apicurio.url})
    key_schema = {"type": "record", "name": "key", "fields": [{"name": "id", "type": "long"}]}
    keys: Any = AvroSerializer(client, canonical(key_schema)) if key == "avro" else StringSerializer()
    producer = SerializingProducer(
        {
            "bootstrap.servers": broker,
            "key.serializer": keys,
            "value.serializer": AvroSerializer(client, canonical(ROW)),
        }
    )
    for id_ in [*range(ROWS), *range(ROWS)]:
        which: Any = {"id": id_} if key == "avro" else f"text{id_}"
        producer.produce(name, which, {"id": id_, "text": f"text{id_}"})
    producer.produce(name, {"id": 3} if key == "avro" else "text3", None)
    assert producer.flush(30) == 0
    with mg.connect(broker, registry=apicurio.url) as log:
        if key == "avro":
            table = log.create_table(name, key=["id"], existing=True)
        else:
            table = log.create_table(name, key=["text"], key_encoding="string", existing=True)
        assert table.keyed
        with mg.Replica(tmp_path / "r", log, name, [name]) as replica:
            assert ids(replica, name) == [id_ for id_ in range(ROWS) if id_ != 3]


def long_bytes(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


@pytest.mark.parametrize(
    ("encoding", "column", "serialize"),
    [
        ("string", "text", lambda id_: StringSerializer()(f"key {id_}")),
        ("int", "id", lambda id_: IntegerSerializer()(id_)),
        ("long", "id", long_bytes),
    ],
    ids=["string", "int", "long"],
)
@pytest.mark.parametrize("carried", [True, False], ids=["key-in-value", "key-apart"])
def test_a_topic_with_plain_keys_is_a_keyed_table(
    log: mg.Log, broker: str, admin: AdminClient, name: str, tmp_path: Path, encoding: Any, column: str, serialize: Any,
    carried: bool,
) -> None:  # fmt: skip
    make_topic(admin, name)
    types = {"id": "int" if encoding == "int" else "long", "text": "string", "n": "long"}
    fields = [{"name": f, "type": t} for f, t in types.items() if carried or f != column]
    schema = {"type": "record", "name": "row", "fields": fields}
    table = log.create_table(name, schema, key=[column], key_encoding=encoding, existing=True)
    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2_random"})
    for turn in range(2):
        for id_ in range(-2, 10):
            row = {"id": id_, "text": f"key {id_}", "n": turn}
            producer.produce(name, framed(table.latest.id, schema, row), serialize(id_))
    producer.produce(name, None, serialize(4))
    assert producer.flush(30) == 0
    with log.producer() as ours:  # and we write them alike: the same key, the same partition
        ours.put(name, {"id": 5, "text": "key 5", "n": 2})
        ours.delete(name, {column: 6 if column == "id" else "key 6"})
    with mg.Replica(tmp_path / "r", log, name, [name]) as replica:
        found = dict(replica.query(f'SELECT "{column}", n FROM "{name}"', level="strong").rows())
    live = {id_: 2 if id_ == 5 else 1 for id_ in range(-2, 10) if id_ not in (4, 6)}
    assert found == {(id_ if column == "id" else f"key {id_}"): n for id_, n in live.items()}
