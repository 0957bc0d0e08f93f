"""A process of its own that appends rows at a steady rate, until its stdin ends. Then it says how many, in which time.

``python -m clients.writer SERVERS TABLE RATE``. Plain records, no transaction: so a table has as many rows as its
partitions have offsets, and whoever reads both sees whether they are of one state.
"""

from __future__ import annotations

import json
import select
import sys
import time

import pyarrow as pa
from confluent_kafka import Producer as KafkaProducer

import merganser as mg
from merganser.schemas.avro import row_type
from merganser.schemas.columnwriter import ColumnWriter
from merganser.schemas.table import Table

SCHEMA = {
    "type": "record",
    "name": "tick",
    "fields": [
        {"name": "n", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "price", "type": "double"},
    ],
}

#: A row is wrong unless this holds.
HOLDS = "price = n * 0.5 AND sku = 'sku-' || (n % 1000)"

#: A turn of the writer.
_TURN_S = 0.05


def values(writer: ColumnWriter, first: int, count: int) -> list[bytes]:
    numbers = range(first, first + count)
    columns = {"n": numbers, "sku": [f"sku-{n % 1000}" for n in numbers], "price": [n * 0.5 for n in numbers]}
    written = writer.values(pa.record_batch(columns))
    assert written is not None
    return written


def write(servers: str, table: Table, rate: int) -> tuple[int, float]:
    """Rows that were acknowledged, and seconds."""
    settings = {"partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 10, "acks": "all"}
    client = KafkaProducer({"bootstrap.servers": servers, "queue.buffering.max.messages": 500_000, **settings})
    writer = ColumnWriter(row_type(table.name, table.latest.schema), table.latest.id)
    began, sent = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], _TURN_S)[0]:
        # What could not be written in time is not made up for: a burst would be another load.
        due = min(int((time.monotonic() - began) * rate), sent + int(4 * _TURN_S * rate))
        messages = [{"value": value} for value in values(writer, sent, due - sent)]
        sent += client.produce_batch(table.name, messages) if messages else 0
        client.poll(0)
    assert client.flush(60) == 0
    return sent, time.monotonic() - began


def main() -> None:
    servers, name, rate = sys.argv[1:]
    with mg.connect(servers) as log:
        rows, seconds = write(servers, log.create_table(name, SCHEMA, partitions=4), int(rate))
    print(json.dumps({"rows": rows, "seconds": seconds}))


if __name__ == "__main__":
    main()
