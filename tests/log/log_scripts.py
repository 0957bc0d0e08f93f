"""The same history, written to each kind of log: records, aborted transactions, records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import Producer as KafkaProducer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

import merganser as mg
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.fakelog import FakeLog

PARTITIONS = 2
SCHEMA = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}


class Script(Protocol):
    """A log, and the hand that writes it."""

    log: Any
    topic: str

    def write(self, partition: int, values: list[bytes], commit: bool) -> None:
        """One transaction."""
        ...

    def trim(self, partition: int, before: int) -> None:
        """Let go of what is below offset *before*."""
        ...


def at(script: Script, partition: int) -> TopicPartition:
    return TopicPartition(script.topic, partition)


class FakeScript:
    def __init__(self) -> None:
        self.log, self.topic = FakeLog(seed=1), "t"
        self.log.add(Table("t", "id", PARTITIONS, (SchemaVersion("t-value", 1, 1, SCHEMA),)))

    def write(self, partition: int, values: list[bytes], commit: bool) -> None:
        for value in values:
            self.log.put("t", partition, None, value) if commit else self.log.gap("t", partition)
        self.log.gap("t", partition)  # the control record

    def trim(self, partition: int, before: int) -> None:
        self.log.trim("t", partition, before)


class KafkaScript:
    def __init__(self, servers: str) -> None:
        self.log, self.topic = mg.connect(servers), f"contract-{uuid.uuid4().hex[:8]}"
        self.log.create_table(self.topic, schema=SCHEMA, partitions=PARTITIONS)
        settings = {"bootstrap.servers": servers, "transactional.id": self.topic, "log_level": 0}
        self._producer = KafkaProducer(settings)
        self._producer.init_transactions(30)
        self._admin = AdminClient({"bootstrap.servers": servers})

    def write(self, partition: int, values: list[bytes], commit: bool) -> None:
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(self.topic, value, partition=partition)
        self._producer.flush(30)
        self._producer.commit_transaction(30) if commit else self._producer.abort_transaction(30)

    def trim(self, partition: int, before: int) -> None:
        for future in self._admin.delete_records([KafkaPartition(self.topic, partition, before)]).values():
            future.result(30)


def copy(log: Any, archive: Archive, topic: str) -> None:
    """Archive all that *log* has of *topic* now."""
    ends = log.ends([TopicPartition(topic, p) for p in range(PARTITIONS)])
    with Archiver(log, archive, [topic], until=ends) as archiver:
        archiver.wait(ends, 30)


class ArchiveScript:
    """Written to a scripted log, and archived at once. What is trimmed was gone before."""

    def __init__(self, folder: Path) -> None:
        self._source, self.topic = FakeScript(), "t"
        self._archive = Archive(folder)
        copy(self._source.log, self._archive, "t")
        self.log: Any = self._archive.log()

    def write(self, partition: int, values: list[bytes], commit: bool) -> None:
        self._source.write(partition, values, commit)
        copy(self._source.log, self._archive, "t")

    def trim(self, partition: int, before: int) -> None:
        self._archive = Archive(self._archive.url + "-trimmed")
        self._source.trim(partition, before)
        copy(self._source.log, self._archive, "t")
        self.log = self._archive.log()


class BridgedScript:
    """Kafka over an archive of it. Of partition 0, all that is archived is gone from Kafka at once, but for the
    last offset of each write, so that reading begins below and goes up."""

    def __init__(self, servers: str, folder: Path) -> None:
        self._kafka = KafkaScript(servers)
        self.topic = self._kafka.topic
        self._archive = Archive(folder)
        copy(self._kafka.log, self._archive, self.topic)
        self.log: Any = self._archive.under(self._kafka.log)

    def write(self, partition: int, values: list[bytes], commit: bool) -> None:
        self._kafka.write(partition, values, commit)
        copy(self._kafka.log, self._archive, self.topic)
        if partition == 0:
            end = self._kafka.log.ends([at(self, 0)])[at(self, 0)]
            self._kafka.trim(0, end - 1)

    def trim(self, partition: int, before: int) -> None:
        """Gone from both: the archive began when Kafka had lost them."""
        fresh = Archive(self._archive.url + "-trimmed")
        self._kafka.trim(partition, before)
        copy(self._kafka.log, fresh, self.topic)
        self.log = fresh.under(self._kafka.log)


@contextmanager
def script(kind: str, servers: Any, folder: Path) -> Iterator[Script]:
    """*servers* is asked for a broker only by who needs one."""
    if kind == "fake":
        yield FakeScript()
    elif kind == "archive":
        yield ArchiveScript(folder / "archive")
    elif kind == "bridged":
        made = BridgedScript(servers(), folder / "archive")
        yield made
        made.log.live.close()
    else:
        kafka = KafkaScript(servers())
        yield kafka
        kafka.log.close()
