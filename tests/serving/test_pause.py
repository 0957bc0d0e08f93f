"""The WAL of a store that is always read stays small, and who reads hardly notices."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from merganser.consumers.dbfile import size_of, wal_of
from merganser.pipeline.serving.guard import pause as pauses
from merganser.pipeline.serving.guard.ask import Ask, ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.pipeline.serving.guard.pause import COMMIT_S, FIRST_S, Pause
from merganser.schemas.errors import QueryCancelled, TooBusy, UsageError
from serving.world import ORDERS, World, world
from support.naive import both_ways, caught
from support.waiting import wait_for

MIB = 2**20


class Story:
    """A pause at 100 bytes of WAL, 8 seconds at most, told look by look."""

    def __init__(self) -> None:
        self.pause, self.now_s = Pause(100, 8.0), 0.0

    def look(self, wal: int, running: int, after_s: float = 0.01) -> bool:
        self.now_s += after_s
        return self.pause.holds(wal, running, self.now_s)

    def held_s(self, wal: int, running: int) -> float:
        """How long nobody is let in from now on, while nothing changes."""
        began_s = self.now_s
        while self.look(wal, running):
            pass
        return self.now_s - began_s


def test_nobody_is_let_in_from_the_limit_on_until_the_store_was_checkpointed() -> None:
    story = Story()
    assert not story.look(99, running=3)
    assert story.look(100, running=3) and story.look(140, running=1) and story.look(150, running=0)
    assert not story.look(5, running=0)
    assert story.pause.times == 1 and story.pause.seconds == pytest.approx(0.03)
    assert not story.look(99, running=3) and story.look(100, running=3)


def test_who_runs_on_is_waited_for_twice_as_long_each_time_until_it_must_have_ended() -> None:
    story, wal, waited = Story(), 100, []
    for _ in range(6):
        waited.append(story.held_s(wal, running=1))
        assert not story.look(wal + 99, running=1), "until the WAL has grown by the limit again"
        wal += 100
    assert waited == pytest.approx([FIRST_S, 2.0, 4.0, 8.0, 8.0, 8.0], abs=0.03)
    assert not story.look(0, running=0)
    assert story.held_s(100, running=1) == pytest.approx(FIRST_S, abs=0.03), "after a checkpoint all begins again"


def test_what_no_query_holds_back_is_not_waited_for_longer_each_time() -> None:
    """A backup reads, or nothing is written."""
    story = Story()
    assert story.held_s(100, running=0) == pytest.approx(COMMIT_S, abs=0.03)
    assert not story.look(199, running=0)
    assert story.held_s(200, running=0) == pytest.approx(COMMIT_S, abs=0.03)


def test_a_pause_that_nobody_looks_at_is_no_longer_than_it_would_have_been() -> None:
    """Who waits may give up: what comes next may come an hour later."""
    story = Story()
    assert story.look(100, running=1)
    assert not story.look(0, running=0, after_s=3600)
    assert story.pause.times == 1 and story.pause.seconds <= FIRST_S + COMMIT_S


def test_a_limit_that_duckdb_itself_does_not_come_to_is_refused() -> None:
    with pytest.raises(UsageError, match="32 MiB"):
        ServingLimits(wal=16 * MIB)


class Reader:
    """A query that runs until it is told to end."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self._gone = guard, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with pytest.raises(QueryCancelled):
            self._guard.ask(Ask(f"SELECT count(*) FROM {ORDERS}, range(1000000000000)"), gone=self._gone)

    def end(self) -> None:
        self._gone.set()
        self._thread.join()


def write(served: World, first: int, mib: int) -> None:
    """Commit *mib* of rows."""
    for n in range(first, first + mib):
        served.put(ORDERS, n, sku="x" * MIB)
    served.replica.wait(served.end)


@both_ways
def test_the_wal_is_bounded_though_there_is_always_a_query(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends once the next one runs, or has to wait. Naive: nobody ever has to."""
    monkeypatch.setattr(pauses, "FIRST_S", 60.0)
    monkeypatch.setattr(pauses, "COMMIT_S", 60.0)
    if naive:
        monkeypatch.setattr(Pause, "holds", lambda *args: False)
    with world(tmp_path, rows=10) as served:
        wal, largest = wal_of(served.path), 0
        guard = Guard(served.replica, ServingLimits(wal=32 * MIB, queue_s=60))
        reader = Reader(guard)
        for round_ in range(18):
            after = Reader(guard)
            wait_for("the next runs, or waits", lambda: guard.counts().running == 2 or guard.counts().waiting == 1)
            reader.end()
            reader = after
            write(served, 1000 + 4 * round_, 4)
            wait_for("it runs", lambda: guard.counts().running == 1)
            largest = max(largest, size_of(wal))
        reader.end()
        with caught(naive):
            assert largest < 60 * MIB
        assert naive or guard.counts().pauses > 0
        guard.close()


def test_who_waits_for_a_checkpoint_in_vain_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pause, "holds", lambda *args: True)
    monkeypatch.setattr(Pause, "on", True)
    with world(tmp_path, rows=1) as served:
        guard = Guard(served.replica, ServingLimits(queue_s=0.1))
        with pytest.raises(TooBusy, match=r"checkpointed; waited 0\.1 s"):
            guard.ask(Ask("SELECT 1"))
        guard.close()
