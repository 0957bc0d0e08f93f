"""Backups are due by cron lines; what was missed is made up once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.backup.manifest import Backup, new_id
from merganser.pipeline.backup.schedule import Due, Line, check, due, upcoming

DAILY, HOURLY = Line("0 3 * * *", "full"), Line("15 * * * *", "incr")
START = datetime(2026, 2, 10, 12, 0, tzinfo=UTC)


def made(line: Line | None, at: datetime, when: datetime | None = None, group: str = "g") -> Backup:
    created = when or at
    name, due_ = (line.name, at.isoformat()) if line else ("", "")
    type_ = line.type if line else "full"
    return Backup(new_id(created), type_, created.isoformat(), "c", group, "", "", "", (), schedule=name, due=due_)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-02-{text}:00+00:00")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("11T02:59", None),
        ("11T03:00", Due(DAILY, at("11T03:00"), False)),
        ("11T03:02", Due(DAILY, at("11T03:00"), False)),
        ("11T03:10", Due(DAILY, at("11T03:00"), True)),
        ("19T02:00", Due(DAILY, at("18T03:00"), True)),  # eight were missed: one is made
    ],
)
def test_a_line_is_due_at_its_time_and_made_up_for_later(now: str, expected: Due | None) -> None:
    assert due([DAILY], [made(DAILY, at("10T03:00"))], "g", at(now)) == expected


def test_what_was_made_up_for_is_not_due_again() -> None:
    there = [made(DAILY, at("10T03:00")), made(DAILY, at("18T03:00"), at("19T02:00"))]
    assert due([DAILY], there, "g", at("19T02:01")) is None
    assert due([DAILY], there, "g", at("19T03:00")) == Due(DAILY, at("19T03:00"), False)


def test_full_ones_come_first() -> None:
    there = [made(DAILY, at("10T03:00")), made(HOURLY, at("10T03:15"))]
    assert due([HOURLY, DAILY], there, "g", at("11T03:20")) == Due(DAILY, at("11T03:00"), True)


def test_the_very_first_backup_is_not_waited_for() -> None:
    wanted = due([HOURLY, DAILY], [made(DAILY, START, group="another")], "g", START)
    assert wanted is not None and wanted.line == DAILY and not wanted.late


def test_a_new_line_has_missed_nothing_before_the_last_backup() -> None:
    there = [made(None, at("10T12:00"))]
    assert due([DAILY], there, "g", at("11T02:00")) is None
    assert due([DAILY], there, "g", at("11T03:00")) == Due(DAILY, at("11T03:00"), False)


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=60))
def test_however_often_it_is_looked_each_time_has_one_backup_at_most(minutes: list[int]) -> None:
    there, now = [made(None, START)], START
    for step in minutes:
        now += timedelta(minutes=step)
        while (wanted := due([DAILY, HOURLY], there, "g", now)) is not None:
            assert wanted.at <= now
            there.append(made(wanted.line, wanted.at, now))
    for line in (DAILY, HOURLY):
        dues = [b.due for b in there if b.schedule == line.name]
        assert len(dues) == len(set(dues))
        assert due([line], there, "g", now) is None


def test_the_next_time_is_told() -> None:
    assert upcoming([DAILY, HOURLY], START) == (at("10T12:15"), HOURLY)


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("0 3 * *", "Wrong number of fields"),
        ("61 * * * *", "Bad minute"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("x", "Wrong"),
    ],
)
def test_a_line_that_is_none_is_told(cron: str, why: str) -> None:
    told = check(cron)
    assert told is not None and why in told
    assert check("*/5 3-6 * * MON") is None
