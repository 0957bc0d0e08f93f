"""Transactions, conditions and operation ids, from the producer through a real log to what queries show."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer

import merganser as mg
from merganser.consumers.apply import BatchLimits
from merganser.consumers.atomic import Atomicity
from merganser.consumers.audit import audit_log, audit_store
from merganser.consumers.storefile import StoreFile
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import NotFreshEnough, TornTransaction, UsageError
from merganser.schemas.headers import Marks, Resolution, encode
from merganser.schemas.position import TopicPartition
from support.naive import both_ways, caught
from support.waiting import wait_for

ACCOUNT = {
    "type": "record",
    "name": "account",
    "fields": [{"name": "id", "type": "long"}, {"name": "balance", "type": "long"}],
}


@pytest.fixture(scope="module")
def log(broker: str) -> Iterator[mg.Log]:
    with mg.connect(broker) as connected:
        yield connected


@pytest.fixture
def tables(log: mg.Log) -> tuple[str, str]:
    names = f"left_{uuid.uuid4().hex[:8]}", f"right_{uuid.uuid4().hex[:8]}"
    for name in names:
        log.create_table(name, schema=ACCOUNT, key=["id"], partitions=4)
    return names


@pytest.fixture
def replica(log: mg.Log, tables: tuple[str, str], tmp_path: Path) -> Iterator[mg.Replica]:
    with mg.Replica(tmp_path / "r.duckdb", log, group=tables[0], tables=tables) as opened:
        yield opened


def total(tables: tuple[str, str]) -> str:
    left, right = (f"(SELECT coalesce(sum(balance), 0) FROM {table})" for table in tables)
    return f"SELECT {left}, {right}"


@both_ways
def test_a_transaction_is_read_whole_at_any_moment_and_by_its_position_at_once(
    naive: bool, log: mg.Log, tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # FAILURES 9: each record as it comes
        monkeypatch.setattr(Atomicity, "_whole", lambda self, open_, position: True)
    with (
        # Record by record, so that there are many states in which part of a transaction has come.
        mg.Replica(tmp_path / "r.duckdb", log, tables[0], tables, batches=BatchLimits(1, poll_records=1)) as replica,
        log.producer() as producer,
        caught(naive),
    ):
        for n in range(1, 20):
            with producer.transaction() as tx:
                for i in range(4):
                    tx.put(tables[0], {"id": i, "balance": n})
                    tx.put(tables[1], {"id": i, "balance": -n})
            for _ in range(5):
                left, right = replica.query(total(tables)).rows()[0]
                assert left + right == 0
            assert replica.query(total(tables), after=tx.position).rows() == [(4 * n, -4 * n)]  # FAILURES 1
            assert replica.query(total(tables), level="strong").rows() == [(4 * n, -4 * n)]


def test_a_rolled_back_transaction_leaves_nothing(log: mg.Log, tables: tuple[str, str], replica: mg.Replica) -> None:
    with log.producer() as producer:
        with pytest.raises(ZeroDivisionError), producer.transaction() as tx:
            tx.put(tables[0], {"id": 1, "balance": 1})
            raise ZeroDivisionError
    assert replica.query(total(tables), level="strong").rows() == [(0, 0)]
    outcome = replica.outcome(tx)
    assert (outcome.state, "rolled back" in str(outcome)) == ("rejected", True)


def test_one_failed_condition_rejects_its_transaction_and_the_outcome_says_why(
    log: mg.Log, tables: tuple[str, str], replica: mg.Replica
) -> None:
    with log.producer() as producer:
        with producer.transaction() as first:
            first.put(tables[0], {"id": 1, "balance": 10}, if_absent=True)
            first.put(tables[1], {"id": 1, "balance": 20})
        row = replica.get(tables[0], {"id": 1}, after=first.position)
        assert row is not None
        with producer.transaction() as second:
            second.put(tables[0], {"id": 1, "balance": 11}, if_version=row["_offset"])
        with producer.transaction() as stale:
            stale.put(tables[1], {"id": 1, "balance": 0})
            stale.put(tables[0], {"id": 1, "balance": 12}, if_version=row["_offset"])
        assert str(replica.outcome(second)) == "applied"
        outcome = replica.outcome(stale.id)
        assert outcome.state == "rejected" and f"if_version={row['_offset']}" in str(outcome.reason)
        assert replica.query(total(tables), after=stale.position).rows() == [(11, 20)]
        rejected = replica.query("SELECT DISTINCT topic, tx FROM _merganser.rejections").rows()
        assert sorted(rejected) == sorted((table, stale.id) for table in tables)
        single = producer.put(tables[0], {"id": 1, "balance": 0}, if_absent=True)
        producer.flush()
        assert replica.outcome(single).state == "rejected"
        gone = producer.delete(tables[0], {"id": 1}, if_present=True)
        producer.flush()
        assert replica.outcome(gone).state == "applied"
        assert replica.get(tables[0], {"id": 1}, after=gone.position) is None


@both_ways
def test_an_operation_written_twice_is_applied_once(
    naive: bool, log: mg.Log, tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # FAILURES 7: operations are known within a batch only
        monkeypatch.setattr("merganser.consumers.ledger.known", lambda con, entries: [])
    log.create_table(events := f"events_{tables[0]}", schema=ACCOUNT, partitions=4)
    with (
        mg.Replica(tmp_path / "r.duckdb", log, group=events, tables=[*tables, events]) as replica,
        log.producer() as producer,
        caught(naive),
    ):
        for attempt in range(3):
            for n in range(20):
                producer.put(events, {"id": n, "balance": attempt}, op=f"event-{n}")
            token = producer.flush()
            with producer.transaction(op="transfer-1") as tx:
                tx.put(tables[0], {"id": 5, "balance": attempt}, if_absent=True)
                tx.put(events, {"id": 99, "balance": attempt})
            assert replica.outcome(tx).state == "applied"
            rows = replica.query(f"SELECT id, balance FROM {events} ORDER BY id", after=token | tx.position).rows()
            assert rows == [(n, 0) for n in [*range(20), 99]]


def raw(
    log: mg.Log, rows: list[tuple[str, int, dict[str, Any]]], marks: list[Marks], commit: bool = True
) -> KafkaProducer:
    """A transaction written by hand: (table, partition, row) with these headers."""
    producer = KafkaProducer(
        {"bootstrap.servers": log.bootstrap_servers, "transactional.id": uuid.uuid4().hex, "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for (table, partition, row), marked in zip(rows, marks, strict=True):
        encoder = RowEncoder(log.table(table))
        producer.produce(table, encoder.value(row), encoder.key(row), partition, headers=encode(marked))
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    return producer


def test_a_torn_transaction_is_never_shown_and_stops_its_tables(
    log: mg.Log, tables: tuple[str, str], tmp_path: Path
) -> None:
    """FAILURES 5: what a late EndTxn leaves, part of a write set, committed."""
    left, right = tables
    manifest = {TopicPartition(left, 0): 1, TopicPartition(right, 0): 1}
    with log.producer() as producer:
        producer.put(right, {"id": 7, "balance": 7})
    raw(log, [(left, 0, {"id": 1, "balance": 1})], [Marks("torn-1", manifest)])
    with mg.Replica(tmp_path / "r.duckdb", log, group=left, tables=tables) as replica:
        wait_for("the tables to stop", lambda: set(replica.stopped) == set(tables))
        assert replica.query(f"SELECT * FROM {left}").rows() == []
        assert replica.query(f"SELECT balance FROM {right}").rows() == [(7,)]
        with pytest.raises(TornTransaction, match="torn-1"):
            replica.query(f"SELECT * FROM {left}", level="strong")


@pytest.mark.parametrize("resolution", ["apply", "discard"])
def test_a_torn_transaction_is_resolved_in_the_log_for_every_replica_alike(
    resolution: Resolution, log: mg.Log, tables: tuple[str, str], tmp_path: Path
) -> None:
    left, right = tables
    manifest = {TopicPartition(left, 0): 2, TopicPartition(right, 0): 1}
    raw(log, [(left, 0, {"id": 1, "balance": 1})], [Marks(resolution, manifest)])
    with log.producer() as producer:
        producer.put(left, {"id": 2, "balance": 2})
    with mg.Replica(tmp_path / "one.duckdb", log, group=left, tables=tables) as replica:
        wait_for("the tables to stop", lambda: set(replica.stopped) == set(tables))
        assert replica.outcome(resolution, timeout=0.1).state == "in-doubt"
    log.resolve(resolution, tables, resolution)
    expected = [(1, 1), (2, 2)] if resolution == "apply" else [(2, 2)]
    for name in ("one", "two"):  # the one that stopped, and one that reads it all at once
        with mg.Replica(tmp_path / f"{name}.duckdb", log, group=left, tables=tables) as replica:
            rows = replica.query(f"SELECT id, balance FROM {left} ORDER BY id", level="strong").rows()
            assert rows == expected
            outcome = replica.outcome(resolution)
            assert outcome.state == ("applied" if resolution == "apply" else "rejected")
        with StoreFile(tmp_path / f"{name}.duckdb") as at_rest, at_rest.reading() as cursor:
            accounts = audit_log(audit_store(cursor), log)
            assert not [line for account in accounts for line in account.wrong]


def test_a_transaction_below_the_start_of_a_store_does_not_block_its_keys(
    log: mg.Log, tables: tuple[str, str], tmp_path: Path
) -> None:
    """FAILURES 36, trimmed: part of it lies below where the log, and so the store, begins."""
    left, right = tables
    manifest = {TopicPartition(left, 0): 1, TopicPartition(right, 0): 1}
    raw(
        log,
        [(left, 0, {"id": 1, "balance": 1}), (right, 0, {"id": 1, "balance": 1})],
        [Marks("old", manifest), Marks("old", manifest)],
    )
    encoder = RowEncoder(log.table(left))
    producer = KafkaProducer({"bootstrap.servers": log.bootstrap_servers})
    producer.produce(right, encoder.value({"id": 1, "balance": 5}), encoder.key({"id": 1}), 0)
    producer.flush(30)
    trim(log, left, 0, 1)
    with mg.Replica(tmp_path / "r.duckdb", log, group=left, tables=tables, accept_partial=True) as replica:
        rows = replica.query(f"SELECT id, balance FROM {right}", level="strong", timeout=20).rows()
        assert rows == [(1, 5)]


def trim(log: mg.Log, topic: str, partition: int, offset: int) -> None:
    from confluent_kafka import TopicPartition as KafkaPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": log.bootstrap_servers})
    for done in admin.delete_records([KafkaPartition(topic, partition, offset)]).values():
        done.result(30)


def test_a_bounded_read_is_as_fresh_as_asked_or_an_error(
    log: mg.Log, tables: tuple[str, str], replica: mg.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ends = log.ends
    monkeypatch.setattr(log, "ends", lambda *given: asked.append(1) or ends(*given))
    with log.producer() as producer:
        producer.put(tables[0], {"id": 1, "balance": 1})
        producer.flush()
        assert replica.query(total(tables), max_staleness=60).rows() == [(1, 0)]
        before = len(asked)
        for _ in range(5):  # the sample is recent enough
            replica.query(total(tables), level="bounded", max_staleness=60)
        assert len(asked) == before
    hanging = raw(log, [(tables[0], 0, {"id": 1, "balance": 2})], [Marks()], commit=False)
    with pytest.raises(NotFreshEnough, match=r"'bounded'.*has had a transaction open"):
        replica.query(total(tables), max_staleness=1e-9, timeout=0.5)
    assert replica.query(total(tables), max_staleness=60).rows() == [(1, 0)]
    hanging.abort_transaction(30)
    assert replica.query(total(tables), max_staleness=1e-9).rows() == [(1, 0)]
    for level, staleness in [("bounded", None), ("bounded", 0), ("strong", 5), ("session", 1)]:
        with pytest.raises(UsageError):
            replica.query(total(tables), level=level, max_staleness=staleness)  # type: ignore[arg-type]
