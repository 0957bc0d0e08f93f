"""Which records in quarantine are written again, by tables; and that nothing newer is ever undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.consumers.atomic import Place
from merganser.consumers.batch import Poison
from merganser.pipeline.quarantine.plan import Candidate, Later, State, judge, sums
from merganser.schemas.headers import Condition, Marks
from merganser.schemas.position import Position, TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)
_PLAIN = Marks()
_AT_3 = Marks(condition=Condition("version", 3))


def candidate(
    offset: int = 5, key: bytes | None = b"k", to: TopicPartition = P0, value: bytes = b"v", **more: Any
) -> Candidate:
    poison = Poison(P0, offset, 1_000 + offset, key, b"v", "bad")
    return Candidate(poison, to, key, value, None if key is None else (key,), **more)


def later(
    last: dict[Any, tuple[int, int]] | None = None,
    retried: tuple[Place, ...] = (),
    start: int = 0,
    marks: Marks | str | None = _PLAIN,
) -> Later:
    """*marks* are those of the record at offset 5; None if compaction has taken it."""
    said = {Place(P0, n): marks if n == 5 else _PLAIN for n in range(10)}
    return Later(last or {}, set(retried), Position({P0: start}), {p: m for p, m in said.items() if m is not None})


@pytest.mark.parametrize(
    ("mine", "log", "held_back", "state"),
    [
        (candidate(), later(), (), "ready"),
        (candidate(key=None), later(), (), "ready"),
        (candidate(bad="why"), later(), (), "bad"),
        (candidate(left=True), later(), (), "left"),
        (candidate(), later({(P0, (b"k",)): (6, 0)}), (), "superseded"),
        (candidate(), later({(P0, (b"k",)): (5, 0)}), (), "ready"),  # itself
        (candidate(), later({(P1, (b"k",)): (6, 9_999)}), (), "ready"),  # another row
        (candidate(), later({(P0, (b"x",)): (6, 0)}), (), "ready"),
        (candidate(key=None), later({(P0, (b"k",)): (6, 0)}), (), "ready"),
        (candidate(to=P1), later({(P1, (b"k",)): (1, 1_005)}), (), "superseded"),  # repaired: by time
        (candidate(to=P1), later({(P1, (b"k",)): (99, 1_004)}), (), "ready"),
        (candidate(), later(), ((P0, (b"k",)),), "waiting"),
        (candidate(), later(), ((P0, (b"x",)),), "ready"),
        (candidate(), later(retried=(Place(P0, 5),)), (), "retried"),
        (candidate(), later(retried=(Place(P0, 4), Place(P1, 5))), (), "ready"),
        (candidate(), later(start=5), (), "ready"),
        (candidate(), later(start=6), (), "lost"),  # what its headers ask is gone with it
        (candidate(), later(marks=None), (), "superseded"),
        (candidate(), later(marks=Marks("tx")), (), "part"),
        (candidate(), later(marks=Marks("tx", {P0: 1, P1: 1})), (), "part"),
        (candidate(), later(marks=Marks("tx", {P0: 1})), (), "ready"),  # all of it
        (candidate(), later(marks="odd"), (), "bad"),
        (candidate(value=b"mended"), later(marks="odd"), (), "ready"),
        (candidate(), later(marks=_AT_3), (), "bad"),
        (candidate(version=2), later(marks=_AT_3), (), "bad"),
        (candidate(version=3), later(marks=_AT_3), (), "ready"),
        (candidate(bad="why"), later({(P0, (b"k",)): (6, 0)}, (Place(P0, 5),), 7), (), "retried"),
        (candidate(bad="why"), later({(P0, (b"k",)): (6, 0)}), (), "superseded"),
    ],
)
def test_what_becomes_of_a_record(mine: Candidate, log: Later, held_back: tuple[Any, ...], state: State) -> None:
    [verdict] = judge([mine], log, held_back)
    assert verdict.state == state
    assert sums([verdict]) == {state: 1}


def test_a_retry_is_for_the_row_that_was_looked_at() -> None:
    conditions = [v.condition for v in judge([candidate(), candidate(key=None), candidate(version=3)], later(), ())]
    assert conditions == [None, None, Condition("version", 3)] or conditions == [
        Condition("absent"),
        None,
        Condition("version", 3),
    ]


def test_of_two_with_one_key_the_last_is_written() -> None:
    states = [v.state for v in judge([candidate(5), candidate(9), candidate(9, b"x")], later(), ())]
    assert states == ["superseded", "ready", "ready"]


_KEYS = st.sampled_from([b"a", b"b", None])


@given(st.data())
def test_nothing_newer_is_undone_and_nothing_is_written_twice(data: st.DataObject) -> None:
    """Against the log itself: records of (offset, key, origin), those at some offsets being in quarantine."""
    log = data.draw(st.lists(st.tuples(_KEYS, st.one_of(st.none(), st.integers(0, 9))), max_size=12))
    start = data.draw(st.integers(0, 6))
    bad = data.draw(st.sets(st.integers(0, 11)))
    mine = [candidate(n, key) for n, (key, _) in enumerate(log) if n in bad]
    seen = {(P0, (key,)): (n, 1_000 + n) for n, (key, _) in enumerate(log) if key is not None and n >= start}
    retried = {Place(P0, origin) for n, (_, origin) in enumerate(log) if origin is not None and n >= start}
    said = {Place(P0, n): _PLAIN for n in range(start, len(log))}
    for verdict in judge(mine, Later(seen, retried, Position({P0: start}), said), ()):
        offset = verdict.candidate.poison.offset
        after = log[offset + 1 :]
        if verdict.state == "ready":
            key = verdict.candidate.key
            assert key is None or all(other != key for other, _ in after)
            assert Place(P0, offset) not in retried
            assert all(origin != offset for n, (_, origin) in enumerate(log) if n > offset)
