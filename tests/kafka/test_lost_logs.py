"""FAILURES 10, 15-19, 23, 34, 35: the log is not what the store thinks it is, and says so by name."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from kafka_tables import ROW, accounts, fill, ids, raw_records

import merganser as mg
from merganser.consumers import follow, kafka
from merganser.consumers.apply import BatchLimits
from merganser.consumers.follow import Follow, Start
from merganser.schemas import errors
from support.naive import both_ways, caught
from support.waiting import wait_for


def trust_the_store(patch: pytest.MonkeyPatch) -> None:
    """Naive: seek to the stored offset and hope."""
    patch.setattr(follow, "next_start", lambda table, tp, stored, *_: stored.next_offset)


def never_look(patch: pytest.MonkeyPatch) -> None:
    """Naive: a topic is its name."""
    trust_the_store(patch)
    patch.setattr(Follow, "changed", lambda self, tables: [])


def delete_records(admin: AdminClient, topic: str, before: int) -> None:
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(20)


def recreate(log: mg.Log, admin: AdminClient, topic: str, rows: int) -> mg.Position:
    """Another topic of that name, with *rows* other rows."""
    drop(log, admin, topic)
    log.create_table(topic, ROW, partitions=1)
    return fill(log, topic, range(1000, 1000 + rows), "other")


def drop(log: mg.Log, admin: AdminClient, topic: str) -> None:
    for future in admin.delete_topics([topic]).values():
        future.result(20)
    wait_for("the topic is gone", lambda: not log.describe([topic]))


def pretend_same_topic(log: mg.Log, store: Path, topic: str) -> None:
    """As after a restored broker disk: the same topic id, another past."""
    with duckdb.connect(str(store)) as con:
        for table in ("tables", "positions"):
            con.execute(f"UPDATE _merganser.{table} SET topic_id = ?", [log.describe([topic])[topic].topic_id])


@pytest.fixture
def store(log: mg.Log, name: str, tmp_path: Path) -> Path:
    """The closed store of a replica that has read ten rows of a table with one partition."""
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(10))
    path = tmp_path / "replica.duckdb"
    with mg.Replica(path, log, name, [name]) as replica:
        assert ids(replica, name) == list(range(10))
    return path


# -- 10 ----------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("offset", [0, 14], ids=["back", "forth"])
def test_moved_group_offsets_change_nothing(
    log: mg.Log, admin: AdminClient, broker: str, store: Path, name: str, offset: int, naive: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if naive:
        monkeypatch.setattr(Follow, "starts", _by_group(broker, name))
    fill(log, name, range(10, 15))
    moved = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0, offset)])])
    for future in moved.values():
        future.result(20)
    with caught(naive), mg.Replica(store, log, name, [name]) as replica:
        assert ids(replica, name) == list(range(15))


def _by_group(broker: str, group: str) -> Any:
    """Naive: the consumer group says where to go on."""

    def starts(self: Follow, partitions: list[mg.TopicPartition]) -> tuple[list[Start], list[Any]]:
        consumer = Consumer({"bootstrap.servers": broker, "group.id": group})
        at = consumer.committed([TopicPartition(*tp) for tp in partitions], timeout=10)
        consumer.close()
        return [Start(tp, p.offset, p.offset, None, 0) for tp, p in zip(partitions, at, strict=True)], []

    return starts


# -- 15, 16, 34 --------------------------------------------------------------------------------


@both_ways
def test_records_deleted_under_a_replica_that_is_behind_are_no_jump(
    log: mg.Log, admin: AdminClient, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        exact = kafka.reader_config
        monkeypatch.setattr(kafka, "reader_config", lambda *a: {**exact(*a), "auto.offset.reset": "latest"})
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(5))
    go_on = threading.Event()
    batches = BatchLimits(records=10, poll_records=10)
    with mg.Replica(
        tmp_path / "r", log, name, [name], batches=batches, on_step=lambda _: bool(go_on.wait(60))
    ) as replica:
        with log.producer() as producer:  # more than the reader's queue takes
            for id_ in range(5, 500):
                producer.put(name, {"id": id_, "text": "x" * 100_000})
        delete_records(admin, name, 500)
        go_on.set()
        with caught(naive), pytest.raises(errors.RetentionLost):
            replica.wait(mg.Position({mg.TopicPartition(name, 0): 500}))
        if not naive:  # what was read is kept, without a hole
            found = ids(replica, name, "eventual")
            assert found == list(range(len(found)))


@both_ways
def test_retention_past_the_stored_offset_stops_the_table(
    log: mg.Log, admin: AdminClient, store: Path, name: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(
            follow, "next_start", lambda table, tp, stored, starts, *_: max(starts[tp], stored.next_offset)
        )
    fill(log, name, range(10, 20))
    delete_records(admin, name, 15)
    with caught(naive), pytest.raises(errors.RetentionLost, match="begins at 15, the store needs 10"):
        mg.Replica(store, log, name, [name]).close()


@both_ways
def test_a_new_replica_of_a_trimmed_topic_wants_a_yes(
    log: mg.Log, admin: AdminClient, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(follow, "first_start", lambda table, tp, log_start, accept_partial: log_start)
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(10))
    delete_records(admin, name, 4)
    with caught(naive), pytest.raises(errors.PartialStart):
        mg.Replica(tmp_path / "refused", log, name, [name]).close()
    with mg.Replica(tmp_path / "partial", log, name, [name], accept_partial=True) as replica:
        assert ids(replica, name) == list(range(4, 10))
    assert accounts(tmp_path / "partial", log)[name].spans[0].first == 4


# -- 17, 18, 19, 23 ----------------------------------------------------------------------------


@both_ways
def test_a_topic_created_again_with_more_records_is_another_one(
    log: mg.Log, admin: AdminClient, store: Path, name: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        never_look(monkeypatch)
    recreate(log, admin, name, 20)
    with caught(naive), pytest.raises(errors.TopicRecreated):
        mg.Replica(store, log, name, [name]).close()


def test_a_topic_created_again_under_a_running_replica_stops_it(
    log: mg.Log, admin: AdminClient, store: Path, name: str
) -> None:
    with mg.Replica(store, log, name, [name]) as replica:
        recreate(log, admin, name, 40)
        wait_for("the replica stops", lambda: replica.error is not None)
        assert isinstance(replica.error, errors.TopicRecreated)
        assert ids(replica, name, "eventual") == list(range(10))


@both_ways
def test_a_replica_that_is_behind_reads_none_of_a_topic_created_again(
    log: mg.Log, admin: AdminClient, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader had no room to fetch meanwhile, and goes on by name where the new topic has records too."""
    if naive:
        never_look(monkeypatch)
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(500), "x" * 100_000)  # more than the reader's queue takes
    writing, go_on = threading.Event(), threading.Event()

    def hang(step: str) -> None:
        writing.set()
        go_on.wait(60)

    batches = BatchLimits(records=10, poll_records=10)
    with mg.Replica(tmp_path / "r", log, name, [name], batches=batches, on_step=hang) as replica:
        assert writing.wait(60)
        recreate(log, admin, name, 600)
        go_on.set()

        def stopped_or_read_on() -> bool:
            return replica.error is not None or max(ids(replica, name, "eventual"), default=0) >= 1000

        with caught(naive):
            wait_for("the replica stops, or reads on by name", stopped_or_read_on)
            found = ids(replica, name, "eventual")
            assert found == list(range(len(found)))
            assert isinstance(replica.error, errors.TopicRecreated)


@both_ways
def test_a_rebuilt_log_is_known_by_the_last_record(
    log: mg.Log, admin: AdminClient, store: Path, name: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        trust_the_store(monkeypatch)
    recreate(log, admin, name, 20)
    pretend_same_topic(log, store, name)
    with mg.Replica(store, log, name, [name]) as replica:
        with caught(naive), pytest.raises(errors.LogTruncated, match="another record at offset 9"):
            ids(replica, name)
        assert naive or ids(replica, name, "eventual") == list(range(10))


@both_ways
def test_an_offset_beyond_the_end_of_the_log_is_not_waited_for(
    log: mg.Log, admin: AdminClient, store: Path, name: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        trust_the_store(monkeypatch)
    recreate(log, admin, name, 3)
    pretend_same_topic(log, store, name)
    with caught(naive), pytest.raises(errors.LogTruncated, match="ends at 3, the store has applied up to 10"):
        mg.Replica(store, log, name, [name]).close()


@both_ways
def test_added_partitions_stop_the_table(
    log: mg.Log, admin: AdminClient, store: Path, name: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        never_look(monkeypatch)
    with mg.Replica(store, log, name, [name]) as replica, caught(naive):
        for future in admin.create_partitions([NewPartitions(name, 3)]).values():
            future.result(20)
        wait_for("the replica stops", lambda: replica.error is not None, 12 if naive else 120)
        assert isinstance(replica.error, errors.PartitionsChanged)
    with caught(naive), pytest.raises(errors.PartitionsChanged):
        mg.Replica(store, log, name, [name]).close()


# -- 35 ----------------------------------------------------------------------------------------

CLEANED_AT_ONCE = {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.0",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "200",
    "delete.retention.ms": "100",
}


@both_ways
def test_a_delete_that_compaction_took_away_is_not_missed_in_silence(
    log: mg.Log, broker: str, quick_cleaner: None, name: str, tmp_path: Path, naive: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if naive:
        trust_the_store(monkeypatch)
    log.create_table(name, ROW, ["id"], partitions=1, compact=True, config=CLEANED_AT_ONCE)
    fill(log, name, range(5))
    with mg.Replica(tmp_path / "r", log, name, [name]) as replica:
        assert ids(replica, name) == list(range(5))
    with log.producer() as producer:
        producer.delete(name, {"id": 3})

    def forgotten() -> bool:
        """A segment is closed by the next write after its time; what it says is cleaned then."""
        fill(log, name, [4])
        return all(m.value() is not None for m in raw_records(broker, name))

    wait_for("the tombstone is gone", forgotten, every_s=0.3)
    with caught(naive):
        with pytest.raises(errors.TombstonesLost):
            mg.Replica(tmp_path / "r", log, name, [name]).close()
        with mg.Replica(tmp_path / "rebuilt", log, f"{name}-2", [name]) as replica:
            assert ids(replica, name) == [0, 1, 2, 4]
