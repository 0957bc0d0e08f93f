"""What a replay will do is decided before anything is read, and said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.consumers.checks import Held
from merganser.consumers.derived import Derived
from merganser.pipeline.replay.plan import Facts, ReplayPlan, Wish, plan_replay
from merganser.schemas.errors import UnknownTable, UsageError
from merganser.schemas.position import Position, TopicPartition

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


def held(first: int, next_: int) -> Held:
    return Held("id", first, next_, range(0))


HELD = {A0: held(0, 10), A1: held(0, 20), B0: held(0, 30)}
SHADOW = Derived("s", "a", "id", Position(), Position({A0: 5, A1: 5}), "m:f", 3, True)
OLD = Derived("gone", "gone", "id", Position(), Position(), "m:f", 3, True)
FACTS = Facts(HELD, {}, {"s": SHADOW, "gone": OLD}, ("a", "b", "s", "gone", "mine"))


def planned(
    wish: Wish, facts: Facts = FACTS, since: Position | None = None, target: Position | None = None
) -> ReplayPlan:
    begin = Position({tp: each.first for tp, each in facts.held.items()})
    return plan_replay(wish, facts, begin, since or Position(), target or facts.position, "Kafka")


def wish(**more: object) -> Wish:
    return Wish(**{"table": "a", "into": "new", "swap": True, **more})  # type: ignore[arg-type]


# -- what it becomes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "since", "target", "becomes"),
    [
        (wish(), {}, {}, "replica"),
        (wish(swap=False), {}, {}, ""),
        (wish(), {A0: 0, A1: 0}, {}, "replica"),  # nothing lies below
        (wish(), {A0: 1, A1: 0}, {}, "derived"),
        (wish(transform="m:f"), {}, {}, "derived"),
        (wish(), {}, {A0: 9}, "derived"),
        (wish(), {}, {A1: 21}, "derived"),
        (wish(), {}, {B0: 29}, "derived"),  # what a shows depends on how far b is
        (wish(table="gone", into="new"), {}, {}, "derived"),
    ],
)
def test_it_stays_a_replica_only_if_nothing_differs_from_what_the_loop_would_have_made(
    of: Wish, since: dict[TopicPartition, int], target: dict[TopicPartition, int], becomes: str
) -> None:
    plan = planned(of, since=Position(since), target=Position({**FACTS.position, **target}))
    assert plan.becomes == becomes


_OFFSETS = st.integers(0, 30)


@given(st.data())
def test_a_replica_is_exactly_the_store_at_its_own_position(data: st.DataObject) -> None:
    firsts = {tp: data.draw(_OFFSETS) for tp in HELD}
    mine = {tp: held(first, first + data.draw(_OFFSETS)) for tp, first in firsts.items()}
    facts = Facts(mine, {}, {}, ("a", "b"))
    target = Position({tp: each.first + data.draw(_OFFSETS) for tp, each in mine.items()})
    target = facts.position if data.draw(st.booleans()) else target
    since = Position({tp: data.draw(st.integers(0, target[tp])) for tp in (A0, A1)})
    since = since if data.draw(st.booleans()) else Position()
    transform = data.draw(st.sampled_from(["", "m:f"]))
    plan = planned(wish(transform=transform), facts, since, target)
    all_rows = all(since.get(tp, 0) <= firsts[tp] for tp in (A0, A1))
    assert (plan.becomes == "replica") == (not transform and all_rows and target == facts.position)
    assert plan.offsets == sum(target[tp] - firsts[tp] for tp in (A0, A1))
    assert plan.beside == {"b": target[B0] - firsts[B0]}
    for text in plan.lines():
        assert text and "\n" not in text


def test_it_says_what_will_be_read_and_written_and_how_the_swap_would_look() -> None:
    text = "\n".join(planned(wish(transform="m:f"), since=Position({A0: 4, A1: 0})).lines())
    for part in ("a/0:0,a/1:0 up to a/0:10,a/1:20", "30 offsets", "b (30)", "a/0:4", "m:f", "new becomes a, a derived"):
        assert part in text
    assert "an earlier shadow" in "\n".join(planned(wish(into="s")).lines())
    assert "would stay a replica" in "\n".join(planned(wish(), since=Position({A0: 4, A1: 0})).lines())
    assert "a stays as it is" in "\n".join(planned(wish(swap=False)).lines())


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["", "a", "A", "b", "B", "mine", "MINE", "S", "_x", "gone", " x", 'x"y'])
def test_a_shadow_never_has_the_name_of_something_else(into: str) -> None:
    with pytest.raises(UsageError):
        planned(wish(into=into))


@pytest.mark.parametrize("table", ["nothing", "mine", "s", "A"])
def test_only_a_table_of_the_store_can_be_replayed(table: str) -> None:
    with pytest.raises(UnknownTable):
        planned(wish(table=table))


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--from lies beyond --to"):
        planned(wish(), since=Position({A0: 11, A1: 0}))
    late = Facts({A0: held(5, 10), A1: held(0, 20)}, {}, {}, ("a",))
    with pytest.raises(UsageError, match="before the store's beginning"):
        planned(wish(), late, target=Position({A0: 4, A1: 20}))
