"""A topic that was deleted and made again: what is restored is of one of them, and it is told which."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import NotRestorable
from merganser.schemas.position import Position, TopicPartition
from restore.conftest import halfway
from restore.town import Town, held
from stories.world import World

BEFORE, AFTER = (datetime.fromtimestamp(1_700_000_000 + seconds, UTC).isoformat() for seconds in (0.020, 7_000))


def old_town(folder: Path) -> Town:
    """Two tables with a full backup and an incremental one, all archived."""
    world = World(4)
    world.write(200)
    town = Town(world, folder)
    town.apply(halfway(town.ends, 1, 2))
    town.back_up()
    town.apply(halfway(town.ends, 3, 4))
    town.back_up("incr")
    town.archive_up_to(town.ends)
    return town


def make_anew(town: Town, records: int) -> None:
    """Other topics of the same names, an hour later."""
    log = town.world.log
    for table in town.tables:
        log.recreate(table)
    town.world.write(records)
    for tp, written in log.partitions.items():
        log.partitions[tp] = [each and replace(each, time_ms=each.time_ms + 3_600_000) for each in written]


def test_a_time_means_the_topic_that_was_there_then(tmp_path: Path) -> None:
    town = old_town(tmp_path)
    town.restore(tmp_path / "before.duckdb", Wish(BEFORE))
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    plan = town.restorer(tmp_path / "again.duckdb").origin.plan(Wish(BEFORE))
    assert plan.older == ("keyed", "plain") and "deleted and made again" in "".join(plan.lines())
    for live in (False, True):
        path = tmp_path / f"again{live}.duckdb"
        town.restore(path, Wish(BEFORE), live=live)
        assert held(path) == held(tmp_path / "before.duckdb")
        assert town.restore(tmp_path / f"after{live}.duckdb", Wish(AFTER), live=live).position == town.ends


def test_backups_of_the_old_topic_are_not_in_the_way_of_the_newest_state(tmp_path: Path) -> None:
    town = old_town(tmp_path)
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    for live in (False, True):
        done = town.restore(tmp_path / f"new{live}.duckdb", Wish(), live=live)
        assert done.position == town.ends
        assert not town.restorer(tmp_path / "x.duckdb", live).origin.plan(Wish()).older


@pytest.mark.parametrize("records", [0, 60, 900])
def test_a_log_that_has_another_topic_by_now_leads_nowhere(tmp_path: Path, records: int) -> None:
    """However much that one has: what the archive does not know of yet is not what is restored."""
    town = old_town(tmp_path)
    ends = town.ends
    make_anew(town, records)
    for to in ("latest", AFTER):
        restorer = town.restorer(tmp_path / f"{to[:6]}.duckdb", live=True)
        plan = restorer.origin.plan(Wish(to))
        assert plan.target == ends and plan.older == ("keyed", "plain")
        assert restorer.run(plan).position == ends


def test_backups_of_the_old_topic_can_still_be_proved_and_begun_with(tmp_path: Path) -> None:
    town = old_town(tmp_path)
    origin = town.restorer(tmp_path / "x.duckdb").origin
    origin.plan(Wish())
    (full, incr), ends = origin.backups, town.ends
    alone = [drill(town.archive, replace(incr, base=""), tmp_path)]
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    drilled = [drill(town.archive, each, tmp_path) for each in (full, incr)]
    alone.append(drill(town.archive, replace(incr, base=""), tmp_path))
    assert [each.wrong for each in drilled] == ["", ""]
    assert alone[0] == alone[1] and not alone[0].wrong
    old = town.restore(tmp_path / "old.duckdb", Wish(incr.position, base=full.id))
    assert (str(old.position), old.compared) == (incr.position, "")  # of one backup, no other is known
    assert town.restore(tmp_path / "end.duckdb", Wish(base=full.id)).position == ends


def test_what_was_begun_of_another_topic_is_not_gone_on_with(tmp_path: Path) -> None:
    town = old_town(tmp_path)
    restorer = town.restorer(tmp_path / "x.duckdb")
    old = restorer.origin.plan(Wish(base="none"))
    restorer._load(old)
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    assert town.restore(tmp_path / "x.duckdb", Wish(base="none")).position == town.ends


def test_one_plan_of_an_origin_does_not_choose_for_the_next(tmp_path: Path) -> None:
    town = old_town(tmp_path)
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    origin = town.restorer(tmp_path / "x.duckdb").origin
    targets = [origin.plan(Wish(to)).target for to in ("latest", BEFORE, "latest")]
    assert targets[0] == targets[2] == town.ends and targets[1] != town.ends


def test_each_store_that_was_there_is_kept(tmp_path: Path) -> None:
    """Three of them in a second."""
    town = old_town(tmp_path)
    path = tmp_path / "new.duckdb"
    asides = []
    for part in range(5):
        target = halfway(town.ends, part, 5)
        asides.append(town.restore(path, Wish(str(target)), force=True).aside)
    kept = [each for each in asides if each is not None]
    assert len(set(kept)) == len(kept) == 4
    assert [_position(each) for each in kept] == [halfway(town.ends, part, 5) for part in range(4)]


def _position(path: Path) -> Position:
    with StoreFile(path) as store:
        return store.position


def test_a_log_with_more_partitions_does_not_lead_on_and_that_is_told(tmp_path: Path) -> None:
    """By the dry run as well: a store of the old ones cannot follow it, nor be filled from it."""
    town = old_town(tmp_path)
    log, ends = town.world.log, town.ends
    log.tables["keyed"] = replace(log.tables["keyed"], partitions=4)
    log.partitions[TopicPartition("keyed", 3)] = []
    log.start[TopicPartition("keyed", 3)] = 0
    town.world.write(40)
    for to in ("latest", AFTER):
        restorer = town.restorer(tmp_path / f"{to[:6]}.duckdb", live=True)
        plan = restorer.origin.plan(Wish(to, ("keyed",)))
        assert plan.target == ends.of({"keyed"}) and "other partitions of keyed" in plan.notes()[0]
        assert restorer.run(plan).position == plan.target
    beyond = Position({tp: end + 1 for tp, end in ends.of({"keyed"}).items()})
    with pytest.raises(NotRestorable, match="has other partitions of it now"):
        town.restore(tmp_path / "x.duckdb", Wish(str(beyond)), live=True)
