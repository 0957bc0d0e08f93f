"""The broker, the topics and the rows that every measurement uses."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass

import pyarrow as pa
import pyruhvro
from confluent_kafka import Producer as KafkaProducer

import merganser as mg
from merganser.schemas.encode import prefix
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import Table

PARTITIONS = 4

SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "qty", "type": "long"},
        {"name": "price", "type": "double"},
        {"name": "note", "type": ["null", "string"]},
    ],
}
KEY_SCHEMA = {"type": "record", "name": "order_key", "fields": [{"name": "order_id", "type": "long"}]}


@dataclass(frozen=True)
class Topics:
    """One append table and one keyed table with the same rows."""

    append: str
    upsert: str
    rows: int

    @property
    def names(self) -> dict[str, str]:
        return {"append": self.append, "upsert": self.upsert}


def partitions(table: str) -> list[TopicPartition]:
    return [TopicPartition(table, p) for p in range(PARTITIONS)]


def beginning(table: str) -> Position:
    return Position(dict.fromkeys(partitions(table), 0))


def fill(log: mg.Log, rows: int) -> Topics:
    """Two tables of *rows* rows of about 60 bytes; keys drawn from as many, so a third is rewritten."""
    stamp = int(time.time())
    topics = Topics(f"bench-append-{stamp}", f"bench-upsert-{stamp}", rows)
    append = log.create_table(topics.append, schema=SCHEMA, partitions=PARTITIONS)
    upsert = log.create_table(topics.upsert, schema=SCHEMA, key=["order_id"], partitions=PARTITIONS)
    rng = random.Random(1)
    step = 100_000
    for first in range(0, rows, step):
        numbers = range(first, min(first + step, rows))
        batch = _rows(rng, numbers, rows)
        _send(log, append, batch)
        _send(log, upsert, batch)
    return topics


def _rows(rng: random.Random, numbers: range, rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "order_id": [rng.randrange(rows) for _ in numbers],
            "sku": [f"sku-{n % 1000}" for n in numbers],
            "qty": [n % 100 for n in numbers],
            "price": [n * 0.5 for n in numbers],
            "note": [f"some note {n}" for n in numbers],
        }
    )


def _send(log: mg.Log, table: Table, batch: pa.RecordBatch) -> None:
    """By librdkafka's batch call and pyruhvro's encoder: our own producer is measured elsewhere."""
    values = _encoded(batch, SCHEMA, table.latest.id)
    messages = [{"value": value} for value in values]
    if table.key_schema is not None:
        keys = _encoded(batch.select(["order_id"]), KEY_SCHEMA, table.key_schema.id)
        messages = [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]
    settings = {"partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 20}
    settings |= {"queue.buffering.max.messages": 200_000, "sticky.partitioning.linger.ms": 0}
    producer = KafkaProducer({"bootstrap.servers": log.bootstrap_servers, **settings})
    producer.produce_batch(table.name, messages)
    if producer.flush(60):
        raise SystemExit(f"{table.name}: not all rows were acknowledged")


def _encoded(batch: pa.RecordBatch, schema: object, schema_id: int) -> list[bytes]:
    head = prefix(schema_id)
    chunks = pyruhvro.serialize_record_batch(batch, json.dumps(schema), 1)
    return [head + value for chunk in chunks for value in chunk.to_pylist()]
