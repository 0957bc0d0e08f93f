"""A restore that was killed, and what the next one makes of it when the world has changed meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import StoreInTheWay
from restore.conftest import halfway
from restore.town import Town, held
from stories.world import Crash


def test_a_restore_that_was_killed_at_its_end_does_not_answer_for_another_target(town: Town, tmp_path: Path) -> None:
    path, first, second = tmp_path / "new.duckdb", halfway(town.ends, 4, 5), halfway(town.ends, 1, 5)

    def killed(step: str) -> None:
        if step == "in-place":
            raise Crash(step)

    restorer = town.restorer(path, step=killed)
    with pytest.raises(Crash):
        restorer.run(restorer.origin.plan(Wish(str(first), base="none")))
    done = town.restore(path, Wish(str(second), base="none"), force=True)
    assert done.position == second
    assert held(path) == held(town.folded(second))


def test_what_was_put_aside_stays_though_another_store_appeared(town: Town, tmp_path: Path) -> None:
    path, target = tmp_path / "new.duckdb", halfway(town.ends, 4, 5)
    old, newer = town.folded(halfway(town.ends, 1, 5)), town.folded(halfway(town.ends, 2, 5))
    shutil.copyfile(old, path)

    def killed(step: str) -> None:
        if step == "aside":
            raise Crash(step)

    restorer = town.restorer(path, force=True, step=killed)
    with pytest.raises(Crash):
        restorer.run(restorer.origin.plan(Wish(str(target))))
    shutil.copyfile(newer, path)  # a replica was started meanwhile, and has come this far
    try:
        town.restore(path, Wish(str(target)))  # without force
    except StoreInTheWay:
        assert held(path) == held(newer)
    kept = [held(p) for p in tmp_path.glob("new.duckdb*") if p.suffix != ".json" and "restoring" not in p.name]
    assert held(old) in kept, "the old store is gone"
    assert held(newer) in kept, "the newer store is gone"


def test_a_file_system_without_hard_links_has_its_store_too(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is aside by then: the store's name would name nothing, for ever."""
    path, target = tmp_path / "new.duckdb", halfway(town.ends, 4, 5)
    shutil.copyfile(town.folded(halfway(town.ends, 1, 5)), path)

    def refused(source: Path, name: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    done = town.restore(path, Wish(str(target)), force=True)
    assert done.aside is not None and done.aside.exists()
    assert held(path) == held(town.folded(target))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, done.aside.name])


def test_a_time_that_the_archive_may_not_reach_is_told(town: Town, tmp_path: Path) -> None:
    beyond, within, before = "2100-01-01T00:00:00Z", "2023-11-14T22:13:20.005Z", "1999-01-01T00:00:00Z"
    found = {
        (to, live): town.restorer(tmp_path / "x.duckdb", live).origin.plan(Wish(to)).notes()
        for to in (beyond, within, before, "latest")
        for live in (False, True)
    }
    assert {key for key, notes in found.items() if "Kafka was not asked" in "".join(notes)} == {(beyond, False)}
    assert {key for key, notes in found.items() if "this is the latest" in "".join(notes)} == {
        (beyond, False),
        (beyond, True),
    }
    assert {key for key, notes in found.items() if "will be empty" in "".join(notes)} == {
        (before, False),
        (before, True),
    }
