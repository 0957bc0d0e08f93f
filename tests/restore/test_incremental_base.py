"""An incremental backup is made after a full one that leads to it; where none does, it is a full one itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.backup.api import archive_up_to, lacking
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import BackupFailed
from merganser.schemas.position import Position
from restore.conftest import halfway
from restore.test_remade_topics import make_anew
from restore.town import SMALL, Town, held
from stories.world import World


def town_of(folder: Path) -> Town:
    world = World(4)
    world.write(200)
    return Town(world, folder)


def test_a_table_that_the_full_one_does_not_have(tmp_path: Path) -> None:
    """Once it is followed, the next backup begins with it; those after that are incremental again."""
    town = town_of(tmp_path)
    town.fold(town.store, halfway(town.ends, 1, 2).of({"keyed"}), ["keyed"])
    town.back_up()
    types = []
    for part in (5, 6, 7):
        town.apply(halfway(town.ends, part, 8))
        made = town.back_up("incr")
        types.append(made.type)
        assert drill(town.archive, made, tmp_path).wrong == ""
    assert types == ["full", "incr", "incr"]


def test_a_table_that_is_no_longer_followed(tmp_path: Path) -> None:
    town = town_of(tmp_path)
    town.apply(halfway(town.ends, 1, 2))
    full = town.back_up()
    town.store = tmp_path / "one.duckdb"
    town.restore(town.store, Wish(str(full.read.of({"keyed"})), ("keyed",)))
    made = town.back_up("incr")
    assert (made.type, made.base) == ("incr", full.id) and drill(town.archive, made, tmp_path).wrong == ""


def test_a_store_that_was_restored_to_before_it(tmp_path: Path) -> None:
    """Of the full ones before it, the newest that it has not fallen behind."""
    town = town_of(tmp_path)
    made = []
    for part in (1, 3):
        town.apply(halfway(town.ends, part, 4))
        made.append(town.back_up())
    back = tmp_path / "back.duckdb"
    town.archive_up_to(town.ends)
    for part, type_, base in ((2, "incr", made[0].id), (0, "full", "")):
        town.restore(back, Wish(str(halfway(town.ends, part, 4))), force=True)
        with StoreFile(back) as source:
            found = Backups(town.objects, None, SMALL).create(source, Request("incr"), lambda position: None)
        assert (found.type, found.base) == (type_, base)
        assert drill(town.archive, found, tmp_path).wrong == ""


def test_a_topic_that_was_made_anew(tmp_path: Path) -> None:
    town = town_of(tmp_path)
    town.apply(halfway(town.ends, 1, 2))
    town.back_up()
    make_anew(town, 60)
    town.archive_up_to(town.ends)
    town.store = tmp_path / "anew.duckdb"
    town.apply(town.ends)
    made = town.back_up("incr")
    assert made.type == "full" and drill(town.archive, made, tmp_path).wrong == ""
    town.restore(tmp_path / "new.duckdb", Wish())
    assert held(tmp_path / "new.duckdb") == held(town.store)
    assert Position.parse(made.position) == town.ends


def test_a_store_whose_topic_is_gone_does_not_wait_for_the_archive(tmp_path: Path) -> None:
    """What was archived before is enough; what was not never will be, and that is told at once."""
    town = town_of(tmp_path)
    part = halfway(town.ends, 1, 2)
    town.apply(part)
    town.archive_up_to(part)
    with StoreFile(town.store) as source:
        assert not lacking(town.archive, town.world.log, source, part)  # type: ignore[arg-type]
        further = lacking(town.archive, town.world.log, source, town.ends)  # type: ignore[arg-type]
        assert further == town.ends
    make_anew(town, 900)
    town.archive_up_to(town.ends)
    with StoreFile(town.store) as source:
        assert not lacking(town.archive, town.world.log, source, part)  # type: ignore[arg-type]
        beyond = Position({tp: offset + 1 for tp, offset in part.items()})
        with pytest.raises(BackupFailed, match="does not have its topic any more"):
            archive_up_to(town.archive, town.world.log, source, beyond, 60)  # type: ignore[arg-type]
