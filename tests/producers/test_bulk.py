"""Records that are written again: what a topic had, another one takes."""

from __future__ import annotations

import random
import uuid

import pytest
from producer_tables import read

import merganser as mg
from merganser.pipeline.log import Log
from merganser.producers.bulk import WholeRecord
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import InvalidRow, RolledBack

BLOB = {
    "type": "record",
    "name": "blob",
    "fields": [{"name": "id", "type": "long"}, {"name": "data", "type": "bytes"}],
}
ORIGIN = [("merganser-origin", b"x" * 500)]


def test_the_largest_row_of_a_producer_is_written_again_with_its_origin(log: Log) -> None:
    table = log.create_table(f"large-{uuid.uuid4().hex[:8]}", BLOB, ["id"], partitions=1)
    row = {"id": 1, "data": b"\0" * 999_900}
    with log.producer() as producer:
        producer.put(table.name, row)
        with pytest.raises(InvalidRow, match="larger than a Kafka message"):
            producer.put(table.name, row, op="x" * 150)
    _again(log, table.name, row)
    assert [len(message.headers() or []) for message in read(log, table)] == [0, 1]


def test_it_is_for_the_topic_to_judge_what_is_written_again(log: Log) -> None:
    """A client of another's, with a larger limit, wrote it."""
    row = {"id": 1, "data": b"\0" * 2_000_000}
    settings = {"max.message.bytes": "3000000"}
    table = log.create_table(f"large-{uuid.uuid4().hex[:8]}", BLOB, ["id"], partitions=1, config=settings)
    _again(log, table.name, row)
    assert [message.value() for message in read(log, table)] == [RowEncoder(table).value(row)]
    row["data"] = random.Random(1).randbytes(4_000_000)  # which no compression makes smaller
    with pytest.raises(RolledBack, match="too large"):
        _again(log, table.name, row)


def test_records_together_are_no_larger_than_a_client_was_told(log: Log) -> None:
    """Or a topic that takes each of them refuses them all."""
    settings = {"max.message.bytes": "21000"}
    table = log.create_table(f"small-{uuid.uuid4().hex[:8]}", BLOB, ["id"], partitions=1, config=settings)
    rows = [{"id": i, "data": random.Random(i).randbytes(500)} for i in range(200)]
    with mg.connect(log.bootstrap_servers, security={"message.max.bytes": 20_000}) as told:
        _again(told, table.name, *rows)
    assert len(read(log, table)) == len(rows)


def _again(log: Log, name: str, *rows: dict[str, object]) -> None:
    encoder = RowEncoder(log.table(name))
    writer = log.bulk_writer(f"again-{name}")
    try:
        writer.open()
        writer.write_whole([WholeRecord(name, 0, encoder.key(row), encoder.value(row), ORIGIN) for row in rows])
    finally:
        writer.close()
