"""DuckDB gives a store up while nothing is written: who reads meets it, and the node goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.test_duckdb import doomed
from merganser.consumers import store as stores
from merganser.consumers.apply import Applier
from merganser.consumers.dbfile import open_file
from merganser.pipeline.serving.guard.ask import Ask, ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.schemas.errors import MerganserError, StoreError
from serving.test_layers import Unlocked
from serving.world import ORDERS, World, world
from support.naive import both_ways, caught
from support.waiting import wait_for

COUNT = f"SELECT count(*) AS n FROM {ORDERS}"


@pytest.fixture
def frail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A served replica of which each store that it opens can be broken."""
    monkeypatch.setattr(stores, "open_file", lambda path, limits: Unlocked(open_file(path, limits)))
    with world(tmp_path, rows=5) as opened:
        yield opened


def answered(guard: Guard) -> bool:
    try:
        return guard.ask(Ask(COUNT)).table().to_pylist() == [{"n": 5}]
    except StoreError:
        return False


def reads(served: World) -> None:
    with served.replica.reading() as cursor:
        cursor.execute(COUNT)


@both_ways
@pytest.mark.parametrize("way", ["ask", "describe", "query", "reading"])
def test_a_store_that_fails_under_readers_is_opened_anew_though_the_log_is_still(
    naive: bool, way: str, frail: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive: it is noticed at the next commit, and until then there are errors. More often in a row than failures of
    commits end the loop."""
    if naive:
        monkeypatch.setattr(Applier, "suspect", lambda self: None)
    guard, before = Guard(frail.replica), frail.replica._store._con
    begun, begin = list[int](), frail.replica._applier.begin
    monkeypatch.setattr(frail.replica._applier, "begin", lambda: (begin(), begun.append(1)))
    ways: dict[str, Callable[[], object]] = {
        "ask": lambda: guard.ask(Ask(COUNT)),
        "describe": lambda: guard.describe(Ask(COUNT)),
        "query": lambda: frail.replica.query(COUNT),
        "reading": lambda: reads(frail),
    }
    with caught(naive):
        for _ in range(5):
            begun.clear()
            doomed(frail.replica._store._con.cursor())
            with pytest.raises(StoreError, match="reopened"):
                ways[way]()
            wait_for("the loop has begun again", lambda: bool(begun), 1 if naive else 60)
            assert answered(guard)
        assert frail.replica.error is None and frail.replica._store._con is not before
    guard.close()
    if not naive:
        frail.goes_on(77)


def test_a_failure_in_the_middle_of_an_answer_is_told_and_the_store_opened_anew(frail: World) -> None:
    guard = Guard(frail.replica, ServingLimits(answer_s=60))
    answer = guard.ask(Ask("SELECT i FROM range(1000000000000) AS r(i)"))
    answer._running.error(OSError("Invalid Error: FATAL Error: the file went away"))  # as Arrow tells of it
    before = frail.replica._store._con
    doomed(before.cursor())
    with pytest.raises(MerganserError):
        answer.table()
    answer.close()
    wait_for("the store is opened anew", lambda: frail.replica._store._con is not before and answered(guard))
    guard.close()


def test_a_store_that_is_good_is_not_opened_anew(frail: World) -> None:
    """What a reader tells may be of the one before."""
    before = frail.replica._store._con
    frail.replica.suspect()
    wait_for("it was looked at", lambda: not frail.replica._applier._suspected.is_set())
    frail.goes_on(78)
    assert frail.replica._store._con is before
