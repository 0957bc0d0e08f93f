"""Strong reads of a log of three brokers, while brokers die and freeze: late or refused, but never stale (FAILURES 3).

A frozen leader is deposed, and wakes as one that does not know it yet.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import merganser as mg
from merganser.pipeline.broker import LocalBroker
from merganser.schemas.errors import DeliveryFailed, LogUnavailable, NotFreshEnough
from support.waiting import wait_for

SCHEMA = {"type": "record", "name": "tick", "fields": [{"name": "id", "type": "int"}, {"name": "n", "type": "long"}]}
TABLE = "ticks"
IDS = 6


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LocalBroker]:
    local = LocalBroker(tmp_path / "home")
    try:
        local.start(brokers=3, wait_s=120)
        yield local
    finally:
        local.stop()


class Writer(threading.Thread):
    """Puts ever larger numbers; ``acknowledged`` are those that Kafka has confirmed, by id."""

    def __init__(self, servers: str) -> None:
        super().__init__(daemon=True)
        self.servers, self.stopping = servers, threading.Event()
        self.acknowledged = dict.fromkeys(range(IDS), -1)
        self.count = 0

    def run(self) -> None:
        with mg.connect(self.servers) as log, log.producer() as producer:
            while not self.stopping.is_set():
                self.count += 1
                row = {"id": self.count % IDS, "n": self.count}
                try:
                    producer.put(TABLE, row)
                    producer.flush(60)
                except (DeliveryFailed, LogUnavailable):
                    continue
                self.acknowledged[row["id"]] = row["n"]


class Reader(threading.Thread):
    """Reads at ``strong``; ``stale`` are the reads that lacked what was acknowledged before they began."""

    def __init__(self, replica: mg.Replica, writer: Writer) -> None:
        super().__init__(daemon=True)
        self.replica, self.writer, self.stopping = replica, writer, threading.Event()
        self.reads = self.refused = 0
        self.stale: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            before = dict(self.writer.acknowledged)
            try:
                found = dict(self.replica.query(f"SELECT id, n FROM {TABLE}", level="strong", timeout=20).rows())
            except (NotFreshEnough, LogUnavailable):
                self.refused += 1
                continue
            self.reads += 1
            self.stale += [f"{id_}: {found.get(id_)} < {n}" for id_, n in before.items() if found.get(id_, -1) < n]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_strong_read_is_stale_while_brokers_die_and_freeze(three: LocalBroker, tmp_path: Path) -> None:
    servers, pids = three.status().bootstrap_servers, three.status().pids
    with mg.connect(servers) as log:
        log.create_table(TABLE, schema=SCHEMA, key=["id"], partitions=6, config={"min.insync.replicas": "2"})
        with mg.Replica(tmp_path / "r.duckdb", log, group="r", tables=[TABLE]) as replica:
            writer = Writer(servers)
            reader = Reader(replica, writer)

            def go_on(what: str) -> None:
                written, read = writer.count, reader.reads
                wait_for(what, lambda: writer.count > written + 50 and reader.reads > read + 20, 120)

            writer.start()
            reader.start()
            try:
                go_on("reads and writes with three brokers")
                os.kill(pids[0], signal.SIGKILL)
                go_on("reads and writes with one dead")
                three.start(wait_s=120)
                go_on("reads and writes with three again")
                os.kill(pids[1], signal.SIGSTOP)
                try:
                    go_on("reads and writes with one frozen")
                finally:
                    os.kill(pids[1], signal.SIGCONT)
                go_on("reads and writes after it woke")
            finally:
                for thread in (reader, writer):
                    thread.stopping.set()
                for thread in (reader, writer):
                    thread.join(120)
            assert replica.error is None
            assert not reader.stale
