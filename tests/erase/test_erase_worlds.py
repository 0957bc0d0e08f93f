"""Random histories of transactions, conditions and operation ids, of which a key is erased: all the rest is what it
was, at each position."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erase.erased import a_town, erase, mine, rows_of, without
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.restore.sources import Wish

SEEDS = int(os.environ.get("MERGANSER_STORIES", "3"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_restore_comes_to_what_it_did_less_the_key(seed: int, tmp_path: Path) -> None:
    town = a_town(seed, tmp_path, spellings=seed % 2 == 1)
    done = erase(town.archive)
    assert done.records == rows_of(town.world)
    archive = Archive(town.objects)
    assert not check(archive).findings
    found = catalog(archive.objects)
    report = verify(archive, found)
    assert not report.findings and not report.loose
    assert not [each.wrong for each in found if each.wrong]
    for n in range(6):
        target = town.some_position()
        for base in (None, "none"):
            path = tmp_path / f"restored{n}{base}.duckdb"
            town.restore(path, Wish(str(target), base=base))
            assert without(path, town.world) == without(town.folded(target), town.world)
    for each in found:
        assert each.backup is not None
        drilled = drill(archive, each.backup)
        assert not drilled.wrong, drilled
    assert any(mine(event) and event.tx for event in town.world.events)
