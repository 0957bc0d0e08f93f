"""What is made of each failure on the way to a commit, with librdkafka played by a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from merganser.producers import commit
from merganser.producers.commit import Step, TransactionalClient, Transactions, after_commit_error
from merganser.producers.options import ProducerOptions
from merganser.producers.transaction import Record, TransactionWrite
from merganser.producers.write import Failures, Lane
from merganser.schemas.errors import CommitInDoubt, LogUnavailable, MerganserError, ProducerFenced, RolledBack
from merganser.schemas.kafka import Deadline
from merganser.schemas.position import Position, TopicPartition


def error(code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> KafkaError:
    return KafkaError(code, "said by Kafka", fatal, retriable, abort)


FENCED = error(KafkaError._FENCED, fatal=True)
FATAL = error(KafkaError.INVALID_TXN_STATE, fatal=True)
TIMED_OUT = error(KafkaError._TIMED_OUT, retriable=True)
PASSING = error(KafkaError._STATE, retriable=True)
MUST_ABORT = error(KafkaError._INCONSISTENT, abort=True)
OTHER = error(KafkaError.UNKNOWN)
LATE = error(KafkaError._MSG_TIMED_OUT)
FULL = "the buffer is full"


@pytest.mark.parametrize(
    ("raised", "out_of_time", "step"),
    [
        (MUST_ABORT, False, Step.ABORT),
        (PASSING, False, Step.AGAIN),
        (PASSING, True, Step.DOUBT),
        (TIMED_OUT, False, Step.DOUBT),
        (FATAL, False, Step.DOUBT),
        (FENCED, False, Step.DOUBT),
        (OTHER, False, Step.DOUBT),
    ],
)
def test_what_to_do_after_a_failed_commit(raised: KafkaError, out_of_time: bool, step: Step) -> None:
    assert after_commit_error(raised, out_of_time) is step


class Scripted:
    """A librdkafka client that fails where *script* says; each failure once, in order."""

    script: dict[str, list[Any]]
    made: list[Scripted]

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.calls: list[str] = []
        self.purged = False
        self.made.append(self)

    def _step(self, name: str) -> Any:
        assert not self.purged, "a destroyed client is used"
        self.calls.append(name)
        due = self.script.get(name, [])
        found = due.pop(0) if due else None
        if isinstance(found, KafkaError):
            raise KafkaException(found)
        return found

    def init_transactions(self, timeout: float) -> None:
        self._step("init")

    def begin_transaction(self) -> None:
        self._step("begin")

    def produce(self, *row: Any, on_delivery: Callable[..., None], headers: Any) -> None:
        if self._step("produce") == FULL:
            raise BufferError
        found = self._step("report")
        if found != "none":
            on_delivery(*found) if found else on_delivery(None, Message())

    def poll(self, timeout: float) -> None:
        self._step("poll")

    def flush(self, timeout: float) -> int:
        return self._step("flush") or 0

    def commit_transaction(self, timeout: float) -> None:
        assert timeout > 0
        self._step("commit")

    def abort_transaction(self, timeout: float) -> None:
        assert timeout > 0
        self._step("abort")

    def purge(self) -> None:
        self.purged = True


class Message:
    def offset(self) -> int:
        return 7


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Any]]]:
    monkeypatch.setattr(commit, "KafkaProducer", Scripted)
    Scripted.script, Scripted.made = {}, []
    yield Scripted.script
    assert not any(Scripted.script.values()), "the script went on"


def client(shared: bool = False) -> TransactionalClient:
    settings = {"bootstrap.servers": "nowhere", "message.timeout.ms": 30_000, "socket.timeout.ms": 10_000}
    return TransactionalClient(settings, "shop", shared=shared, timeout_s=1, init_timeout_s=1)


def records() -> list[Record]:
    home = TopicPartition("t", 0)
    return [Record(home, None, b"v", None, TransactionWrite("t", "tx", ())) for _ in range(2)]


def failed_report(why: KafkaError) -> tuple[KafkaError, Message]:
    return (why, Message())


CASES: list[tuple[dict[str, list[Any]], type[MerganserError] | None, list[str]]] = [
    # where it fails, what the caller is told, and the calls after the records were produced
    ({}, None, ["flush", "commit"]),
    ({"produce": [FULL, FULL]}, None, ["flush", "commit"]),
    ({"init": [TIMED_OUT]}, RolledBack, []),
    ({"begin": [OTHER]}, RolledBack, ["abort"]),
    ({"begin": [OTHER], "abort": [OTHER]}, RolledBack, ["abort"]),
    ({"begin": [FATAL]}, RolledBack, []),
    ({"produce": [OTHER]}, RolledBack, ["abort"]),
    ({"report": [failed_report(OTHER)]}, RolledBack, ["flush", "abort"]),
    ({"report": [failed_report(LATE)]}, RolledBack, ["flush"]),
    ({"report": ["none"]}, RolledBack, ["flush"]),
    ({"flush": [1]}, RolledBack, ["flush"]),
    ({"flush": [FATAL]}, RolledBack, ["flush"]),
    ({"commit": [MUST_ABORT]}, RolledBack, ["flush", "commit", "abort"]),
    ({"commit": [MUST_ABORT], "abort": [FATAL]}, CommitInDoubt, ["flush", "commit", "abort"]),
    ({"commit": [MUST_ABORT], "abort": [TIMED_OUT]}, CommitInDoubt, ["flush", "commit", "abort"]),
    ({"commit": [PASSING, PASSING]}, None, ["flush", "commit", "commit", "commit"]),
    ({"commit": [PASSING, FATAL]}, CommitInDoubt, ["flush", "commit", "commit"]),
    ({"commit": [TIMED_OUT]}, CommitInDoubt, ["flush", "commit"]),
    ({"commit": [OTHER]}, CommitInDoubt, ["flush", "commit"]),
    ({"commit": [FENCED]}, CommitInDoubt, ["flush", "commit"]),
]


@pytest.mark.parametrize(("due", "told", "ending"), CASES)
@pytest.mark.parametrize("shared", [False, True])
def test_each_failure_is_told_as_what_it_is(
    script: dict[str, list[Any]],
    shared: bool,
    due: dict[str, list[Any]],
    told: type[MerganserError] | None,
    ending: list[str],
) -> None:
    script.update({name: list(steps) for name, steps in due.items()})
    ours = client(shared)
    if told is None:
        ours.commit("tx", records())
    else:
        with pytest.raises(told) as caught:
            ours.commit("tx", records())
        assert caught.value.tx == "tx"  # type: ignore[attr-defined]
    calls = [call for call in Scripted.made[0].calls if call not in ("init", "begin", "produce", "report", "poll")]
    assert calls == ending
    assert Scripted.made[0].purged is (told is not None), "a client that failed is not used again"
    if shared and due.get("commit") == [FENCED]:
        with pytest.raises(ProducerFenced):
            ours.commit("next", records())
    else:
        ours.commit("next", records())


@pytest.mark.parametrize("where", ["begin", "produce", "flush"])
def test_fenced_before_the_commit_is_fenced_for_good(script: dict[str, list[Any]], where: str) -> None:
    script[where] = [FENCED]
    ours = client(shared=True)
    for _ in range(2):
        with pytest.raises(ProducerFenced, match="shop"):
            ours.commit("tx", records())
    assert len(Scripted.made) == 1, "a zombie that began anew would fence its successor"


def test_where_nobody_else_has_the_id_fenced_means_too_late(script: dict[str, list[Any]]) -> None:
    script["flush"] = [FENCED]
    ours = client()
    with pytest.raises(RolledBack, match="longer than its 1 s"):
        ours.commit("tx", records())
    ours.commit("next", records())


def test_fencing_is_found_where_only_the_abort_tells_of_it(script: dict[str, list[Any]]) -> None:
    script.update({"produce": [error(KafkaError._FATAL)], "abort": [FENCED]})
    with pytest.raises(ProducerFenced):
        client(shared=True).commit("tx", records())


def test_an_error_raised_among_callbacks_is_found(script: dict[str, list[Any]]) -> None:
    """confluent-kafka raises a fatal error while callbacks run; Python makes a SystemError of it."""
    try:
        try:
            raise KafkaException(FENCED)
        except KafkaException as inner:
            raise SystemError("a result with an exception set") from inner
    except SystemError as raised:
        assert commit.kafka_error(raised) is not None
    assert commit.kafka_error(ValueError()) is None


def test_an_interrupt_leaves_no_client_behind(script: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Scripted, timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scripted, "commit_transaction", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        client().commit("tx-5", records())
    assert "tx-5 may or may not" in caught.value.__notes__[0]
    assert Scripted.made[0].purged


def test_a_buffer_that_stays_full_is_a_rollback(script: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Scripted, *row: Any, **more: Any) -> None:
        raise BufferError

    monkeypatch.setattr(Scripted, "produce", full)
    monkeypatch.setattr(commit, "Deadline", lambda _: Deadline(0))
    with pytest.raises(RolledBack, match="full"):
        client().commit("tx", records())


def test_no_broker_at_the_making_is_told_as_that(script: dict[str, list[Any]]) -> None:
    script["init"] = [TIMED_OUT]
    with pytest.raises(LogUnavailable, match="nowhere"):
        client().open()


# -- where a transaction lies ----------------------------------------------------------------


class Ends:
    """A cluster that tells the ends of partitions, or is away."""

    away = False
    cluster = property(lambda self: self)

    def ends(self, partitions: set[TopicPartition]) -> Position:
        if self.away:
            raise LogUnavailable("nowhere", "away")
        return Position(dict.fromkeys(partitions, 50))


class Plain:
    """The rest of a producer."""

    def __init__(self) -> None:
        self.found = Lane("t", None, None, Failures())  # type: ignore[arg-type]

    def lane(self, table: str) -> Lane:
        return self.found


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("committed", [False, True])
def test_a_record_acknowledged_without_an_offset_is_covered(
    script: dict[str, list[Any]], away: bool, committed: bool
) -> None:
    plain, ends = Plain(), Ends()
    ends.away = away
    settings = {"bootstrap.servers": "nowhere", "message.timeout.ms": 30_000, "socket.timeout.ms": 10_000}
    ours = Transactions(plain, ends, settings, ProducerOptions(), None)  # type: ignore[arg-type]
    sent = records()
    sent[0].report(None, Message())  # type: ignore[arg-type]
    assert ours.settle(sent[:1], committed=committed) == Position.past("t", 0, 7)
    at_zero, at_one = TopicPartition("t", 0), TopicPartition("t", 1)
    lost = Record(at_one, None, b"v", None, TransactionWrite("t", "tx", ()), acknowledged=True)
    known = ours.settle([sent[0], lost], committed=committed)
    assert known == (None if away else Position({at_zero: 8, at_one: 50}))
    assert ours.position.get(at_zero) == (8 if committed else None)
    assert plain.found.unplaced == ({1} if away and committed else set()), "flush asks again"
