"""A run that is watched says why a table stopped, and what it waits for: once, and without being asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from merganser.pipeline.cli.watching import Looks, PlainLines, Status, Stop, Stuck, watch
from merganser.schemas.errors import LogUnavailable, PartitionsChanged, TableStopped, TopicRecreated
from merganser.schemas.hanging import OpenTransaction
from merganser.schemas.position import Position, TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 0)
GONE, GREW = TopicRecreated("a", "the topic was deleted"), PartitionsChanged("b", "5 partitions, it had 4")


@dataclass
class Followed:
    position: Position = field(default_factory=lambda: Position({A: 3, B: 3}))
    error: BaseException | None = None
    stopped: dict[str, TableStopped] = field(default_factory=dict)
    waiting_for: str | None = None


@dataclass
class Log:
    end: Position = field(default_factory=lambda: Position({A: 3, B: 3}))
    open: dict[TopicPartition, int] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float) -> Position:
        if self.away:
            raise LogUnavailable("b:1", "away")
        return self.end

    def open_transactions(self, partitions: Collection[TopicPartition], timeout_s: float) -> list[OpenTransaction]:
        self.asked += 1
        if self.away:
            raise LogUnavailable("b:1", "away")
        return [OpenTransaction(tp, self.open[tp], 7) for tp in partitions if tp in self.open]


class Screen(PlainLines):
    """Ends the watch at the third look."""

    every_s = 0.0

    def __init__(self) -> None:
        self.shown, self.warned = 0, list[str]()

    def show(self, status: Status) -> None:
        self.shown += 1
        if self.shown == 3:
            raise Stop

    def warn(self, line: str) -> None:
        self.warned.append(line)


def watched(followed: Followed, log: Any, end: Position | None = None) -> list[str]:
    screen = Screen()
    with pytest.raises((Stop, TableStopped)):
        watch(followed, log, screen, 0.001, end)
    return [line for line in screen.warned if not line.startswith("stopping")]


def test_why_a_table_stopped_is_told_once_with_the_way_out_while_the_others_go_on() -> None:
    said = watched(Followed(stopped={"a": GONE}), Log())
    assert said == ["warning: table 'a' stopped: the topic was deleted", f"hint: {GONE.hint}"]


def test_of_several_tables_that_stopped_the_last_words_are_of_one_and_the_others_are_told_before() -> None:
    end = Position({A: 9, B: 9})
    said = watched(Followed(stopped={"a": GONE, "b": GREW}), Log(end), end)
    assert said == ["warning: table 'b' stopped: 5 partitions, it had 4", f"hint: {GREW.hint}"]


def test_what_ends_the_run_does_not_keep_the_other_tables_reasons_back() -> None:
    said = watched(Followed(stopped={"a": GONE, "b": GREW}, error=GREW), Log())
    assert said == ["warning: table 'a' stopped: the topic was deleted", f"hint: {GONE.hint}"]


def test_a_transaction_that_was_left_open_is_told_once() -> None:
    stuck = Stuck(Log(open={A: 3}))  # type: ignore[arg-type]
    assert stuck.look({A: 3, B: 3}) == [], "it has just come there"
    stuck.after_s = 0
    assert stuck.look({A: 3, B: 3}) == [
        "a/0 has had a transaction open since offset 3, written 7 s ago: nobody reads past it before it ends"
    ]
    assert stuck.look({A: 3, B: 3}) == []


def test_a_log_that_is_away_is_not_asked_a_second_thing() -> None:
    log: Any = Log(Position({A: 9}))
    looks = Looks(Followed(), log, "applied", dict)
    assert looks.look().lag == 6 and looks.behind == {A: 3}
    log.away = True
    assert looks.look().lag is None and looks.behind == {}


def test_where_it_gets_on_or_the_log_is_away_nothing_is_told() -> None:
    log = Log(open={A: 4})
    stuck = Stuck(log)  # type: ignore[arg-type]
    stuck.look({A: 3})
    stuck.look({A: 4})
    assert log.asked == 0
    stuck.after_s, log.away = 0, True
    assert stuck.look({A: 4}) == [] and log.asked == 1
    log.away = False
    assert len(stuck.look({A: 4})) == 1
