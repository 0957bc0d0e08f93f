"""FAILURES 2 and 4: offsets without a record, and acknowledged writes behind an open transaction."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from confluent_kafka import IsolationLevel
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka_tables import ROW, accounts, digests, fill, framed, ids, raw_producer, raw_records
from test_lost_logs import CLEANED_AT_ONCE

import merganser as mg
from merganser.consumers.collect import Collector
from merganser.schemas import errors
from support.naive import both_ways, caught
from support.waiting import wait_for


def row(log: mg.Log, table: str, id_: int) -> bytes:
    latest = log.table(table).latest
    return framed(latest.id, latest.schema, {"id": id_, "text": "by another"})


@both_ways
def test_a_tail_of_aborted_records_is_read_past(
    log: mg.Log, broker: str, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # wait for a record at the last offset
        monkeypatch.setattr(Collector, "_reach", lambda self, end: [])
    log.create_table(name, ROW, partitions=2)
    fill(log, name, range(10))
    with raw_producer(broker, **{"transactional.id": name}) as producer:
        producer.init_transactions(20)
        producer.begin_transaction()
        for partition in (0, 1):
            for id_ in range(50, 55):
                producer.produce(name, row(log, name, id_), partition=partition)
        producer.flush(20)
        producer.abort_transaction(20)
    with mg.Replica(tmp_path / "r", log, name, [name]) as replica, caught(naive):
        assert ids(replica, name, timeout=3 if naive else 30) == list(range(10))
        assert sum(replica.position.values()) == 10 + 2 * (5 + 1)
    if not naive:
        assert accounts(tmp_path / "r", log)[name].gaps == 2 * (5 + 1)


def test_what_compaction_took_is_a_gap(
    log: mg.Log, broker: str, quick_cleaner: None, name: str, tmp_path: Path
) -> None:
    settings = {**CLEANED_AT_ONCE, "delete.retention.ms": "86400000"}
    log.create_table(name, ROW, ["id"], partitions=1, compact=True, config=settings)
    fill(log, name, [*range(20), *range(20)], "old")
    with mg.Replica(tmp_path / "before", log, name, [name]) as replica:
        assert ids(replica, name) == list(range(20))
    with log.producer() as producer:
        producer.delete(name, {"id": 7})

    def compacted() -> bool:
        fill(log, name, [19], "new")
        return len(raw_records(broker, name)) < 25

    wait_for("the cleaner has been here", compacted, every_s=0.3)
    for store in ("before", "after"):
        with mg.Replica(tmp_path / store, log, name, [name]) as replica:
            assert ids(replica, name) == [*range(7), *range(8, 20)]
    assert digests(tmp_path / "before")[name] == digests(tmp_path / "after")[name]
    assert accounts(tmp_path / "after", log)[name].gaps > 10


@both_ways
def test_a_strong_read_does_not_stop_at_an_open_transaction(
    log: mg.Log, broker: str, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write after the open transaction is acknowledged: not to show it is an error, never an answer."""
    if naive:
        monkeypatch.setattr(mg.Log, "ends", _stable_ends)
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(3))
    with mg.Replica(tmp_path / "r", log, name, [name]) as replica:
        assert ids(replica, name) == [0, 1, 2]
        with raw_producer(broker, **{"transactional.id": name}) as producer:
            producer.init_transactions(20)
            producer.begin_transaction()
            producer.produce(name, row(log, name, 50))
            producer.flush(20)
            fill(log, name, [3])
            with caught(naive), pytest.raises(errors.NotFreshEnough, match=f"2 offsets behind, {name}/0 by 2"):
                ids(replica, name, timeout=1)
            producer.commit_transaction(20)
        if not naive:
            assert ids(replica, name) == [0, 1, 2, 3, 50]


def _stable_ends(
    self: mg.Log, partitions: Collection[mg.TopicPartition], timeout_s: float | None = None
) -> mg.Position:
    """Naive: what librdkafka calls the watermark of a committed reader."""
    admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
    asked = admin.list_offsets(
        {KafkaPartition(*tp): OffsetSpec.latest() for tp in partitions}, isolation_level=IsolationLevel.READ_COMMITTED
    )
    return mg.Position({mg.TopicPartition(tp.topic, tp.partition): f.result(20).offset for tp, f in asked.items()})
