"""A sweep takes nothing that an erasure goes on with; and where it has, nobody else's records go for that."""

from __future__ import annotations

import pytest

from erase.erased import forget_ada
from erase.test_erase_kill import forgotten, killed
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check, sweep
from restore.town import Town
from support.memory import MemoryObjects


def swept(objects: MemoryObjects) -> list[str]:
    return sweep(Archive(objects), check(Archive(objects)))


@pytest.mark.parametrize("step", ["published", "replaced", "data-removed"])
def test_a_sweep_after_a_kill_leaves_what_the_next_run_needs(step: str, town: Town, objects: MemoryObjects) -> None:
    assert killed(objects, step, 1)
    kept = set(objects.files) - set(swept(objects))
    assert not [name for name in check(Archive(objects)).findings if name.kind == "leftover"] and kept
    forget_ada(Archive(objects))
    forgotten(town, objects, drills=False)


@pytest.mark.parametrize("step", ["data-put", "staged", "published", "replaced"])
def test_a_sweep_during_an_erasure_costs_no_record_of_others(step: str, town: Town, objects: MemoryObjects) -> None:
    left = [1]

    def on_step(name: str) -> None:
        if name == step and left:
            left.pop()
            swept(objects)

    done = forget_ada(Archive(objects), on_step)
    forgotten(town, objects, drills=False)
    before, after = (sum(c.rows for c in check(Archive(each)).coverage) for each in (town.memory, objects))
    assert after == before - done.records + done.stand_ins
