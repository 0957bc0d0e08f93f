"""What producers write to in tests, and a look at it by clients that know nothing of us."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from merganser.pipeline.log import Log
from merganser.schemas import headers
from merganser.schemas.headers import Marks
from merganser.schemas.table import Table

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "orders",
    "fields": [{"name": "order_id", "type": "long"}, {"name": "sku", "type": "string"}],
}

ROW = {"order_id": 1, "sku": "a"}


def read(log: Log, table: Table, isolation: str = "read_committed") -> list[Message]:
    """Every record of the table."""
    consumer = Consumer(
        {
            "bootstrap.servers": log.bootstrap_servers,
            "group.id": "plain",
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    consumer.assign([TopicPartition(table.name, n, 0) for n in range(table.partitions)])
    records, ended = [], 0
    while ended < table.partitions:
        message = consumer.poll(20)
        assert message is not None, "the end was not reached"
        error = message.error()
        if error is None:
            records.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended += 1
    consumer.close()
    return records


def decode(schema: Any, framed: bytes | None) -> Any:
    assert framed is not None and framed[0] == 0
    return fastavro.schemaless_reader(io.BytesIO(framed[5:]), schema, None)


def ids(log: Log, table: Table) -> list[int]:
    """The order ids that a committed reader sees."""
    return sorted(decode(SCHEMA, m.value())["order_id"] for m in read(log, table))


def marks(message: Message) -> Marks:
    found = headers.decode(message.headers() or [])
    return found or Marks()
