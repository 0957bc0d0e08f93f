"""A restore that was killed, and what the next one makes of it when the world has changed meanwhile."""

from __future__ import annotations

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
