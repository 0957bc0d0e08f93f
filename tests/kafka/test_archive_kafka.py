"""FAILURES 16, 34: what Kafka no longer has comes from the archive; and nothing of a record is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from kafka_tables import ROW, accounts, digests, fill, ids, raw_producer, raw_records

import merganser as mg
from merganser.consumers.chunk import WholeChunk
from merganser.consumers.log import Log
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas import errors
from support.waiting import wait_for

PARTITIONS = 2


def places(table: str) -> list[mg.TopicPartition]:
    return [mg.TopicPartition(table, p) for p in range(PARTITIONS)]


def copy(log: mg.Log, archive: mg.Archive, table: str) -> None:
    ends = log.ends(places(table))
    with Archiver(log, archive, [table], limits=SegmentLimits(records=40), until=ends) as archiver:
        archiver.wait(ends)


def trim(admin: AdminClient, log: mg.Log, table: str, keep: int) -> None:
    """Drop all but the last *keep* offsets of each partition, as retention does."""
    before = [TopicPartition(*tp, max(0, end - keep)) for tp, end in log.ends(places(table)).items()]
    for future in admin.delete_records(before).values():
        future.result(20)


def undisturbed(log: Log, table: str, path: Path, group: str) -> Any:
    with mg.Replica(path, log, group, [table]) as replica:
        ids(replica, table)
    return digests(path)


def test_a_replica_behind_retention_is_filled_from_the_archive_and_then_follows_the_log(
    log: mg.Log, admin: AdminClient, name: str, tmp_path: Path
) -> None:
    log.create_table(name, ROW, ["id"], partitions=PARTITIONS)
    fill(log, name, range(60))
    undisturbed(log, name, tmp_path / "behind", "behind")
    fill(log, name, range(40, 300), "b")
    with log.producer() as producer:
        producer.delete(name, {"id": 7})
        with producer.transaction() as tx:
            for n in range(300, 310):
                tx.put(name, {"id": n, "text": "tx"})
    archive = mg.Archive(tmp_path / "archive")
    copy(log, archive, name)
    fill(log, name, range(310, 320))
    truth = undisturbed(log, name, tmp_path / "truth", f"{name}-truth")
    trim(admin, log, name, keep=8)
    with pytest.raises(errors.RetentionLost):
        mg.Replica(tmp_path / "behind", log, "behind", [name]).close()
    with pytest.raises(errors.PartialStart):
        mg.Replica(tmp_path / "new", log, f"{name}-new", [name]).close()
    bridged = archive.under(log)
    for path, group in ((tmp_path / "behind", "behind"), (tmp_path / "new", f"{name}-new")):
        assert undisturbed(bridged, name, path, group) == truth
    with mg.Replica(tmp_path / "new", bridged, f"{name}-new", [name]) as replica:
        fill(log, name, [1000])
        assert 1000 in ids(replica, name)
        assert len(ids(replica, name)) == 320
    accounts(tmp_path / "new", bridged)


def test_retention_may_overtake_a_replica_that_runs(log: mg.Log, admin: AdminClient, name: str, tmp_path: Path) -> None:
    log.create_table(name, ROW, ["id"], partitions=PARTITIONS)
    fill(log, name, range(30_000))
    archive = mg.Archive(tmp_path / "archive")
    with Archiver(log, archive, [name], until=log.ends(places(name))) as archiver:
        archiver.wait(log.ends(places(name)))
    limits = mg.BatchLimits(records=500, poll_records=100)
    with mg.Replica(tmp_path / "r", archive.under(log), name, [name], batches=limits) as replica:
        wait_for("it has begun", lambda: sum(replica.position.values()) > 0, every_s=0.001)
        trim(admin, log, name, keep=5)
        assert ids(replica, name, timeout=60) == list(range(30_000)) and not replica.stopped


def test_nothing_of_a_record_is_lost_in_the_archive(log: mg.Log, broker: str, name: str, tmp_path: Path) -> None:
    """Against another reader: every header, also of one name twice, without a value, or none; times of producers."""
    settings = {"message.timestamp.type": "CreateTime"}
    log.create_table(name, ROW, ["id"], partitions=1, config=settings)
    with raw_producer(broker) as producer:
        headers: list[Any] = [None, [("a", b"1"), ("b", None), ("a", b"2"), ("", b"")], [("é", b"\x00\xff")]]
        for n in range(30):
            value = [b"", None, b"x" * n][n % 3]
            producer.produce(name, value, [b"k", None, b""][n % 3], headers=headers[n % 3], timestamp=10**12 - n)  # type: ignore[arg-type]
    fill(log, name, range(3))
    archive = mg.Archive(tmp_path)
    ends = log.ends(places(name)[:1])
    with Archiver(log, archive, [name], until=ends) as archiver:
        archiver.wait(ends)
    reader = archive.log().reader("g", WholeChunk)
    reader.assign(mg.Position(dict.fromkeys(ends, 0)))
    chunk = reader.poll(1000, 1.0).chunks[name]
    assert isinstance(chunk, WholeChunk)
    found = list(
        zip(
            chunk.offsets, chunk.keys, chunk.values, zip(chunk.kinds, chunk.times_ms, strict=True),
            chunk.record_epochs, chunk.all_headers, strict=True,
        )
    )  # fmt: skip
    assert found == [
        (m.offset(), m.key(), m.value(), m.timestamp(), m.leader_epoch(), m.headers())
        for m in raw_records(broker, name)
    ]
    _at_times(archive, log, places(name)[0], [m.timestamp()[1] for m in raw_records(broker, name)])


def _at_times(archive: mg.Archive, log: mg.Log, tp: mg.TopicPartition, times: list[int]) -> None:
    for ms in (0, 10**12 - 5, 10**12, times[-1], times[-1] + 1):
        expected = next((n for n, time_ms in enumerate(times) if time_ms >= ms), len(times))
        assert archive.log().at_time([tp], ms) == {tp: expected}
        assert archive.under(log).at_time([tp], ms) == {tp: expected}


def test_a_topic_deleted_and_made_again_has_a_chain_of_its_own(
    log: mg.Log, admin: AdminClient, name: str, tmp_path: Path
) -> None:
    log.create_table(name, ROW, ["id"], partitions=PARTITIONS)
    fill(log, name, range(20))
    archive = mg.Archive(tmp_path)
    copy(log, archive, name)
    for future in admin.delete_topics([name]).values():
        future.result(20)
    wait_for("it is gone", lambda: not log.describe([name]))
    log.create_table(name, ROW, ["id"], partitions=PARTITIONS)
    fill(log, name, range(100, 150))
    copy(log, archive, name)
    assert not check(archive, log).findings and len(archive.declared(name)) == 2
    with mg.Replica(tmp_path / "r", archive.log(), name, [name]) as replica:
        assert ids(replica, name) == list(range(100, 150))
