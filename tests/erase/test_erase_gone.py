"""What must go is gone from every object, and what stays says so to who looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase.erased import FEW, a_town, cells, forget_ada
from erase.people import ADA, TABLE, People, hashes_of_ada, records_of_ada, tells_of_ada
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.objects import Objects, open_objects
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.lease import Lease
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.erase.erase import Eraser
from merganser.schemas.errors import BackupBusy, InvalidRow, NotErasable, UnknownTable, UsageError
from restore.town import Town
from support.memory import MemoryObjects

KEY = Key(b"k" * 32)


def telling(objects: Objects, key: Key | None, hashes: set[str]) -> set[str]:
    """The objects that tell of her: their bytes, those of any value in them, or a hash of a record."""
    found = set()
    for name, data in cells(objects, key):
        if tells_of_ada(data) or data.hex() in hashes or any(each.encode() in data for each in hashes):
            found.add(name.split()[0])
    return found


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_no_object_holds_a_byte_of_the_key(key: Key | None, tmp_path: Path) -> None:
    town = a_town(People(3), tmp_path, key, FEW)
    hashes = hashes_of_ada(town.world.log)
    before = telling(town.memory, key, hashes)
    assert {name.split("/")[0] for name in before} == {"log", "files"}
    done = forget_ada(town.archive)
    assert done.records == len(records_of_ada(town.world.log)) and done.stand_ins
    assert not telling(town.memory, key, hashes)
    found = catalog(town.objects)
    assert not verify(town.archive, found).findings
    for each in found:
        assert each.backup is not None and not drill(town.archive, each.backup).wrong


def test_who_looks_sees_what_was_erased_when_and_not_of_whom(town: Town, forgotten: MemoryObjects) -> None:
    report = check(Archive(forgotten))
    assert not report.findings
    [note] = [note for note in report.notes if note.kind == "erased"]
    assert "records of one key were erased at 20" in note.why
    gone = sum(each.erased for each in report.coverage)
    before = sum(each.rows for each in check(town.archive).coverage)
    assert gone > 0 and sum(each.rows for each in report.coverage) == before - gone
    made = [each.backup for each in catalog(forgotten) if each.backup is not None]
    assert [len(each.erased) for each in made] == [1, 1]


def test_a_preview_changes_nothing_and_says_what_would(town: Town, objects: MemoryObjects) -> None:
    before = dict(objects.files)
    plan = Eraser(Archive(objects), TABLE, [f"id={ADA}"], town.world.log).plan()
    assert objects.files == before
    [part] = [part for part in plan.parts if part.hits]
    assert part.in_log == len(part.hits) == len(records_of_ada(town.world.log))
    assert [len(plan.backups), len(plan.points)] == [1, 1] and json.dumps(plan.fields())


def test_it_waits_for_no_backup_and_none_is_made_meanwhile(objects: MemoryObjects) -> None:
    lease = Lease(objects, "20260101T000000.000Z-abcdef")
    before = dict(objects.files)
    with pytest.raises(BackupBusy, match="is being made"):
        forget_ada(Archive(objects))
    assert objects.files == before
    lease.release()

    def look(step: str) -> None:
        with pytest.raises(BackupBusy):
            Lease(objects, "20260101T000000.000Z-abcdef", wait_s=0)

    forget_ada(Archive(objects), look)
    Lease(objects, "20260101T000000.000Z-abcdef", wait_s=0)


def test_it_is_done_once(forgotten: MemoryObjects) -> None:
    objects = forgotten.copy()
    assert Eraser(Archive(objects), TABLE, [ADA]).plan().nothing
    done = forget_ada(Archive(objects))
    assert (done.records, done.backups, done.points) == (0, (), ()) and objects.files == forgotten.files


def test_a_key_that_was_not_deleted_stays(tmp_path: Path) -> None:
    town = a_town(People(3, forgotten=False), tmp_path, backups=())
    before = dict(town.memory.files)
    with pytest.raises(NotErasable, match="is no delete") as caught:
        forget_ada(town.archive)
    assert "merganser delete" in caught.value.hint and town.memory.files == before
    town.world.log.recreate(TABLE)  # the topic is gone, and its archive is not
    done = Eraser(town.archive, TABLE, [ADA], town.world.log).run()
    assert done.records and not telling(town.memory, None, hashes_of_ada(town.world.log))


@pytest.mark.parametrize(
    ("table", "words", "error"),
    [
        ("people", ["nobody"], InvalidRow),
        ("people", [ADA, ADA], UsageError),
        ("nobody", ["x"], UnknownTable),
    ],
)
def test_what_is_no_key_is_told(table: str, words: list[str], error: type[Exception], objects: MemoryObjects) -> None:
    with pytest.raises(error):
        Eraser(Archive(objects), table, words).plan()


@pytest.mark.slow
def test_on_a_real_s3_server(town: Town, s3_url: str) -> None:
    objects = open_objects(s3_url)
    for name, data in town.memory.files.items():
        objects.put(name, data)
    archive, hashes = Archive(objects), hashes_of_ada(town.world.log)
    assert telling(objects, None, hashes)
    assert forget_ada(archive).records == len(records_of_ada(town.world.log))
    assert not telling(objects, None, hashes) and not verify(archive, catalog(objects)).findings
