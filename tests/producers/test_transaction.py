"""What a transaction promises, on a real broker."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import uuid
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Producer as RawProducer
from producer_tables import ROW, SCHEMA, decode, ids, marks, read

from merganser.pipeline.log import Log
from merganser.producers.options import ProducerOptions
from merganser.schemas.errors import InvalidRow, ProducerFenced, RolledBack, TransactionTooLarge, UsageError
from merganser.schemas.headers import Condition, Marks
from merganser.schemas.partitioner import partition_of
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import Table


def row(number: int, sku: str = "a") -> dict[str, Any]:
    return {"order_id": number, "sku": sku}


def test_a_committed_transaction_is_there_whole_and_names_itself(log: Log, orders: Table, events: Table) -> None:
    with log.producer() as producer:
        with producer.transaction() as tx:
            writes = [tx.put(orders.name, row(n)) for n in range(20)]
            gone = tx.delete(orders.name, {"order_id": 3})
            more = tx.put(events.name, row(1))
            assert tx.position is None and writes[0].position is None, "nothing is acknowledged yet"
            assert read(log, orders) == [], "and nothing is sent"
        token = producer.flush()
    assert tx.position is not None
    assert token == tx.position, "the token covers transactions too"
    for write in (*writes, gone, more):
        assert write.position is not None and tx.position.reaches(write.position)
        assert (write.tx, write.ops) == (tx.id, ())
    assert {tp: max(w.offset or 0 for w in (*writes, gone, more) if (w.table, w.partition) == tp) + 1
            for tp in tx.position} == dict(tx.position)  # fmt: skip
    assert " " not in tx.id
    records = read(log, orders) + read(log, events)
    assert {marks(m).tx for m in records} == {tx.id}
    by_offset = {(m.topic(), m.partition(), m.offset()): m for m in records}
    assert by_offset[(gone.table, gone.partition, gone.offset)].value() is None
    assert len(by_offset) == 22


def test_an_exception_in_the_block_leaves_nothing(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        with pytest.raises(KeyError), producer.transaction() as tx:
            tx.put(orders.name, ROW)
            raise KeyError("mine")
        assert tx.position is None
        with pytest.raises(InvalidRow), producer.transaction() as tx:
            write = tx.put(orders.name, ROW)
            tx.put(orders.name, {"order_id": "x", "sku": "a"})
        assert write.position is None
        with producer.transaction() as tx:
            tx.put(orders.name, row(2))
    assert ids(log, orders) == [2]
    assert len(read(log, orders, "read_uncommitted")) == 1, "not even for those who look at open transactions"


def test_an_empty_transaction_never_meets_kafka(log: Log) -> None:
    producer = log.producer()
    with producer.transaction(op="nothing") as tx:
        pass
    assert tx.position == Position()
    assert producer._transactions._client._client is None


def test_plain_writes_come_before_the_transaction_that_follows_them(log: Log) -> None:
    one = log.create_table(f"one-{uuid.uuid4().hex[:8]}", SCHEMA, ["order_id"], partitions=1)
    with log.producer(ProducerOptions(linger_ms=500)) as producer:
        producer.put(one.name, row(1, "before"))
        with producer.transaction() as tx:
            tx.put(one.name, row(1, "in"))
        producer.put(one.name, row(1, "after"))
    assert [decode(SCHEMA, m.value())["sku"] for m in read(log, one)] == ["before", "in", "after"]


# -- wrong use -------------------------------------------------------------------------------


def test_inside_of_a_transaction_the_thread_writes_through_it(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        with producer.transaction() as tx:
            for call in (
                lambda: producer.put(orders.name, ROW),
                lambda: producer.delete(orders.name, {"order_id": 1}),
                lambda: producer.transaction().__enter__(),
            ):
                with pytest.raises(UsageError, match=r"tx\.put|nest"):
                    call()
            tx.put(orders.name, row(5))
            other = threading.Thread(target=lambda: producer.put(orders.name, row(6)))
            other.start()
            other.join()
        producer.put(orders.name, row(7))
        with pytest.raises(UsageError, match="with"):
            tx.put(orders.name, row(8))
        with pytest.raises(UsageError, match="once"), tx:
            pass
    assert ids(log, orders) == [5, 6, 7]


def test_transactions_of_threads_take_turns(log: Log, orders: Table) -> None:
    problems: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(5):
                with producer.transaction() as tx:
                    for n in range(4):
                        tx.put(orders.name, row(first + 4 * number + n))
                assert tx.position is not None and producer.flush().reaches(tx.position)
        except BaseException as error:
            problems.append(error)

    with log.producer() as producer:
        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert len(ids(log, orders)) == 60
    assert set(Counter(marks(m).tx for m in read(log, orders)).values()) == {4}


def test_a_thread_does_not_wait_for_ever_for_its_turn(log: Log) -> None:
    producer = log.producer(ProducerOptions(delivery_timeout_s=1))
    producer._transactions._patience_s = 0.2
    said: list[str] = []

    def wait() -> None:
        try:
            with producer.transaction():
                pass
        except UsageError as error:
            said.append(str(error))

    with producer.transaction():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert said and "another thread" in said[0]


@pytest.mark.parametrize("bound", [{"transaction_rows": 3}, {"transaction_bytes": 50}])
def test_a_transaction_beyond_its_bounds_is_not_sent(log: Log, orders: Table, bound: dict[str, int]) -> None:
    with log.producer(ProducerOptions(**bound)) as producer:  # type: ignore[arg-type]
        with pytest.raises(TransactionTooLarge), producer.transaction() as tx:
            for n in range(4):
                tx.put(orders.name, row(n))
        with producer.transaction() as tx:
            tx.put(orders.name, row(9))
    assert ids(log, orders) == [9]


def test_a_row_larger_than_a_message_is_refused_where_it_is_put(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        with producer.transaction() as tx:
            with pytest.raises(InvalidRow, match="larger"):
                tx.put(orders.name, row(1, "x" * 2_000_000))
            tx.put(orders.name, row(2))
    assert ids(log, orders) == [2]


def test_what_only_the_broker_can_refuse_is_rolled_back(log: Log) -> None:
    small = log.create_table(
        f"small-{uuid.uuid4().hex[:8]}", SCHEMA, ["order_id"], partitions=1, config={"max.message.bytes": "1000"}
    )
    with log.producer() as producer:
        with pytest.raises(RolledBack) as caught, producer.transaction() as tx:
            tx.put(small.name, row(1))
            tx.put(small.name, row(2, "".join(random.Random(1).choices("abcdefghijklmnop", k=20_000))))
        assert caught.value.tx == tx.id and tx.position is None and "too large" in str(caught.value)
        assert "fails again" in caught.value.hint
        with producer.transaction() as tx:
            tx.put(small.name, row(3))
    assert ids(log, small) == [3]


def test_a_closed_producer_commits_nothing(log: Log, orders: Table) -> None:
    producer = log.producer()
    with pytest.raises(UsageError, match="closed"), producer.transaction() as tx:
        tx.put(orders.name, ROW)
        producer.close()
    assert read(log, orders) == []


# -- two of one id ---------------------------------------------------------------------------


def test_a_newer_producer_of_an_id_fences_the_older_one(log: Log, orders: Table) -> None:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    old = log.producer(id=name)
    with old.transaction() as tx:
        tx.put(orders.name, row(1))
    new = log.producer(id=name)  # from here on, though it has written nothing
    for _ in range(2):
        with pytest.raises(ProducerFenced) as caught, old.transaction() as tx:
            tx.put(orders.name, row(2))
        assert caught.value.id == name and tx.position is None
    with new.transaction() as tx:
        tx.put(orders.name, row(3))
    assert ids(log, orders) == [1, 3]
    old.close()
    new.close()


def test_producers_without_an_id_leave_each_other_alone(log: Log, orders: Table) -> None:
    with log.producer() as one, log.producer() as two:
        for number, producer in enumerate([one, two] * 3):
            with producer.transaction() as tx:
                tx.put(orders.name, row(number))
    assert ids(log, orders) == list(range(6))


@pytest.mark.parametrize("bad", ["", "x" * 300, "\ud800", 7])
def test_an_id_that_is_none_is_refused(log: Log, orders: Table, bad: Any) -> None:
    with pytest.raises(UsageError, match="id"):
        log.producer(id=bad)
    with log.producer() as producer:
        for call in (
            lambda: producer.put(orders.name, ROW, op=bad),
            lambda: producer.delete(orders.name, {"order_id": 1}, op=bad),
            lambda: producer.transaction(op=bad),
        ):
            with pytest.raises(UsageError, match="op="):
                call()
    assert read(log, orders) == []


# -- manifests -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_manifest_says_what_the_log_has(log: Log, orders: Table, events: Table, seed: int) -> None:
    pick = random.Random(seed)
    sent: dict[str, int] = {}
    with log.producer() as producer:
        for _ in range(12):
            with producer.transaction(op=pick.choice([None, "an-op"])) as tx:
                rows = pick.randrange(1, pick.choice([3, 40]))
                for _ in range(rows):
                    number = pick.randrange(30)
                    match pick.randrange(5):
                        case 0:
                            tx.delete(orders.name, {"order_id": number}, if_present=pick.random() < 0.5)
                        case 1:
                            tx.put(events.name, row(number), op=pick.choice([None, str(number)]))
                        case _:
                            tx.put(orders.name, row(number), if_version=pick.choice([None, number]))
                sent[tx.id] = rows
            if pick.random() < 0.3:
                producer.put(orders.name, row(0))  # one of no transaction, in between
    found: dict[str, list[tuple[TopicPartition, int, Marks]]] = {}
    for message in read(log, orders) + read(log, events):
        said = marks(message)
        if said.tx is not None:
            home = TopicPartition(str(message.topic()), message.partition() or 0)
            found.setdefault(said.tx, []).append((home, message.offset() or 0, said))
    assert {tx: len(records) for tx, records in found.items()} == sent
    for records in found.values():
        counts = Counter(home for home, _, _ in records)
        said_in: dict[TopicPartition, list[Marks]] = {}
        for home, _, said in sorted(records, key=lambda record: record[:2]):
            said_in.setdefault(home, []).append(said)
        for first, *later in said_in.values():
            assert first.manifest == counts
            assert not any(said.manifest for said in later)


def test_rows_go_where_the_plain_client_puts_them(log: Log, broker: str) -> None:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    schema = {**SCHEMA, "fields": [{"name": "id", "type": "string"}]}
    table = log.create_table(name, schema, ["id"], key_encoding="string", partitions=7)
    pick = random.Random(7)
    keys = {"".join(pick.choices("abcdé漢 -0", k=pick.randrange(1, 20))) for _ in range(200)} | {""}
    raw: dict[str, int | None] = {}
    plain = RawProducer({"bootstrap.servers": broker, "partitioner": "murmur2_random"})
    for key in keys:
        plain.produce(name, b"", key, on_delivery=lambda _, m, key=key: raw.update({key: m.partition()}))
    plain.flush()
    with log.producer() as producer:
        with producer.transaction() as tx:
            writes = {key: tx.put(name, {"id": key}) for key in keys}
        again = {key: producer.put(name, {"id": key}, op="x") for key in keys}
        producer.flush()
    assert table.partitions == 7 and len(set(raw.values())) == 7
    assert {key: write.partition for key, write in writes.items()} == raw
    assert {key: write.partition for key, write in again.items()} == raw


# -- conditions and operation ids ------------------------------------------------------------

TERMS = [
    ({"if_version": 17}, Marks(condition=Condition("version", 17))),
    ({"if_version": 0}, Marks(condition=Condition("version", 0))),
    ({"if_absent": True}, Marks(condition=Condition("absent"))),
    ({"if_present": True}, Marks(condition=Condition("present"))),
    ({"op": "order 17"}, Marks(ops=("order 17",))),
    ({"op": "o", "if_absent": True}, Marks(condition=Condition("absent"), ops=("o",))),
    ({}, Marks()),
]


@pytest.mark.parametrize(("terms", "expected"), TERMS)
def test_terms_travel_with_the_row(log: Log, orders: Table, terms: dict[str, Any], expected: Marks) -> None:
    with log.producer() as producer:
        writes = [producer.put(orders.name, ROW, **terms), producer.delete(orders.name, {"order_id": 1}, **terms)]
        with producer.transaction() as tx:
            writes.append(tx.put(orders.name, ROW, **terms))
            writes.append(tx.delete(orders.name, {"order_id": 1}, **terms))
    found = [marks(m) for m in read(log, orders)]
    assert [(m.condition, m.ops) for m in found] == [(expected.condition, expected.ops)] * 4
    assert [(w.tx, w.ops) for w in writes] == [(None, expected.ops)] * 2 + [(tx.id, expected.ops)] * 2
    assert [w.offset for w in writes] == [0, 1, 2, 3], "one key, one partition"


def test_a_write_without_terms_has_no_headers(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        producer.put(orders.name, ROW)
    assert read(log, orders)[0].headers() is None


def test_conditions_are_refused_where_they_cannot_be_decided(log: Log, orders: Table, events: Table) -> None:
    compacted = log.create_table(f"compacted-{uuid.uuid4().hex[:8]}", SCHEMA, ["order_id"], compact=True)
    with log.producer() as producer, producer.transaction() as tx:
        for table, terms, why in (
            (events, {"if_absent": True}, "no key"),
            (compacted, {"if_version": 3}, "compacted"),
            (compacted, {"op": "o-1"}, "compacted"),
            (orders, {"if_version": 3, "if_present": True}, "one of"),
            (orders, {"if_version": -1}, "_offset"),
            (orders, {"if_version": True}, "_offset"),
            (orders, {"if_version": "3"}, "_offset"),
        ):
            with pytest.raises(UsageError, match=why):
                tx.put(table.name, ROW, **terms)
        tx.put(compacted.name, ROW)
    with log.producer() as producer, pytest.raises(UsageError, match="compacted"):
        producer.delete(compacted.name, {"order_id": 1}, if_present=True)
    assert len(read(log, compacted)) == 1 and read(log, orders) == []


def test_the_op_of_a_transaction_rides_on_its_first_row(log: Log, orders: Table) -> None:
    with log.producer() as producer, producer.transaction(op="whole") as tx:
        first = tx.put(orders.name, row(1), op="row-1")
        for n in range(2, 9):
            assert tx.put(orders.name, row(n)).ops == ()
    assert first.ops == ("row-1", "whole")
    carried = {(m.partition(), m.offset()): marks(m).ops for m in read(log, orders) if marks(m).ops}
    assert carried == {(first.partition, first.offset): ("row-1", "whole")}


def test_a_row_without_a_key_goes_where_its_op_hashes_to(log: Log, events: Table) -> None:
    with log.producer() as producer:
        for op in ("a", "b", "order-17", "é"):
            home = partition_of(op.encode(), events.partitions)
            writes = [producer.put(events.name, row(n), op=op) for n in range(3)]
            for _ in range(3):
                with producer.transaction() as tx:
                    tx.put(events.name, row(1))
                    writes.append(tx.put(events.name, row(2), op=op))
                with producer.transaction(op=op) as tx:
                    writes.append(tx.put(events.name, row(2)))
            producer.flush()
            assert {write.partition for write in writes} == {home}


def test_rows_without_a_key_keep_together_in_a_transaction(log: Log, events: Table) -> None:
    used = set()
    with log.producer() as producer:
        for _ in range(12):
            with producer.transaction() as tx:
                writes = [tx.put(events.name, row(n)) for n in range(5)]
            (home,) = {write.partition for write in writes}
            used.add(home)
    assert len(used) > 1, "but not all in one place"


# -- a process that is gone, or away ---------------------------------------------------------

KILLED = """
import os, signal, sys
import merganser as mg
from merganser.producers.commit import TransactionalClient
def end(self, client, tx):
    os.kill(os.getpid(), signal.SIGKILL)
TransactionalClient._end = end
log = mg.connect(sys.argv[1])
producer = log.producer(id=sys.argv[3])
with producer.transaction() as tx:
    for n in range(10):
        tx.put(sys.argv[2], {"order_id": n, "sku": "killed"})
"""


def test_a_process_that_is_killed_with_everything_sent_leaves_nothing(log: Log, orders: Table) -> None:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    done = subprocess.run([sys.executable, "-c", KILLED, log.bootstrap_servers, orders.name, name], timeout=300)
    assert done.returncode == -9
    with log.producer(id=name) as producer:  # aborts what the killed one left open, instead of ten seconds later
        with producer.transaction() as tx:
            tx.put(orders.name, row(100))
    assert len(read(log, orders, "read_uncommitted")) == 11, "it was sent"
    assert ids(log, orders) == [100]
