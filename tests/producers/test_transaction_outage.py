"""Transactions when the broker, or the producer, is away at the worst moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from producer_tables import SCHEMA, ids, read

from merganser.pipeline.broker import LocalBroker
from merganser.pipeline.log import Log, connect
from merganser.producers import commit
from merganser.producers.commit import TransactionalClient
from merganser.producers.options import ProducerOptions
from merganser.schemas.errors import CommitInDoubt, LogError, RolledBack
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import Table
from support.waiting import wait_for

QUICK = ProducerOptions(transaction_timeout_s=3, delivery_timeout_s=20)


def row(number: int) -> dict[str, Any]:
    return {"order_id": number, "sku": "a"}


def kill(broker: LocalBroker) -> None:
    for pid in broker.status().pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        pytest.param("_open_for", RolledBack, id="before sending", marks=pytest.mark.slow),
        pytest.param("_end", CommitInDoubt, id="before EndTxn"),
    ],
)
def test_a_broker_that_dies_around_the_commit(
    own_broker: LocalBroker, monkeypatch: pytest.MonkeyPatch, moment: str, told: type[LogError]
) -> None:
    original = getattr(TransactionalClient, moment)

    def killed(self: TransactionalClient, *args: Any) -> Any:
        opened = original(self, *args) if moment == "_open_for" else None
        if own_broker.status().running and not died:
            kill(own_broker)
            died.append(True)
        return original(self, *args) if opened is None else opened

    died: list[bool] = []
    monkeypatch.setattr(TransactionalClient, moment, killed)
    with connect(own_broker.status().bootstrap_servers) as log:
        table = log.create_table(f"orders{moment}", SCHEMA, ["order_id"], partitions=2)
        with log.producer(QUICK) as producer:
            died.append(True)
            with producer.transaction() as tx:
                tx.put(table.name, row(0))
            died.clear()
            begun = time.monotonic()
            with pytest.raises(told) as caught, producer.transaction() as tx:
                writes = [tx.put(table.name, row(n)) for n in range(1, 7)]
            assert time.monotonic() - begun < 60, "bounded, though no broker answers"
            assert caught.value.tx == tx.id  # type: ignore[attr-defined]
            assert all(write.position is None for write in writes)
            assert (tx.position is not None) is (told is CommitInDoubt), "in doubt, its place is known"
            own_broker.start(wait_s=120)
            with producer.transaction() as tx:
                tx.put(table.name, row(9))
            whole = ([0, 9], [0, 1, 2, 3, 4, 5, 6, 9])
            # Kafka itself ends a transaction partition by partition: to plain readers it is whole only in the end.
            wait_for("it is whole or not at all", lambda: ids(log, table) in whole)
            if told is RolledBack:
                assert ids(log, table) == [0, 9]


STOPPED = """
import sys
import merganser as mg
from merganser.producers.commit import TransactionalClient
from merganser.schemas.errors import CommitInDoubt, RolledBack

original = TransactionalClient._end
def held(self, *args):
    if not told:
        told.append(print("held", flush=True))
        sys.stdin.readline()
    return original(self, *args)
told = []
TransactionalClient._end = held

log = mg.connect(sys.argv[1])
producer = log.producer(mg.ProducerOptions(transaction_timeout_s=3))
try:
    with producer.transaction() as tx:
        for n in range(10):
            tx.put(sys.argv[2], {"order_id": n, "sku": "late"})
    print("committed", flush=True)
except (RolledBack, CommitInDoubt) as error:
    print(type(error).__name__, flush=True)
with producer.transaction() as tx:
    tx.put(sys.argv[2], {"order_id": 100, "sku": "next"})
print(tx.position, flush=True)
producer.close()
"""


@pytest.fixture
def log(broker: str) -> Iterator[Log]:
    with connect(broker) as log:
        yield log


@pytest.fixture
def table(log: Log) -> Table:
    return log.create_table(f"orders-{uuid.uuid4().hex[:8]}", SCHEMA, ["order_id"], partitions=1)


def test_a_producer_that_was_stopped_longer_than_its_timeout_never_claims_a_commit(log: Log, table: Table) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, log.bootstrap_servers, table.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin and child.stdout
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGSTOP)
        end = TopicPartition(table.name, 0)
        # The coordinator looks every ten seconds, and ends the transaction with a marker of its own.
        wait_for("the coordinator to give it up", lambda: log.ends([end])[end] == 11, timeout_s=90)
        child.stdin.write("\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        told, position = child.stdout.read().splitlines()
        assert child.wait(120) == 0
    assert told in ("RolledBack", "CommitInDoubt")
    assert position == f"{table.name}/0:12", "the next transaction of the same producer holds"
    assert ids(log, table) == [100]
    assert len(read(log, table, "read_uncommitted")) == 11


def test_a_transaction_given_up_while_it_is_sent_is_rolled_back(
    log: Log, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = commit._produce
    end = TopicPartition(table.name, 0)

    def slow(client: Any, record: Any, *more: Any) -> None:
        original(client, record, *more)
        if record is first[0]:
            client.flush(30)
            wait_for("the coordinator to give it up", lambda: log.ends([end])[end] == 2, timeout_s=90)

    first: list[Any] = []
    monkeypatch.setattr(commit, "_produce", slow)
    with log.producer(ProducerOptions(transaction_timeout_s=3)) as producer:
        with pytest.raises(RolledBack), producer.transaction() as tx:
            tx.put(table.name, row(1))
            first.append(tx._records[0])
            tx.put(table.name, row(2))
        with producer.transaction() as tx:
            tx.put(table.name, row(3))
    assert ids(log, table) == [3]
