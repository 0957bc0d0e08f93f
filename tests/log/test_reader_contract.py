"""One contract for every Reader (consumers/log.py): the scripted log's and Kafka's."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer

import merganser as mg
from merganser.consumers.log import Reader
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.fakelog import FakeLog
from support.waiting import wait_for

PARTITIONS = 2
SCHEMA = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}


class Script:
    """Writes the same history to either log: records, then an aborted transaction, then records."""

    def __init__(self, log: Any, topic: str, write: Callable[[int, list[bytes], bool], None]) -> None:
        self.log, self.topic, self.write = log, topic, write

    def partition(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic, number)


def _fake() -> Script:
    log = FakeLog(seed=1)
    schema = SchemaVersion("t-value", 1, 1, SCHEMA)
    log.add(Table("t", "id", PARTITIONS, (schema,)))

    def write(partition: int, values: list[bytes], commit: bool) -> None:
        for value in values:
            log.put("t", partition, None, value) if commit else log.gap("t", partition)
        log.gap("t", partition)  # the control record

    return Script(log, "t", write)


def _kafka(servers: str) -> Script:
    log = mg.connect(servers)
    topic = f"contract-{uuid.uuid4().hex[:8]}"
    log.create_table(
        topic, schema={"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}, partitions=PARTITIONS
    )
    producer = KafkaProducer({"bootstrap.servers": servers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)

    def write(partition: int, values: list[bytes], commit: bool) -> None:
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=partition)
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    return Script(log, topic, write)


@pytest.fixture(params=["fake", "kafka"])
def script(request: pytest.FixtureRequest) -> Iterator[Script]:
    made = _fake() if request.param == "fake" else _kafka(request.getfixturevalue("broker"))
    yield made
    if request.param == "kafka":
        made.log.close()


@dataclass
class Told:
    """What a reader brought: each partition's (offset, value), the last end told of it, the problems."""

    records: dict[int, list[tuple[int, bytes | None]]]
    ends: dict[TopicPartition, int]
    problems: list[TopicPartition]


def read_to(reader: Reader, end: Position) -> Told:
    told = Told({0: [], 1: []}, {}, [])

    def done() -> bool:
        poll = reader.poll(3, 0.2)
        for chunk in poll.chunks.values():
            for partition, offset, value in zip(chunk.partitions, chunk.offsets, chunk.values, strict=True):
                told.records[partition].append((offset, value))
        told.ends.update(poll.ends)
        told.problems += [problem.partition for problem in poll.problems]
        return bool(told.problems) or all(told.ends.get(tp, 0) >= n for tp, n in end.items())

    wait_for(f"the reader at {end}", done, every_s=0)
    return told


def test_a_partition_comes_in_order_each_record_once_and_committed_ones_only(script: Script) -> None:
    script.write(0, [b"a", b"b"], True)
    script.write(1, [b"x"], True)
    script.write(0, [b"lost"] * 3, False)
    script.write(0, [b"c"], True)
    zero, one = script.partition(0), script.partition(1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0, one: 0}))
    of = read_to(reader, script.log.ends([zero, one])).records
    assert [value for _, value in of[0]] == [b"a", b"b", b"c"] and [value for _, value in of[1]] == [b"x"]
    assert [offset for offset, _ in of[0]] == sorted({offset for offset, _ in of[0]})
    reader.close()


def test_a_paused_partition_waits_and_loses_nothing(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    script.write(1, [b"x", b"y"], True)
    zero, one = script.partition(0), script.partition(1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0, one: 0}))
    reader.pause([zero])
    told = read_to(reader, script.log.ends([one]))
    assert [value for _, value in told.records[1]] == [b"x", b"y"] and told.records[0] == []
    reader.pause([one])
    script.write(1, [b"z"], True)
    told = read_to(reader, script.log.ends([zero]))
    assert [value for _, value in told.records[0]] == [b"a", b"b", b"c"] and told.records[1] == []
    reader.pause([])
    assert [value for _, value in read_to(reader, script.log.ends([one])).records[1]] == [b"z"]
    reader.close()


def test_a_tail_without_records_still_ends_where_the_log_does(script: Script) -> None:
    script.write(0, [b"a"], True)
    script.write(0, [b"lost"] * 4, False)
    zero = script.partition(0)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    told = read_to(reader, script.log.ends([zero]))
    assert told.ends[zero] == script.log.ends([zero])[zero] > 2
    reader.close()


def test_reading_begins_where_it_was_assigned_and_stops_where_it_was_dropped(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    script.write(1, [b"x"], True)
    zero, one = script.partition(0), script.partition(1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 2, one: 0}))
    reader.drop([one])
    told = read_to(reader, script.log.ends([zero]))
    assert told.records == {0: [(2, b"c")], 1: []}
    reader.close()


def test_what_is_no_longer_there_is_a_problem_and_not_a_jump(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    zero = script.partition(0)
    if isinstance(script.log, FakeLog):
        script.log.trim("t", 0, 2)
    else:
        _delete_records(script.log.bootstrap_servers, script.topic, 2)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    told = read_to(reader, Position({zero: 10**9}))
    assert told.records == {0: [], 1: []} and told.problems == [zero]
    reader.close()


def _delete_records(servers: str, topic: str, before: int) -> None:
    from confluent_kafka import TopicPartition as KafkaPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.delete_records([KafkaPartition(topic, 0, before)]).values():
        future.result(30)


def test_a_poll_takes_what_is_there_without_waiting_for_more(script: Script) -> None:
    script.write(0, [b"%d" % n for n in range(1500)], True)
    zero = script.partition(0)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    sizes: list[int] = []

    def done() -> bool:
        sizes.append(sum(map(len, reader.poll(1000, 0.2).chunks.values())))
        return sum(sizes) == 1500

    wait_for("all records", done, every_s=0.1)
    assert max(sizes) > 500
    reader.close()
