"""Lag, readiness and what is stuck, without waiting for Kafka."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.serving.monitoring.lookout import Lookout, Sight, seen
from merganser.schemas.errors import LogUnavailable, TableStopped
from merganser.schemas.kafka import Member
from merganser.schemas.position import Position, TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 0)


class Log:
    def __init__(self) -> None:
        self.end, self.stable, self.away = Position({A: 10, B: 5}), Position({A: 10, B: 5}), False
        self.groups = {"shared": (Member("one", "127.0.0.1", frozenset([A])), Member("two", "::1", frozenset([B])))}

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        if self.away:
            raise LogUnavailable("kafka:9092", "it is away")
        return self.end

    def stable_ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        return self.stable

    def members(self, group: str, timeout_s: float | None = None) -> tuple[Member, ...]:
        return self.groups[group]


class Replica:
    def __init__(self, group: str = "alone") -> None:
        self.group, self.split = group, group == "shared"
        self.position = self.read_position = Position({A: 0, B: 0})
        self.error: BaseException | None = None
        self.stopped: dict[str, TableStopped] = {}


def test_lag_is_what_is_not_applied_of_what_was_seen() -> None:
    log, replica = Log(), Replica()
    lookout = Lookout(replica, log)
    assert lookout.lag() == {} and lookout.sight.away is not None
    lookout.look()
    assert lookout.lag() == {A: 10, B: 5} and lookout.sight.away is None
    replica.position = Position({A: 12, B: 1})
    assert lookout.lag() == {A: 0, B: 4}


def test_it_is_ready_once_it_had_what_the_log_had_at_the_start() -> None:
    log, replica = Log(), Replica()
    lookout = Lookout(replica, log)
    assert "not known" in str(lookout.not_ready())
    lookout.look()
    assert "still behind" in str(lookout.not_ready())
    log.end = log.stable = Position({A: 1000, B: 5})
    lookout.look()
    replica.position = Position({A: 10, B: 5})
    assert lookout.not_ready() is None
    lookout.look()
    assert lookout.not_ready() is None  # far behind again, and readers say how fresh they want it
    log.away = True
    lookout.look()
    assert lookout.not_ready() is None and lookout.lag()[A] == 990
    replica.error = ValueError("x")
    assert lookout.not_ready() == "the apply loop ended"


def test_a_stopped_table_makes_nobody_wait_for_ever() -> None:
    log, replica = Log(), Replica()
    lookout = Lookout(replica, log)
    lookout.look()
    replica.position, replica.stopped = Position({A: 10, B: 0}), {"b": TableStopped("b", "x")}
    assert lookout.not_ready() is None


def test_partitions_that_another_member_has_by_now_make_nobody_wait() -> None:
    log, replica = Log(), Replica("shared")
    lookout = Lookout(replica, log)
    lookout.look()
    replica.position = replica.read_position = Position({A: 9})
    assert "still behind" in str(lookout.not_ready())
    replica.position = replica.read_position = Position()
    assert "no partitions" in str(lookout.not_ready())
    replica.position = replica.read_position = Position({A: 10})
    assert lookout.not_ready() is None


def test_a_log_that_is_away_before_anything_was_seen_is_told() -> None:
    log = Log()
    log.away = True
    lookout = Lookout(Replica(), log)
    lookout.look()
    assert "not known" in str(lookout.not_ready()) and lookout.lag() == {}
    assert "it is away" in str(lookout.sight.away)


def test_the_members_of_a_split_group_are_seen_and_stay_while_the_log_is_away() -> None:
    log = Log()
    lookout, alone = Lookout(Replica("shared"), log), Lookout(Replica(), log)
    lookout.look()
    alone.look()
    assert [member.id for member in lookout.sight.members] == ["one", "two"] and alone.sight.members == ()
    log.away = True
    lookout.look()
    assert len(lookout.sight.members) == 2 and lookout.sight.away


def test_what_is_stuck_grows_old_until_it_moves() -> None:
    sight = seen(Sight(), Position({A: 10}), Position({A: 7}), 100.0)
    assert (sight.stuck[A].offset, sight.stuck[A].records, sight.stuck[A].since_s) == (7, 3, 100.0)
    sight = seen(sight, Position({A: 50}), Position({A: 7}), 130.0)
    assert (sight.stuck[A].records, sight.stuck[A].since_s) == (43, 100.0)
    sight = seen(sight, Position({A: 50}), Position({A: 8}), 140.0)
    assert sight.stuck[A].since_s == 140.0
    assert seen(sight, Position({A: 50}), Position({A: 50}), 150.0).stuck == {}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_nothing_is_stuck_that_readers_can_pass(steps: list[tuple[int, int]]) -> None:
    sight = Sight()
    for at_s, (end, stable) in enumerate(steps):
        sight = seen(sight, Position({A: end}), Position({A: stable}), float(at_s))
        assert (A in sight.stuck) == (stable < end)
        if A in sight.stuck:
            since = int(sight.stuck[A].since_s)
            assert all(s == stable and s < e for e, s in steps[since : at_s + 1])
