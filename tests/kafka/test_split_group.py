"""FAILURES 11 to 13: members of a split group come, go and fall asleep while rows flow."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka_tables import ROW, fill, raw_records

import merganser as mg
from merganser.consumers import kafka
from merganser.consumers.apply import Applier, BatchLimits
from support.naive import caught
from support.waiting import wait_for

PARTITIONS = 6

#: So that a loop soon waits for its worker.
SMALL = BatchLimits(records=20, poll_records=20)


@contextmanager
def flow(log: mg.Log, table: str) -> Iterator[None]:
    """Rows into *table*, without an end."""
    stopping = threading.Event()

    def write() -> None:
        with log.producer() as producer:
            number = 0
            while not stopping.wait(0.01):
                for _ in range(10):
                    number += 1
                    producer.put(table, {"id": number, "text": "flow"})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


class Members:
    """The members of one split group, each with a store of its own."""

    def __init__(self, log: mg.Log, table: str, folder: Path) -> None:
        self._log, self._table, self._folder = log, table, folder
        self.live: dict[str, mg.Replica] = {}

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *why: object) -> None:
        for member in list(self.live):
            self.leave(member)

    def join(
        self, member: str, on_step: Callable[[str], None] = lambda step: None, batches: BatchLimits = SMALL
    ) -> None:
        self.live[member] = mg.Replica(
            self._folder / member, self._log, self._table, [self._table], split=True, batches=batches, on_step=on_step
        )

    def leave(self, member: str) -> None:
        self.live.pop(member).close()

    def wait_for_a_split(self) -> None:
        """Every partition is with exactly one of the live members, and each has some."""

        def split() -> bool:
            for replica in self.live.values():
                assert replica.error is None, replica.error
            held = Counter(tp for replica in self.live.values() for tp in replica.position)
            busy = all(replica.position for replica in self.live.values())
            return busy and len(held) == PARTITIONS and set(held.values()) == {1}

        wait_for(f"{sorted(self.live)} share the partitions", split)

    def check(self, broker: str) -> None:
        """The members' rows together are the log's records, each once."""
        wanted = Counter((m.partition(), m.offset()) for m in raw_records(broker, self._table, PARTITIONS))
        ends = self._log.ends([mg.TopicPartition(self._table, p) for p in range(PARTITIONS)])
        found: Counter[tuple[int | None, int | None]] = Counter()
        for replica in self.live.values():
            replica.wait(mg.Position({tp: ends[tp] for tp in replica.position}))
            found.update(replica.query(f'SELECT _partition, _offset FROM "{self._table}"').rows())
        assert found == wanted


@pytest.fixture
def members(log: mg.Log, name: str, tmp_path: Path) -> Iterator[Members]:
    log.create_table(name, ROW, partitions=PARTITIONS)
    with Members(log, name, tmp_path) as group:
        yield group


def test_many_rebalances_lose_and_double_nothing(log: mg.Log, broker: str, name: str, members: Members) -> None:
    with flow(log, name):
        members.join("a")
        members.wait_for_a_split()
        for turn in range(2):
            members.join("b")
            if turn == 1:
                members.join("c")  # before b has settled
            members.wait_for_a_split()
            for member in [m for m in members.live if m != "a"]:
                members.leave(member)
            members.wait_for_a_split()
        members.join("b")
        members.leave("a")
        members.join("c")
        members.wait_for_a_split()
    members.check(broker)


def test_a_member_that_comes_back_reads_from_its_stores_offsets(
    log: mg.Log, broker: str, name: str, members: Members
) -> None:
    """Handed to assign: librdkafka refuses a seek within on_assign ("Erroneous state"), so nobody could do it."""
    for _ in range(2):
        fill(log, name, range(200))
        members.join("a")
        members.wait_for_a_split()
        members.check(broker)
        members.leave("a")


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group takes the partitions of a member that has not polled for 4 s."""
    exact = kafka.reader_config
    quick = {"max.poll.interval.ms": 4000, "group.protocol": "consumer"}
    monkeypatch.setattr(kafka, "reader_config", lambda *a: {**exact(*a), **quick})


@pytest.mark.slow
def test_a_member_that_fell_asleep_writes_nothing_of_what_it_lost(
    log: mg.Log, broker: str, name: str, short_patience: None, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hangs in a commit keeps the loop from polling: the group takes its partitions away."""
    lost = Applier.lost
    losses: list[int] = []

    def counted(self: Applier, partitions: Collection[mg.TopicPartition]) -> None:
        losses.append(len(partitions))
        lost(self, partitions)

    monkeypatch.setattr(Applier, "lost", counted)
    awake = threading.Event()
    awake.set()

    def sleepy(step: str) -> None:
        if step == "begun":
            awake.wait(60)

    with flow(log, name):
        members.join("a", sleepy)
        members.join("b")
        members.wait_for_a_split()
        awake.clear()
        wait_for("b has everything", lambda: len(members.live["b"].position) == PARTITIONS, timeout_s=60)
        awake.set()
        members.wait_for_a_split()
    assert losses
    members.check(broker)


class Sleeper:
    """A member whose worker hangs in a commit, and whose loop then stops with rows collected.

    It wakes when it is told to, the worker not before the loop was told of its loss.
    """

    def __init__(self) -> None:
        self.losses: list[int] = []
        """The records collected and not yet written, at each loss."""
        self.written = 0
        """The batches begun after a loss, before partitions were gained again."""
        self._lost = False
        self._loop_goes, self._worker_goes = threading.Event(), threading.Event()
        self._loop_goes.set()
        self._worker_goes.set()

    def fall_asleep(self) -> None:
        self._loop_goes.clear()
        self._worker_goes.clear()

    def wake(self) -> None:
        self._loop_goes.set()

    def on_step(self, step: str) -> None:
        if step == "begun":
            self.written += self._lost
            self._worker_goes.wait(60)

    def watch(self, loop: Applier, naive: bool, patch: pytest.MonkeyPatch) -> None:
        housekeeping, gained = loop._housekeeping, loop.gained
        told = loop.revoked if naive else loop.lost

        def nap() -> None:
            housekeeping()
            if not loop._idle and loop._collector.records:
                self._loop_goes.wait(60)

        def lost(partitions: Collection[mg.TopicPartition]) -> None:
            self._lost = True
            self.losses.append(loop._collector.records)
            self._worker_goes.set()
            told(partitions)

        def gained_again(partitions: Collection[mg.TopicPartition]) -> mg.Position:
            self._lost = False
            return gained(partitions)

        for name, instead in (("_housekeeping", nap), ("lost", lost), ("gained", gained_again)):
            patch.setattr(loop, name, instead)


@pytest.mark.parametrize(
    "naive", [pytest.param(False, id="ours"), pytest.param(True, id="naive", marks=pytest.mark.slow)]
)
def test_what_was_collected_and_then_lost_is_not_written(
    log: mg.Log, broker: str, name: str, short_patience: None, members: Members, naive: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sleeper = Sleeper()
    with flow(log, name):
        members.join("a", sleeper.on_step, BatchLimits())
        sleeper.watch(members.live["a"]._applier, naive, monkeypatch)
        members.join("b")
        members.wait_for_a_split()
        sleeper.fall_asleep()
        wait_for("b has everything", lambda: len(members.live["b"].position) == PARTITIONS, timeout_s=60)
        sleeper.wake()
        members.wait_for_a_split()
    assert sleeper.losses and sleeper.losses[0] > 0
    with caught(naive):
        assert not sleeper.written
    members.check(broker)
