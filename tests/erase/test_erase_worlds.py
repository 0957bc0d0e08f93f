"""Random histories of transactions, conditions and operation ids, of which a key is erased: all the rest is what it
was, at each position (FAILURES 31)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from erase.erased import a_town, deleted, erase, mine, without
from erase.test_erase_kill import STALE_S
from merganser.consumers import collect, labels
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.lease import EXPIRING
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.erase import erase as erasing
from merganser.pipeline.erase import snapshots
from merganser.pipeline.erase.plan import Hit
from merganser.pipeline.restore.sources import Wish
from restore.town import Town
from stories.txworld import TxWorld
from stories.world import Crash
from support.memory import MemoryObjects
from support.naive import caught

#: `MERGANSER_STORIES` asks for more.
SEEDS = int(os.environ.get("MERGANSER_STORIES", "6"))


def lived(seed: int, folder: Path) -> Town:
    world = TxWorld(seed, 40, spellings=seed % 2 == 1)
    deleted(world)
    folder.mkdir()
    return a_town(world, folder)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return lived(3, tmp_path_factory.mktemp("worlds") / "3")


def comes_to_the_same(town: Town, objects: MemoryObjects, folder: Path, times: int) -> None:
    """Whatever is restored out of *objects* holds what a replica did there, less the key."""
    assert isinstance(town.world, TxWorld)
    archive, found = Archive(objects), catalog(objects)
    report = verify(archive, found)
    assert not report.findings and not report.loose and not check(archive).findings
    town.archive, before = archive, town.archive
    try:
        for n in range(times):
            target = town.some_position() if n else town.ends
            path = folder / f"restored{n}.duckdb"
            town.restore(path, Wish(str(target), base=None if n % 2 else "none"))
            assert without(path, town.world) == without(town.folded(target), town.world)
    finally:
        town.archive = before
    for each in found[:times]:
        assert each.backup is not None
        assert not (drilled := drill(archive, each.backup)).wrong, drilled


def test_every_restore_comes_to_what_it_did_less_the_key(town: Town, tmp_path: Path) -> None:
    objects = town.memory.copy()
    done = erase(Archive(objects))
    assert isinstance(town.world, TxWorld)
    assert done.records == sum(map(mine, town.world.events)) and done.stand_ins
    comes_to_the_same(town, objects, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, SEEDS))
@pytest.mark.parametrize("step", ["", "marked", "staged", "replaced"])
def test_of_any_history_and_also_after_a_kill(seed: int, step: str, tmp_path: Path) -> None:
    town = lived(seed, tmp_path / "town")
    objects = town.memory.copy()

    def on_step(name: str) -> None:
        if name == step:
            raise Crash(step)

    if step:
        with pytest.raises(Crash):
            erase(Archive(objects), on_step)
        objects.put(EXPIRING, b"of the one that was killed\n")
        objects.now_s += STALE_S + 1
    erase(Archive(objects))
    comes_to_the_same(town, objects, tmp_path, 8)


# -- naive variants ------------------------------------------------------------------------------


def without_stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Naive: every record goes without a trace. Transactions that count it are torn."""
    patch.setattr(Hit, "leaves", False)


def all_was_well(patch: pytest.MonkeyPatch) -> None:
    """Naive: nobody asks what conditions came to."""
    patch.setattr(erasing, "rejected", lambda *given: {})
    patch.setattr(erasing.Eraser, "_rejected", lambda self: {})


def in_any_order(patch: pytest.MonkeyPatch) -> None:
    """Naive: a stand-in has no key, so what was written before and after it is in no order."""
    patch.setattr(labels, "key_of", lambda marks, said: said)
    patch.setattr(collect, "key_of", lambda marks, said: said)


def old_digests(patch: pytest.MonkeyPatch) -> None:
    """Naive: a backup keeps the digests that it had."""
    patch.setattr(snapshots, "_less", lambda text, gone: text)


FAULTS = [
    without_stand_ins,
    all_was_well,
    *(pytest.param(each, marks=pytest.mark.slow) for each in (in_any_order, old_digests)),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_histories_catch_a_planted_fault(
    fault: Callable[[pytest.MonkeyPatch], None], town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    objects = town.memory.copy()
    with caught(True):
        erase(Archive(objects))
        comes_to_the_same(town, objects, tmp_path, 2)
