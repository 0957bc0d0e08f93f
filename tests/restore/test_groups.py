"""Stores of several groups may be backed up into one archive: whose tables are restored is never a matter of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import UsageError
from restore.town import SMALL, Town
from stories.world import World


class Named(StoreFile):
    """A store of another group."""

    named = ""

    @property
    def group(self) -> str:  # type: ignore[override]
        return self.named

    @group.setter
    def group(self, value: str) -> None:
        pass


def back_up(town: Town, folder: Path, group: str, tables: list[str]) -> None:
    path = folder / f"{group}.duckdb"
    town.fold(path, town.ends.of(set(tables)), tables)
    with Named(path) as source:
        source.named = group
        Backups(town.objects, None, SMALL).create(source, Request(), lambda position: None)


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_the_tables_are_those_of_the_group_that_is_named(order: tuple[str, str], tmp_path: Path) -> None:
    world = World(4)
    world.write(100)
    town = Town(world, tmp_path)
    town.archive_up_to(town.ends)
    for group in order:
        back_up(town, tmp_path, group, {"one": ["keyed"], "two": ["keyed", "plain"]}[group])
    origin = town.restorer(tmp_path / "x.duckdb").origin
    assert origin.plan(Wish(group="one")).tables == ("keyed",)
    assert origin.plan(Wish(group="two")).tables == ("keyed", "plain")
    assert origin.plan(Wish(tables=("plain",))).tables == ("plain",)
    assert origin.plan(Wish(str(town.ends.of({"keyed"})))).tables == ("keyed",)
    for group in (None, "three"):
        with pytest.raises(UsageError, match=r"several groups.*one: keyed; two: keyed, plain"):
            origin.plan(Wish(group=group))


def test_of_equal_tables_any_will_do(tmp_path: Path) -> None:
    world = World(4)
    world.write(100)
    town = Town(world, tmp_path)
    town.archive_up_to(town.ends)
    for group in ("one", "two"):
        back_up(town, tmp_path, group, ["keyed"])
    for group in (None, "one", "three"):
        assert town.restorer(tmp_path / "x.duckdb").origin.plan(Wish(group=group)).tables == ("keyed",)
