"""Whatever is damaged is found by ``verify``, and never restored in silence (FAILURES 31).

A restore is refused if what it would read is damaged. One that does not need the damaged file goes on, and has
to come out as the undamaged one does.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from backup.damage import damaged, flipped, found_by_verify, restored
from backup.restored import Dump
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.files import read
from merganser.pipeline.backup.manifest import manifest_name, mark, mark_name
from merganser.pipeline.restore.restore import Restorer
from merganser.pipeline.restore.sources import Origin, Wish
from merganser.schemas.errors import MerganserError, RestoredWrong
from merganser.schemas.position import Position
from restore.town import Town, held
from stories.world import STORE_LIMITS, World
from support.memory import MemoryObjects

#: How many random damages; `make damage` asks for 20,000.
DAMAGES = int(os.environ.get("MERGANSER_DAMAGES", "40"))

#: Into how many tests they are divided, for workers that run beside each other.
SHARES = 4 if DAMAGES <= 1_000 else 40

#: Which bits are flipped: each, in the long form.
EACH_BIT = 1 if DAMAGES > 1_000 else 23


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An archive with three segments a partition and three backups."""
    world = World(21)
    world.write(120)
    town = Town(world, tmp_path_factory.mktemp("damage"))
    for part in (1, 2, 3):
        town.apply(Position({tp: end * part // 4 for tp, end in town.ends.items()}))
        town.back_up("incr" if part == 3 else "full")
    town.archive_up_to(town.ends)
    assert not found_by_verify(town.memory.files)
    return town.memory.files


@pytest.fixture(scope="module")
def expected(whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Dump:
    path = tmp_path_factory.mktemp("damage") / "whole.duckdb"
    assert restored(whole, path, Wish()) is None
    return held(path)


@pytest.mark.parametrize("share", range(SHARES))
def test_random_damage_is_found_and_never_restored_in_silence(
    share: int, whole: dict[str, bytes], expected: Dump, tmp_path: Path
) -> None:
    refused = 0
    for seed in range(share, DAMAGES, SHARES):
        what, files = damaged(whole, seed)
        assert found_by_verify(files), f"{what}: not found (seed {seed})"
        path = tmp_path / f"{seed}.duckdb"
        if restored(files, path, Wish()) is None:
            assert held(path) == expected, f"{what}: restored in silence (seed {seed})"
            path.unlink()
        else:
            refused += 1
        assert not list(tmp_path.iterdir()), what
    # Names of files are digests of what is in them, times too: which of them a seed meets is never quite the same.
    assert refused > DAMAGES // SHARES // 3, "most files are needed"


def test_every_flipped_bit_of_a_backup_is_found_and_refused(whole: dict[str, bytes]) -> None:
    """What verify and restore do with each file first is done here, for each bit: whole restores would take hours."""
    objects = MemoryObjects(whole)
    newest = next(f.backup for f in reversed(catalog(objects)) if f.backup is not None and f.backup.type == "full")
    names = [f"backups/{newest.id}/manifest.json", f"backups/index/{newest.id}.json"]
    smallest = sorted(newest.files, key=lambda entry: entry.size)[:2]
    checked = 0
    for name in names:
        for bit in range(0, 8 * len(whole[name]), EACH_BIT):
            files = {n: d for n, d in whole.items() if n.startswith("backups/")}
            files[name] = flipped(whole[name], bit)
            assert any(found.wrong for found in catalog(MemoryObjects(files))), (name, bit)
            checked += 1
    for entry in smallest:
        for bit in range(0, 8 * entry.size, EACH_BIT):
            with pytest.raises(MerganserError):
                read(MemoryObjects({entry.name: flipped(whole[entry.name], bit)}), entry, None)
            checked += 1
    assert checked * EACH_BIT > 20_000


def test_a_schema_version_that_is_missing_is_refused(whole: dict[str, bytes], tmp_path: Path) -> None:
    """Records of the newest one would go to quarantine, as of an unknown schema."""
    newest = max(name for name in whole if name.startswith("schemas/plain-value/"))
    files = {name: data for name, data in whole.items() if name != newest}
    told = restored(files, tmp_path / "new.duckdb", Wish())
    assert told is not None and newest in told


def test_a_catalogue_with_anything_wrong_is_no_source(whole: dict[str, bytes], tmp_path: Path) -> None:
    """`restore` looks at the same catalogue; `--base` goes without what is damaged."""
    backups = [found.backup for found in catalog(MemoryObjects(whole)) if found.backup is not None]
    files = {n: d for n, d in whole.items() if n != f"backups/{backups[0].id}/manifest.json"}
    told = restored(files, tmp_path / "new.duckdb", Wish())
    assert told is not None and "deleted" in told
    assert restored(files, tmp_path / "new.duckdb", Wish(base=backups[1].id)) is None
    assert restored(files, tmp_path / "none.duckdb", Wish(base="none")) is None


def test_a_file_of_another_backup_under_its_own_name_is_refused_by_its_digests(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    """A manifest that was forged, seals and all: the digest of the rows tells still."""
    objects = MemoryObjects(whole)
    newest = [f.backup for f in catalog(objects) if f.backup is not None and f.backup.type == "full"][-1]
    rows = [entry for entry in newest.files if not entry.system]
    forged = dataclasses.replace(newest, files=tuple(e for e in newest.files if e != rows[0]))
    objects.put(manifest_name(newest.id), forged.encoded())
    assert "another one than was marked" in next(f.wrong for f in catalog(objects) if f.id == newest.id)
    objects.put(mark_name(newest.id), mark(forged))
    origin = Origin(Archive(objects), None)
    with pytest.raises(RestoredWrong, match="has digest"):
        Restorer(origin, tmp_path / "new.duckdb", "g", limits=STORE_LIMITS).run(origin.plan(Wish()))
    assert not list(tmp_path.iterdir())
