"""Damage to what an erasure has made is found, as any is (FAILURES 31)."""

from __future__ import annotations

import os
import random

import pytest

from backup.damage import damaged, found_by_verify
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.schemas.errors import ArchiveDamaged
from restore.town import Town
from support.memory import MemoryObjects

#: How many random damages; `make damage` asks for 20,000.
DAMAGES = int(os.environ.get("MERGANSER_DAMAGES", "40"))


def made(town: Town, forgotten: MemoryObjects) -> dict[str, bytes]:
    """The objects that are new, or others than before."""
    return {name: data for name, data in forgotten.files.items() if town.memory.files.get(name) != data}


@pytest.mark.parametrize("seed", range(DAMAGES))
def test_any_damage_is_found(seed: int, town: Town, forgotten: MemoryObjects) -> None:
    new = made(town, forgotten)
    assert {name.split("/")[0] for name in new} == {"log", "files", "backups"}
    what, changed = damaged(new, seed)
    files = {name: data for name, data in forgotten.files.items() if name not in new} | changed
    assert found_by_verify(files), what


@pytest.mark.parametrize("seed", range(max(1, DAMAGES // 10)))
def test_each_bit_of_a_manifest_counts(seed: int, town: Town, forgotten: MemoryObjects) -> None:
    rng = random.Random(seed)
    new = {n: d for n, d in made(town, forgotten).items() if n.startswith("log/") and n.endswith(".json")}
    for name, data in new.items():
        bit = rng.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert check(Archive(MemoryObjects({**forgotten.files, name: bytes(changed)}))).findings, (name, bit)


def replaced(forgotten: MemoryObjects) -> list[str]:
    """The manifests that took the place of others."""
    return [name for name, data in forgotten.files.items() if name.startswith("log/") and b'"was"' in data]


def test_a_manifest_that_is_put_back_is_found(town: Town, forgotten: MemoryObjects) -> None:
    old_data = {name: data for name, data in town.memory.files.items() if name.endswith(".parquet")}
    for name in replaced(forgotten):
        back = {**forgotten.files, name: town.memory.files[name]}
        for files in (back, back | old_data):
            found = check(Archive(MemoryObjects(files))).findings
            assert "unfinished" in {finding.kind for finding in found}, name


def test_a_manifest_that_took_a_place_counts_only_if_an_erasure_says_so(town: Town, forgotten: MemoryObjects) -> None:
    for name in replaced(forgotten):
        objects = town.memory.copy()
        objects.files |= {name: forgotten.files[name]}
        objects.files |= {n: d for n, d in forgotten.files.items() if n.endswith(".parquet")}
        archive = Archive(objects)
        assert [each.file for each in check(archive).findings if each.kind == "changed"] == [name]
        [place] = [p for p in archive.declared("people")[-1].places if name.startswith(f"{p.folder}/")]
        with pytest.raises(ArchiveDamaged, match="no erasure says so"):
            archive.chain(place)
