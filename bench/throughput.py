"""Rows/s from offset 0 to the end of a topic, for each stage of the way and for the loop people write first.

Run as a process of its own for each figure, so that memory is that figure's: prints one JSON line.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import fastavro
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

import merganser as mg
from merganser.consumers.decode import TableDecoder
from merganser.consumers.kafka import reader_config
from merganser.consumers.log import Poll
from merganser.schemas.kafka import Connection

from .world import PARTITIONS, SCHEMA, beginning, partitions

POLL = 5_000

#: The naive loop is timed on so many rows, or it would take an hour.
NAIVE_ROWS = 3_000


def polls(log: mg.Log, table: str) -> Iterator[Poll]:
    """All of a topic, through the same reader, with the same settings, that a replica has."""
    reader = log.reader(f"bench-{time.monotonic_ns()}")
    reader.assign(beginning(table))
    ended: set[object] = set()
    while len(ended) < PARTITIONS:
        poll = reader.poll(POLL, 1.0)
        ended |= {end.partition for end in poll.ends}
        yield poll
    reader.close()


def raw(log: mg.Log, table: str, rows: int) -> int:
    """Consumer.consume() in a loop, and nothing else: the floor under everything in Python."""
    settings = reader_config(Connection(log.bootstrap_servers).client_config(), "bench-raw")
    consumer = Consumer({**settings, "enable.partition.eof": False})
    consumer.assign([KafkaPartition(*tp, 0) for tp in partitions(table)])
    count, end = 0, sum(log.ends(partitions(table)).values())
    while count < end:
        count += len(consumer.consume(POLL, 0.02))
    consumer.close()
    return count


def decode(log: mg.Log, table: str, rows: int) -> int:
    """To Arrow columns, nothing kept."""
    declared = log.table(table)
    decoder = TableDecoder(declared, declared.latest.version, log.versions)
    count = 0
    for poll in polls(log, table):
        for chunk in poll.chunks.values():
            count += sum(piece.rows.num_rows for piece in decoder.decode(chunk, 0).puts)
    return count


def replica(log: mg.Log, table: str, rows: int) -> int:
    """A replica with every guarantee on, from an empty store until a strong read is answered."""
    with tempfile.TemporaryDirectory() as folder:
        with mg.Replica(Path(folder) / "bench.duckdb", log, group="bench", tables=[table]) as opened:
            opened.wait(log.ends(partitions(table)), timeout=3600)
            return sum(log.ends(partitions(table)).values())


def naive(log: mg.Log, table: str, rows: int) -> int:
    """poll, fastavro, INSERT OR REPLACE on a primary key, commit the offsets to Kafka now and then."""
    settings = {
        "group.id": f"naive-{time.monotonic_ns()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer({"bootstrap.servers": log.bootstrap_servers, **settings})
    consumer.subscribe([table])
    schema = fastavro.parse_schema(SCHEMA)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/naive.duckdb") as con:
        con.execute("CREATE TABLE t (order_id BIGINT PRIMARY KEY, sku VARCHAR, qty BIGINT, price DOUBLE, note VARCHAR)")
        count = 0
        while count < min(rows, NAIVE_ROWS):
            message = consumer.poll(1.0)
            if message is None or message.error():
                continue
            body = io.BytesIO((message.value() or b"")[5:])
            row: Any = fastavro.schemaless_reader(body, schema)
            con.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?, ?, ?)", list(row.values())).fetchall()
            count += 1
            if count % 500 == 0:
                consumer.commit(asynchronous=False)
        consumer.close()
    return count


FIGURES: dict[str, Callable[[mg.Log, str, int], int]] = {
    "raw": raw,
    "decode": decode,
    "append": replica,
    "upsert": replica,
    "naive": naive,
}


def peak_mib() -> float:
    """The most memory that this process ever had. getrusage() would count that of the one before exec too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kib) / 1024


def main() -> None:
    figure, servers, table, rows = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with mg.connect(servers) as log:
        log.table(table)  # connections and code are warm before the clock runs
        started, cpu = time.monotonic(), time.process_time()
        count = FIGURES[figure](log, table, rows)
        seconds = time.monotonic() - started
        peak = peak_mib()
        cpu_s = time.process_time() - cpu
    print(json.dumps({"rows": count, "seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak}))


if __name__ == "__main__":
    main()
