"""However much one user asks, the others are answered."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.guard import guard as guards
from merganser.pipeline.serving.guard.ask import Ask, ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.pipeline.serving.guard.pause import Pause
from merganser.pipeline.serving.guard.places import Places, Waiter, makes_way, next_of
from merganser.schemas.errors import QueryCancelled, TooBusy
from merganser.schemas.kafka import Deadline
from serving.test_guard import STANDING
from serving.world import World
from support.naive import both_ways, caught
from support.waiting import wait_for


@pytest.mark.parametrize(
    ("queue", "held", "size", "turn"),
    [
        ("", {}, 4, None),
        ("a", {}, 4, 0),
        ("ab", {}, 4, 0),
        ("aab", {"a": 1}, 4, 2),
        ("aab", {"a": 2, "b": 1}, 4, 2),
        ("aab", {"a": 2, "b": 2}, 4, None),
        ("aa", {"a": 3}, 4, None),
        ("aab", {"a": 3}, 4, 2),
        ("a", {}, 1, 0),
        ("a", {"b": 1}, 1, None),
        ("..", {".": 3}, 4, 0),
        ("..", {".": 4}, 4, None),
    ],
)
def test_the_turn_is_of_who_has_least_and_then_of_who_came_first(
    queue: str, held: dict[str, int], size: int, turn: int | None
) -> None:
    """A point is somebody without a name."""
    waiting = waiters(queue)
    has = {named(user): n for user, n in held.items()}
    assert next_of(waiting, has, size) is (None if turn is None else waiting[turn])


@pytest.mark.parametrize(
    ("queue", "user", "leaves"),
    [("aaa", "a", None), ("aaa", "b", 2), ("aab", "b", None), ("aaab", "b", 2), ("abab", "a", None), ("abab", "c", 2)],
)
def test_a_full_queue_is_shared_alike(queue: str, user: str, leaves: int | None) -> None:
    waiting = waiters(queue)
    assert makes_way(waiting, user) is (None if leaves is None else waiting[leaves])


def named(letter: str) -> str | None:
    return None if letter == "." else letter


def waiters(queue: str) -> list[Waiter]:
    return [Waiter(named(letter)) for letter in queue]


@given(st.lists(st.sampled_from("abc."), max_size=40), st.integers(1, 6), st.integers(1, 8))
def test_whoever_comes_in_whichever_order_everybody_gets_a_turn_in_the_end(
    users: list[str], size: int, queued: int
) -> None:
    """Each that is let in runs and leaves; nobody is forgotten, and nobody named has all the places."""
    queue: list[Waiter] = []
    running: list[Waiter] = []
    held: Counter[str | None] = Counter()
    done = sent = 0
    coming = [Waiter(named(letter)) for letter in users]
    while coming or queue or running:
        if coming:
            waiter = coming.pop()
            if len(queue) >= queued:
                leaves = makes_way(queue, waiter.user)
                sent += 1
                if leaves is not None:
                    queue.remove(leaves)
                    queue.append(waiter)
            else:
                queue.append(waiter)
        while (turn := next_of(queue, held, size)) is not None:
            queue.remove(turn)
            running.append(turn)
            held[turn.user] += 1
        assert held.total() <= size
        assert all(n < size for user, n in held.items() if user is not None) or size == 1
        if running:
            held[running.pop(0).user] -= 1
            done += 1
    assert done + sent == len(users)


def test_places_that_are_given_back_are_there_again() -> None:
    few = Places(2, 1, Pause(2**30, 1.0), lambda: 0)
    for _ in range(5):
        few.take(Deadline(1), "a")
        few.take(Deadline(1), "b")
        with pytest.raises(TooBusy, match="2 queries run"):
            few.take(Deadline(0.01), "c")
        few.give("a")
        few.give("b")
    assert few.used == few.waiting == 0


class Naive(Places):
    """First come, first served, whoever it is."""

    def take(self, deadline: Deadline, user: str | None = None) -> None:
        super().take(deadline, None)

    def give(self, user: str | None = None) -> None:
        super().give(None)


@both_ways
def test_a_greedy_user_locks_nobody_out(naive: bool, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """He has as many running as may, and as many waiting: another one is answered at once, and again and again."""
    if naive:
        monkeypatch.setattr(guards, "Places", Naive)
    guard = Guard(served.replica, ServingLimits(running=3, queued=6, queue_s=60, answers=32))
    greedy = [threading.Thread(target=ask, args=(guard,)) for _ in range(9 if naive else 8)]
    for client in greedy:
        client.start()
    wait_for("he has what he can have", lambda: guard.counts().running + guard.counts().waiting == len(greedy))
    with caught(naive):
        for _ in range(20):
            with guard.ask(Ask("SELECT 1 AS a", timeout=1 if naive else 30), user="modest") as answer:
                assert answer.table().to_pylist() == [{"a": 1}]
    guard.close()
    for client in greedy:
        client.join()


def ask(guard: Guard) -> None:
    with suppress(TooBusy, QueryCancelled), guard.ask(Ask(STANDING, timeout=60), user="greedy") as answer:
        answer.wait()


def test_a_user_who_keeps_answers_open_leaves_some_to_others(served: World) -> None:
    guard = Guard(served.replica, ServingLimits(answers=8))
    kept = [guard.ask(Ask("SELECT 1"), user="greedy") for _ in range(6)]
    with pytest.raises(TooBusy, match="by you"):
        guard.ask(Ask("SELECT 1"), user="greedy")
    with guard.ask(Ask("SELECT 1"), user="modest") as answer:
        assert answer.table().num_rows == 1
    kept.pop().close()
    guard.ask(Ask("SELECT 1"), user="greedy").close()
    kept += [guard.ask(Ask("SELECT 1")) for _ in range(3)]  # who has no name may have all that is there
    with pytest.raises(TooBusy, match="answers are being read"):
        guard.ask(Ask("SELECT 1"))
    for each in kept:
        each.close()
    guard.close()
