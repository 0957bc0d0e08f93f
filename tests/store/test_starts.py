"""Where a store may go on, by the clocks of the host that it ran on."""

from __future__ import annotations

import pytest

from merganser.consumers.checks import Stored, next_start
from merganser.schemas.errors import TombstonesLost
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import Table

TP = TopicPartition("t", 0)
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def start(caught_up_ms: int, end: int = 20, compacted: bool = True) -> int:
    table = Table("t", "id", 1, (), compacted=compacted, delete_retention_ms=DAY_MS)
    stored = Stored("id", 1, 10, caught_up_ms, range(0), 10, None)
    return next_start(table, TP, stored, Position({TP: 0}), Position({TP: end}), NOW_MS)


@pytest.mark.parametrize("caught_up_ms", [NOW_MS - DAY_MS, NOW_MS, NOW_MS + 30_000])
def test_a_store_that_was_away_for_a_while_goes_on(caught_up_ms: int) -> None:
    assert start(caught_up_ms) == 10


@pytest.mark.parametrize("caught_up_ms", [NOW_MS - DAY_MS - 1, NOW_MS + 61_000, NOW_MS + 400 * DAY_MS])
def test_deletes_may_be_lost_if_it_was_away_too_long_or_no_clock_tells(caught_up_ms: int) -> None:
    """A clock that was ahead, and is right again, says nothing of the time in between."""
    with pytest.raises(TombstonesLost):
        start(caught_up_ms)
    assert start(caught_up_ms, compacted=False) == 10
    assert start(caught_up_ms, end=10) == 10  # nothing came meanwhile
