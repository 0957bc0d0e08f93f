"""Random histories of transactions, conditions and operation ids, of which a key is erased: all the rest is what it
was, at each position (FAILURES 31)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erase.erased import a_town, deleted, erase, mine, without
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.restore.sources import Wish
from stories.txworld import TxWorld

#: Of these each event of interest is in the first; `MERGANSER_STORIES` asks for more.
SEEDS = int(os.environ.get("MERGANSER_STORIES", "1"))


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=() if n == 0 else pytest.mark.slow) for n in range(max(SEEDS, 6))]
)
def test_every_restore_comes_to_what_it_did_less_the_key(seed: int, tmp_path: Path) -> None:
    world = TxWorld(seed, 40, spellings=seed % 2 == 1)
    deleted(world)
    town = a_town(world, tmp_path)
    done = erase(town.archive)
    assert done.records == sum(map(mine, world.events)) and done.stand_ins
    archive = Archive(town.objects)
    found, report = catalog(archive.objects), verify(archive, catalog(archive.objects))
    assert not report.findings and not report.loose and not check(archive).findings
    for n in range(3):
        target = town.some_position()
        for base in (None, "none"):
            path = tmp_path / f"restored{n}{base}.duckdb"
            town.restore(path, Wish(str(target), base=base))
            assert without(path, world) == without(town.folded(target), world)
    for each in found:
        assert each.backup is not None
        assert not (drilled := drill(archive, each.backup)).wrong, drilled
