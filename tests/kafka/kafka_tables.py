"""Small tables for tests on the real broker, and the ways in which a test looks at them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka import Producer as RawProducer

import merganser as mg
from merganser.consumers.audit import Account, audit_log, audit_store
from merganser.consumers.digest import Digest
from merganser.consumers.storefile import StoreFile

ROW: dict[str, Any] = {
    "type": "record",
    "name": "row",
    "fields": [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}],
}


def fill(log: mg.Log, table: str, ids: Sequence[int] | range, text: str = "a") -> mg.Position:
    """Put a row for each id; the token."""
    with log.producer() as producer:
        for id_ in ids:
            producer.put(table, {"id": id_, "text": f"{text}{id_}"})
        return producer.flush()


def ids(replica: mg.Replica, table: str, level: Any = "strong", timeout: float = 30) -> list[int]:
    return [
        row[0] for row in replica.query(f'SELECT id FROM "{table}" ORDER BY id', level=level, timeout=timeout).rows()
    ]


def framed(schema_id: int, schema: Any, row: Any) -> bytes:
    """A Confluent value, by fastavro alone."""
    out = io.BytesIO()
    out.write(b"\x00" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


@contextmanager
def raw_producer(broker: str, **settings: Any) -> Iterator[RawProducer]:
    producer = RawProducer({"bootstrap.servers": broker, **settings})
    yield producer
    assert producer.flush(30) == 0


def raw_records(broker: str, topic: str, partitions: int = 1) -> list[Message]:
    """Every committed record of *topic*."""
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "raw", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found, ended = [], 0
    while ended < partitions:
        for message in consumer.consume(10_000, 0.2):
            ended += message.error() is not None
            found += [] if message.error() is not None else [message]
    consumer.close()
    return found


def accounts(path: Path, log: mg.Log) -> dict[str, Account]:
    """The accounts of a store at rest, checked against the log; each must hold."""
    with StoreFile(path) as store, store.reading() as cursor:
        found = audit_log(audit_store(cursor), log)
    for account in found:
        assert not account.wrong, account.wrong
    return {account.table: account for account in found}


def digests(path: Path) -> Mapping[str, tuple[Digest | None, Digest | None]]:
    with StoreFile(path) as store, store.reading() as cursor:
        return {a.table: (a.digest, a.quarantine_digest) for a in audit_store(cursor)}
