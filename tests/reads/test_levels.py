"""Reads on a replica that follows a real log: as fresh as asked, of one state, and without waiting for apply."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer

import merganser as mg
from merganser.consumers.dbfile import Limits
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadQuery, NotFreshEnough, NotHeld, ReadError, UnknownTable, UsageError
from support.waiting import wait_for

SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [{"name": "id", "type": "long"}, {"name": "qty", "type": "int"}],
}


@pytest.fixture(scope="module")
def log(broker: str) -> Iterator[mg.Log]:
    with mg.connect(broker) as connected:
        yield connected


@pytest.fixture
def table(log: mg.Log) -> str:
    name = f"orders_{uuid.uuid4().hex[:8]}"
    log.create_table(name, schema=SCHEMA, key=["id"], partitions=2)
    return name


@pytest.fixture
def replica(log: mg.Log, table: str, tmp_path: Path) -> Iterator[mg.Replica]:
    with mg.Replica(tmp_path / "r.duckdb", log, group=table, tables=[table]) as opened:
        yield opened


def test_a_read_after_a_token_sees_that_write_each_time(log: mg.Log, table: str, replica: mg.Replica) -> None:
    with log.producer() as producer:
        for n in range(100):
            producer.put(table, {"id": n % 7, "qty": n})
            token = producer.flush()
            result = replica.query(f"SELECT qty FROM {table} WHERE id = {n % 7}", after=token)
            assert result.rows() == [(n,)]
            assert result.position.reaches(token)
            assert replica.get(table, {"id": n % 7}, after=str(token))["qty"] == n  # type: ignore[index]


def test_a_strong_read_sees_every_acknowledged_write(log: mg.Log, table: str, replica: mg.Replica) -> None:
    with log.producer() as producer:
        for n in range(1, 60):
            producer.put(table, {"id": n, "qty": n})
            producer.flush()
            assert replica.query(f"SELECT count(*) FROM {table}", level="strong").rows() == [(n,)]


def test_an_eventual_read_in_its_place_would_miss_writes(log: mg.Log, table: str, tmp_path: Path) -> None:
    """The naive variant of the two above: it does not wait for what is being applied just then."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        begun.set()
        go_on.wait(60)

    with mg.Replica(tmp_path / "r.duckdb", log, group=table, tables=[table], on_step=hold) as replica:
        with log.producer() as producer:
            producer.put(table, {"id": 1, "qty": 1})
            token = producer.flush()
        assert begun.wait(60)
        assert replica.query(f"SELECT count(*) FROM {table}").rows() == [(0,)]
        go_on.set()
        assert replica.query(f"SELECT count(*) FROM {table}", after=token).rows() == [(1,)]


def test_a_strong_read_waits_for_an_open_transaction_and_says_so(log: mg.Log, table: str, replica: mg.Replica) -> None:
    encoder = RowEncoder(log.table(table))
    other = KafkaProducer({"bootstrap.servers": log.bootstrap_servers, "transactional.id": table, "log_level": 0})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(table, encoder.value({"id": 1, "qty": 1}), encoder.key({"id": 1}), partition=0)
    other.flush(30)
    with pytest.raises(
        NotFreshEnough, match=rf"{table}/0 has had a transaction open since offset 0, written \d+ s ago"
    ):
        replica.query(f"SELECT * FROM {table}", level="strong", timeout=0.5)
    other.commit_transaction(30)
    assert replica.query(f"SELECT id, qty FROM {table}", level="strong").rows() == [(1, 1)]


def test_deletes_are_seen_and_deleted_rows_can_come_back(log: mg.Log, table: str, replica: mg.Replica) -> None:
    with log.producer() as producer:
        producer.put(table, {"id": 1, "qty": 1})
        producer.delete(table, {"id": 1})
        assert replica.get(table, {"id": 1}, after=producer.flush()) is None
        producer.put(table, {"id": 1, "qty": 2})
        row = replica.get(table, {"id": 1}, after=producer.flush())
    assert row is not None and row["qty"] == 2 and row["_offset"] == 2


def test_a_token_of_a_partition_that_is_not_held_is_an_error(replica: mg.Replica, table: str) -> None:
    with pytest.raises(NotHeld, match="elsewhere/0"):
        replica.query(f"SELECT * FROM {table}", after="elsewhere/0:1", timeout=5)


def test_a_wait_is_bounded_and_says_how_far_behind(replica: mg.Replica, table: str) -> None:
    with pytest.raises(NotFreshEnough, match=f"1000 offsets behind, {table}/1 by 1000"):
        replica.query(f"SELECT * FROM {table}", after=f"{table}/1:1000", timeout=0.2)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM {t}",
        "SELECT 1; DROP TABLE {t}",
        "WITH d AS (DELETE FROM {t} RETURNING *) SELECT * FROM d",
        "SELECT * FROM nowhere",
        "SELEC 1",
        "COPY {t} TO '/tmp/x.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SET memory_limit = '1GB'",
        "CHECKPOINT",
        "",
    ],
)
def test_only_one_query_that_reads_is_run(replica: mg.Replica, table: str, sql: str) -> None:
    with pytest.raises(BadQuery) as raised:
        replica.query(sql.format(t=table))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sql", "params", "hint"),
    [
        ("SELECT ?", None, "one value for each"),
        ("SELECT ?, $2", [1], "one value for each"),
        ("SELECT ?", [1, 2], "one value for each"),
        ("SELECT 1", [1], "one value for each"),
        ("SELECT $a", {"a": 1, "b": 2}, "one value for each"),
        ("PIVOT {t} ON id USING sum(qty)", None, "name them: PIVOT t ON column IN"),
        ("SELECT nope FROM {t}", None, "check table and column names"),
    ],
)
def test_a_query_that_cannot_run_says_what_to_do(
    replica: mg.Replica, table: str, sql: str, params: Any, hint: str
) -> None:
    with pytest.raises(BadQuery) as raised:
        replica.query(sql.format(t=table), params)
    assert hint in raised.value.hint


def test_wrong_use_is_said(replica: mg.Replica, table: str) -> None:
    with pytest.raises(UsageError, match="unknown level"):
        replica.query("SELECT 1", level="fresh")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the key of"):
        replica.get(table, {"qty": 1})
    with pytest.raises(UnknownTable):
        replica.get("nowhere", {"id": 1})


def test_rows_come_as_python_values(replica: mg.Replica) -> None:
    sql = """SELECT sum(1), 'a'::VARCHAR, 1.5::DECIMAL(4,2), MAP {'k': 1}, {'x': [1, 2]}, NULL,
        TIMESTAMPTZ '2026-01-01 00:00:00+00', uuid '00000000-0000-0000-0000-000000000001'"""
    [row] = replica.query(sql).rows()
    assert row[:6] == (1, "a", Decimal("1.50"), {"k": 1}, {"x": [1, 2]}, None)
    assert row[6].utcoffset().total_seconds() == 0 and row[7] == uuid.UUID(int=1)
    assert replica.query("SELECT $n + ? AS m".replace("?", "$m"), {"n": 1, "m": 2}).rows() == [(3,)]
    assert replica.query("SELECT ? AS a", [7]).arrow().to_pylist() == [{"a": 7}]


def test_a_long_query_does_not_hold_the_apply_loop_up(log: mg.Log, table: str, replica: mg.Replica) -> None:
    running = threading.Thread(target=lambda: swallow(replica, LONG))
    running.start()
    with log.producer() as producer:
        for n in range(20):
            producer.put(table, {"id": n, "qty": n})
            replica.wait(producer.flush(), timeout=20)
    assert running.is_alive()
    replica.close()
    running.join(30)
    assert not running.is_alive()


LONG = "SELECT count(*) FROM range(100000) a, range(100000) b, range(1000) c WHERE a.range + b.range + c.range = 7"


def swallow(replica: mg.Replica, sql: str) -> Any:
    try:
        return replica.query(sql)
    except mg.MerganserError as error:
        return error


def test_a_schema_change_interrupts_a_query_that_does_not_end(log: mg.Log, table: str, tmp_path: Path) -> None:
    limits = Limits(open_reads_s=0.3)
    with mg.Replica(tmp_path / "s.duckdb", log, group="s", tables=[table], limits=limits) as replica:
        errors: list[Any] = []
        running = threading.Thread(target=lambda: errors.append(swallow(replica, LONG)))
        running.start()
        wait_for("the long query", lambda: replica._store._gate._inside > 0)
        log.alter_table(table, {**SCHEMA, "fields": [*SCHEMA["fields"], NEW]})  # type: ignore[misc]
        with log.producer() as producer:
            producer.put(table, {"id": 1, "qty": 1, "note": "n"})
            token = producer.flush()
        assert replica.query(f"SELECT note FROM {table}", after=token).rows() == [("n",)]
        running.join(30)
        assert isinstance(errors[0], ReadError) and "needed the store for itself" in str(errors[0])


NEW = {"name": "note", "type": ["null", "string"], "default": None}


def test_a_strong_read_does_not_wait_for_tables_that_are_no_longer_followed(
    log: mg.Log, table: str, tmp_path: Path
) -> None:
    other = f"{table}_other"
    log.create_table(other, schema=SCHEMA, partitions=1)
    with mg.Replica(tmp_path / "two.duckdb", log, group="two", tables=[table, other]):
        pass
    with log.producer() as producer:
        producer.put(other, {"id": 1, "qty": 1})
        producer.flush()
    with mg.Replica(tmp_path / "two.duckdb", log, group="two", tables=[table]) as replica:
        sql = "SELECT count(*) FROM _merganser.tables"
        assert replica.query(sql, level="strong").rows() == [(2,)]
