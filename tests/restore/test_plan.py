"""A plan covers every offset up to the target, begins with the newest backup that fits, or says why there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.backup.manifest import Backup, TableFacts
from merganser.pipeline.restore.plan import Covered, Live, RestorePlan, Segment, Sources, plan_restore
from merganser.schemas.errors import NotRestorable
from merganser.schemas.position import Position, TopicPartition

T0, T1, U0 = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)


def backup(number: int, position: str, since: str = "", stopped: str = "", topic_id: str = "id-t") -> Backup:
    tables = tuple(
        TableFacts(topic, topic_id if topic == "t" else "id-u", 2 if topic == "t" else 1, (), "0-0", "0-0", stopped)
        for topic in sorted({tp.topic for tp in Position.parse(position)})
    )
    id_ = f"2026010{number}T000000.000Z-abcdef"
    return Backup(
        id_, "full", "2026-01-01T00:00:00+00:00", "c", "g", position, position, since or whole(position), tables
    )


def whole(position: str) -> str:
    return ",".join(f"{tp}:0" for tp in Position.parse(position))


def archive(*segments: tuple[int, int] | tuple[int, int, bool], topic_id: str = "id-t") -> Covered:
    return Covered(topic_id, tuple(Segment(s[0], s[1], s[1] - s[0], bool(s[2:])) for s in segments))


def plan(
    target: str, backups: Sequence[Backup] = (), below: dict[TopicPartition, Covered] | None = None,
    live: dict[TopicPartition, Live] | None = None, base: str | None = None,
) -> RestorePlan:  # fmt: skip
    position = Position.parse(target)
    sources = Sources(backups, below or {}, live or {}, list(position))
    return plan_restore(target, position, {tp.topic for tp in position}, sources, base)


ARCHIVE = {T0: archive((0, 50), (50, 100)), T1: archive((0, 80))}
OLD = backup(1, "t/0:10,t/1:10", whole("t/0:1,t/1:1"))
NEW = backup(2, "t/0:60,t/1:40", whole("t/0:1,t/1:1"))


@pytest.mark.parametrize(
    ("target", "base", "segments"),
    [
        ("t/0:100,t/1:80", NEW, 2),
        ("t/0:60,t/1:40", NEW, 0),
        ("t/0:60,t/1:39", OLD, 3),  # past it on one partition is past it
        ("t/0:59,t/1:40", OLD, 3),
        ("t/0:9,t/1:80", None, 2),
        ("t/0:0,t/1:0", None, 0),
    ],
)
def test_the_newest_backup_at_or_before_the_target_is_the_base(target: str, base: Backup | None, segments: int) -> None:
    made = plan(target, [OLD, NEW], ARCHIVE)
    assert (made.base, sum(way.segments for way in made.ways)) == (base, segments)
    assert made.target == Position.parse(target) and not made.needs_log


@pytest.mark.parametrize(
    ("why", "target", "backups", "below", "live"),
    [
        ("the archive of t/0 ends at offset 100, and the log does not answer", "t/0:101", [], ARCHIVE, {}),
        ("t/0 ends at offset 110, the target is 111", "t/0:111", [], ARCHIVE, {T0: Live("id-t", 0, 110)}),
        ("the archive of t/0 ends at offset 100, and the log begins at offset 105", "t/0:108", [], ARCHIVE,
         {T0: Live("id-t", 105, 110)}),
        ("the log has another topic of that name now", "t/0:108", [], ARCHIVE, {T0: Live("other", 0, 110)}),
        ("the archive of t/0 begins at offset 5, not 0", "t/0:10", [], {T0: archive((5, 20))}, {}),
        ("the archive lost t/0 from offset 5 to 9", "t/0:10", [], {T0: archive((0, 5), (5, 9, True), (9, 20))}, {}),
        ("nothing has t/0 from offset 0 on", "t/0:10", [], {}, {}),
        ("nothing has t/1 from offset 0 on", "t/0:10,t/1:1", [], {T0: ARCHIVE[T0]}, {}),
    ],
)  # fmt: skip
def test_where_there_is_no_way_the_reason_is_told(
    why: str, target: str, backups: list[Backup], below: dict[TopicPartition, Covered], live: dict[TopicPartition, Live]
) -> None:
    with pytest.raises(NotRestorable, match=re.escape(why)):
        plan(target, backups, below, live)


@pytest.mark.parametrize(
    ("why", "unfit"),
    [
        ("of another topic", backup(3, "t/0:60,t/1:40", whole("t/0:1,t/1:1"), topic_id="older")),
        ("had stopped", backup(3, "t/0:60,t/1:40", whole("t/0:1,t/1:1"), stopped="torn")),
        ("does not hold t/1", backup(3, "t/0:60", whole("t/0:1"))),
        ("has no table 't'", backup(3, "u/0:1", whole("u/0:1"))),
        ("is past the target", backup(3, "t/0:60,t/1:41", whole("t/0:1,t/1:1"))),
    ],
)
def test_a_backup_that_does_not_fit_is_passed_over_and_refused_by_name(why: str, unfit: Backup) -> None:
    assert plan("t/0:60,t/1:40", [NEW, unfit], ARCHIVE).base == NEW
    with pytest.raises(NotRestorable, match=why):
        plan("t/0:60,t/1:40", [NEW, unfit], ARCHIVE, base=unfit.id)


def test_a_backup_leads_over_what_the_archive_lacks() -> None:
    gap = {T0: archive((55, 100)), T1: archive((0, 10), (10, 30, True), (30, 80))}
    assert plan("t/0:90,t/1:70", [OLD, NEW], gap).base == NEW
    with pytest.raises(NotRestorable, match="begins at offset 55"):
        plan("t/0:90,t/1:70", [OLD, NEW], gap, base="none")


def test_the_log_leads_on_where_the_archive_ends_or_was_never_begun() -> None:
    live = {T0: Live("id-t", 40, 120), T1: Live("id-t", 0, 90)}
    made = plan("t/0:110,t/1:90", [NEW], ARCHIVE, live)
    assert [(way.base, way.archive, way.target) for way in made.ways] == [(60, 100, 110), (40, 80, 90)]
    made = plan("t/0:110,t/1:90", [NEW], {}, live)
    assert [(way.base, way.archive, way.target) for way in made.ways] == [(60, 60, 110), (40, 40, 90)]


def test_a_backup_of_a_store_that_began_late_is_the_last_resort_and_told() -> None:
    partial = backup(3, "t/0:60,t/1:40", "t/0:7,t/1:0")
    assert plan("t/0:60,t/1:40", [OLD, partial], ARCHIVE).base == OLD
    assert plan("t/0:60,t/1:40", [partial], ARCHIVE).base is None
    made = plan("t/0:60,t/1:40", [partial], {T0: archive((7, 100)), T1: archive((0, 80))})
    assert made.base == partial and made.partial
    assert any("did not begin at the beginning" in line for line in made.lines())


def test_a_backup_of_more_tables_serves_for_some_of_them() -> None:
    both = backup(3, "t/0:60,t/1:40,u/0:9", whole("t/0:1,t/1:1,u/0:1"))
    assert plan("t/0:60,t/1:41", [both], ARCHIVE).base == both


# -- whatever there is -----------------------------------------------------------------------

offsets = st.integers(0, 12)


@st.composite
def chains(draw: st.DrawFn) -> Covered:
    """Links without a gap, some of them lost."""
    at = draw(st.integers(0, 3))
    segments = []
    for length in draw(st.lists(st.integers(1, 4), max_size=4)):
        segments.append(Segment(at, at + length, length, draw(st.integers(0, 5)) == 0))
        at += length
    return Covered("id-t", tuple(segments))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Position, Sources]:
    target = Position({T0: draw(offsets), T1: draw(offsets)})
    backups = [
        backup(n, f"t/0:{draw(offsets)},t/1:{draw(offsets)}", f"t/0:{draw(st.sampled_from([0, 0, 2]))},t/1:0")
        for n in range(1, 1 + draw(st.integers(0, 3)))
    ]
    below = {tp: draw(chains()) for tp in target if draw(st.booleans())}
    live = {}
    for tp in target:
        if draw(st.booleans()):
            start = draw(st.integers(0, 8))
            live[tp] = Live("id-t", start, start + draw(st.integers(0, 8)))
    return target, Sources(backups, below, live, list(target))


def reachable(target: Position, sources: Sources, base: Backup | None) -> bool:
    """By brute force: every offset from the base on is in the archive or in the log, the archive's first, and the
    log is entered once."""
    begin = Position(dict.fromkeys(target, 0)) if base is None else base.read
    if not target.reaches(begin):
        return False
    if base is not None and not all(tp in sources.archive or tp in sources.live for tp in target):
        return False
    for tp, end in target.items():
        covered, live = sources.archive.get(tp), sources.live.get(tp)
        kept = {n for s in covered.segments if not s.lost for n in range(s.first, s.next)} if covered else set()
        at = begin[tp]
        while at < end and at in kept:
            at += 1
        if at < end and (live is None or live.start > at or live.end < end):
            return False
    return True


@given(worlds())
def test_a_plan_is_found_if_there_is_one_and_it_covers_every_offset(world: tuple[Position, Sources]) -> None:
    target, sources = world
    possible = [b for b in [*sources.backups, None] if reachable(target, sources, b)]
    try:
        made = plan_restore("x", target, {"t"}, sources)
    except NotRestorable:
        assert not possible
        return
    assert made.base in possible
    fitting = [b for b in possible if b is not None and not b.partial]
    if fitting:
        assert made.base == max(fitting, key=lambda b: b.id)
    for way in made.ways:
        assert way.base <= way.archive <= way.target == target[way.partition]
        covered = sources.archive.get(way.partition)
        kept = {n for s in covered.segments if not s.lost for n in range(s.first, s.next)} if covered else set()
        assert set(range(way.base, way.archive)) <= kept
        if way.archive < way.target:
            live = sources.live[way.partition]
            assert live.start <= way.archive and live.end >= way.target
