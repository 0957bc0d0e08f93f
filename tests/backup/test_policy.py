"""What is kept, and that nothing goes that a kept backup needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.backup.files import Entry
from merganser.pipeline.backup.manifest import Backup
from merganser.pipeline.backup.policy import Policy, judge, unreferenced
from merganser.schemas.errors import UsageError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def backup(days_ago: float, base: Backup | None = None, group: str = "g", files: str = "") -> Backup:
    at = NOW - timedelta(days=days_ago)
    id_ = f"{at:%Y%m%dT%H%M%S}.000Z-{group.encode().hex():0>6.6}"
    entries = tuple(Entry("t", False, "t", 0, 0, 0, 1, name, 1, name) for name in files)
    type_ = "incr" if base is not None else "full"
    return Backup(id_, type_, at.isoformat(), "c", group, "", "", "", (), entries, base.id if base else "")


def kept(backups: list[Backup], **policy: float) -> list[Backup]:
    verdicts = judge(backups, Policy(**policy), NOW)  # type: ignore[arg-type]
    return [verdict.backup for verdict in verdicts if verdict.kept]


F1, F2, F3 = backup(30), backup(20), backup(10)
I1, I2, I3 = backup(29, F1), backup(15, F2), backup(1, F2)


def test_so_many_full_ones_are_kept_with_those_made_after_them() -> None:
    everything = [F1, I1, F2, I2, F3, I3]
    assert kept(everything, full=1) == [F3]
    assert kept(everything, full=2) == [F2, I2, F3, I3]
    assert kept(everything, full=9) == everything


def test_what_is_young_is_kept_with_the_full_one_that_it_needs() -> None:
    assert kept([F1, I1, F2, I2, F3, I3], days=5) == [F2, F3, I3]


@pytest.mark.parametrize("days", [1e6, 1e12, float("inf")])
def test_as_many_days_as_one_likes_keep_all(days: float) -> None:
    assert kept([F1, I1, F2, F3], days=days) == [F1, I1, F2, F3]


def test_either_reason_keeps() -> None:
    assert kept([F1, I1, F2, F3], full=1, days=20) == [F2, F3]


def test_the_newest_full_one_of_each_group_is_never_removed() -> None:
    other = backup(400, group="h")
    assert kept([F1, F2, other], days=0) == [other, F2]


@pytest.mark.parametrize("policy", [{}, {"full": 0}, {"days": -1}])
def test_a_policy_that_says_nothing_or_nonsense_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--keep-full"):
        Policy(**policy)  # type: ignore[arg-type]


@st.composite
def histories(draw: st.DrawFn) -> list[Backup]:
    made: list[Backup] = []
    for hours_ago in sorted(draw(st.sets(st.integers(1, 2_000), max_size=12)), reverse=True):
        group = draw(st.sampled_from("gh"))
        fulls = [b for b in made if b.type == "full" and b.group == group]
        base = draw(st.sampled_from(fulls)) if fulls and draw(st.booleans()) else None
        files = "" if base else draw(st.text("abcdefgh", max_size=4))
        made.append(replace(backup(hours_ago / 24, base, group, files)))
    return made


@given(histories(), st.none() | st.integers(1, 4), st.none() | st.integers(0, 90))
def test_nothing_goes_that_a_kept_one_needs(made: list[Backup], full: int | None, days: int | None) -> None:
    if full is None and days is None:
        full = 1
    verdicts = judge(made, Policy(full, days), NOW)
    assert sorted(v.backup.id for v in verdicts) == sorted(b.id for b in made)
    left = [v.backup for v in verdicts if v.kept]
    ids = {b.id for b in left}
    assert all(b.base in ids for b in left if b.base)
    for group in "gh":
        fulls = [b for b in made if b.group == group and b.type == "full"]
        assert {b.id for b in fulls[-(full or 1) :]} <= ids
    if days is not None:
        assert {b.id for b in made if b.created_at >= NOW - timedelta(days=days)} <= ids
    names = {entry.name for b in made for entry in b.files}
    gone = unreferenced(names, left)
    assert set(gone) == names - {entry.name for b in left for entry in b.files}


@given(histories(), st.integers(1, 4), st.integers(0, 90))
def test_a_policy_that_was_followed_asks_for_nothing_more(made: list[Backup], full: int, days: int) -> None:
    left = kept(made, full=full, days=days)
    assert kept(left, full=full, days=days) == left
