"""The checker finds nothing in what is built, and finds each naive variant, in the same few steps."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer as KafkaProducer

from history import faults, reader
from history.faults import FAULTS
from history.journal import ENTRIES, LEFT, RIGHT
from history.scripted import Script, script
from history.writer import Single
from merganser.producers.commit import TransactionalClient
from merganser.schemas.encode import RowEncoder
from merganser.schemas.headers import Marks, encode
from merganser.schemas.partitioner import partition_of
from merganser.schemas.position import TopicPartition
from support.waiting import wait_for

#: As built, the same steps are of the long form: the short histories (test_history.py) prove that meanwhile.
both_ways = pytest.mark.parametrize(
    "naive", [pytest.param(False, id="ours", marks=pytest.mark.slow), pytest.param(True, id="naive")]
)


@pytest.fixture
def played(broker: str, tmp_path: Path) -> Iterator[Script]:
    with script(broker, tmp_path) as opened:
        yield opened


@pytest.fixture
def served(broker: str, tmp_path: Path) -> Iterator[Script]:
    with script(broker, tmp_path, doors=True) as opened:
        yield opened


def plant(naive: bool, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if naive:
        FAULTS[fault](monkeypatch.setattr)


def hold(played: Script, naive: bool) -> None:
    """Who does not wait must not find that it has come all the same."""
    if naive:
        played.applying.clear()


def verdict(played: Script, naive: bool, *kinds: str) -> None:
    """Nothing as built; one of *kinds* in the naive variant."""
    findings = played.judge()
    if naive:
        assert set(kinds) & set(findings.kinds), findings.text()
    else:
        assert findings.none, findings.text()


@both_ways
def test_1_a_read_right_after_a_commit_misses_it(naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(naive, "no-wait", monkeypatch)
    hold(played, naive)
    for _ in range(12):
        played.writer.do_transaction()
        played.clients.scan("after", played.token)
    verdict(played, naive, "stale")


@both_ways
def test_2_a_strong_read_up_to_the_stable_end_misses_what_lies_beyond(
    naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(naive, "stable-end", monkeypatch)
    monkeypatch.setattr(reader, "TIMEOUT_S", 1)
    open_ = raw(played, [(LEFT, {"id": 0, "n": 1, "w": 1})], [Marks()], commit=False)
    played.writer.plain([Single("put", w := played.writer.journal.number(), [LEFT, 0, w, None])])
    played.clients.get(LEFT, 0, "strong")
    open_.abort_transaction(30)
    played.clients.get(LEFT, 0, "strong")
    verdict(played, naive, "stale")


@both_ways
def test_5_a_torn_transaction_is_applied(naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(naive, "seen-at-once", monkeypatch)
    w, tx = played.writer.journal.number(), uuid.uuid4().hex
    one, two = played.plan.tables[LEFT], played.plan.tables[RIGHT]
    rows = [[LEFT, 0, w, None], [RIGHT, 0, w, None]]
    played.writer.journal.begin(played.writer.journal.number(), "transaction", w=w, rows=rows, tx=tx)
    row = {"id": 0, "n": w, "w": w}
    home = partition_of(RowEncoder(played.clients.log.table(one)).key(row), 8)
    manifest = {TopicPartition(one, home): 1, TopicPartition(two, home): 1}
    raw(played, [(LEFT, row)], [Marks(tx, manifest)])
    where = TopicPartition(one, home)
    end = played.clients.log.ends([where])[where]
    wait_for(
        "the record to arrive", lambda: bool(played.replica.stopped) or played.replica._progress.read[where] >= end
    )
    for _ in range(3):
        played.clients.scan("eventual")
    kinds = set(played.judge().kinds)
    assert "torn in the log" in kinds, "whoever wrote it, the log is wrong"
    assert ("wrong value" in kinds) is naive


@both_ways
def test_6_a_commit_in_doubt_is_run_again_and_money_is_doubled(
    naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.lose_answers(monkeypatch.setattr)
    if naive:
        monkeypatch.setattr("history.writer.Writer.doubt_is_abort", True)
    for _ in range(7):
        played.writer.do_transfer()
    played.clients.scan("strong")
    verdict(played, naive, "applied twice", "wrong account")


@both_ways
def test_7_an_operation_sent_again_is_applied_again(
    naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(naive, "forgetful", monkeypatch)
    for _ in range(3):
        played.writer.do_transfer_op()
    played.writer.do_transfer_late()
    played.writer.plain([event := played.writer.single("event")])
    played.writer.plain([event])
    played.clients.scan("strong")
    verdict(played, naive, "wrong value", "wrong account")


@both_ways
def test_8_a_transaction_that_was_given_up_is_taken_for_fencing(
    naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(naive, "timeout-is-fencing", monkeypatch)
    played.writer.producer.close()
    played.writer.producer = played.clients.log.producer()  # nobody else has its id
    open_for = TransactionalClient._open_for

    def given_up(self: TransactionalClient, tx: str) -> KafkaProducer:
        client = open_for(self, tx)
        if not done:  # the coordinator answers so when the time is up, or when a newer one has fenced it
            done.append(KafkaProducer({"bootstrap.servers": played.plan.servers, "transactional.id": self._id}))
            done[0].init_transactions(30)
        return client

    done: list[KafkaProducer] = []
    monkeypatch.setattr(TransactionalClient, "_open_for", given_up)
    played.writer.do_transfer_op()
    played.clients.scan("strong")
    verdict(played, naive, "lost")


@both_ways
def test_9_a_transaction_shows_up_partition_by_partition(
    naive: bool, played: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(naive, "seen-at-once", monkeypatch)
    for _ in range(8):
        played.writer.do_transfer()
        played.writer.do_transaction()
        played.clients.scan("eventual")
    verdict(played, naive, "wrong value", "wrong sum")


@both_ways
def test_doors_do_not_hand_on_how_fresh_an_answer_has_to_be(
    naive: bool, served: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(naive, "token-dropped", monkeypatch)
    plant(naive, "level-dropped", monkeypatch)
    hold(served, naive)
    for _ in range(6):
        served.writer.do_transaction()
        served.clients.scan("after", served.token, way="http")  # mg.Client looks whether it got what it asked for
        served.writer.do_transaction()
        served.clients.scan("strong", way="flight")
    kinds = served.judge().kinds
    assert set(kinds) == ({"failed", "stale"} if naive else set()), kinds


@both_ways
def test_a_session_ends_where_its_node_does(naive: bool, served: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(naive, "session-of-a-node", monkeypatch)
    served.applying.clear()
    with served.second_node():
        served.writer.plain([served.writer.single("put") for _ in range(8)])
        served.clients.scan("after", served.token, way="anywhere")  # the second node is asked first
    read = threading.Thread(target=served.clients.scan, args=("session",), kwargs={"way": "anywhere"})
    read.start()
    read.join(60 if naive else 3)  # ours waits for the node that is left
    served.applying.set()
    read.join()
    verdict(served, naive, "back in time")


def raw(
    played: Script, rows: list[tuple[int, dict[str, int]]], marks: list[Marks], commit: bool = True
) -> KafkaProducer:
    """A transaction written by hand."""
    settings = {"bootstrap.servers": played.plan.servers, "transactional.id": uuid.uuid4().hex, "log_level": 0}
    producer = KafkaProducer(settings)
    producer.init_transactions(30)
    producer.begin_transaction()
    for (number, row), marked in zip(rows, marks, strict=True):
        table = played.clients.log.table(played.plan.tables[number])
        encoder = RowEncoder(table)
        key = None if number == ENTRIES else encoder.key(row)
        home = partition_of(key, table.partitions) if key else 0
        producer.produce(table.name, encoder.value(row), key, home, headers=encode(marked))
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    return producer
