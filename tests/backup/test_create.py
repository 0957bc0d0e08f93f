"""Backups are made whole or not at all, go on after a kill, and live beside an expiry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup.restored import dump
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.backup import create, expire, lease, snapshot
from merganser.pipeline.backup.catalog import catalog, find
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.backup.expire import forget, preview
from merganser.pipeline.backup.lease import EXPIRING, STALE_S, Lease
from merganser.pipeline.backup.manifest import Backup, Type, mark_name
from merganser.pipeline.backup.manifest import manifest_name as manifest
from merganser.pipeline.backup.policy import Policy
from merganser.pipeline.backup.snapshot import ChunkLimits
from merganser.schemas.errors import ArchiveDamaged, BackupBusy, UnknownBackup, UsageError
from stories.world import Crash
from support.memory import MemoryObjects

SMALL = ChunkLimits(rows=64)
NOW = datetime(2100, 1, 1, tzinfo=UTC)
ONE = Policy(full=1)


def back_up(
    store: Path, objects: MemoryObjects, type_: Type = "full", step: Callable[[str], None] = lambda step: None
) -> Backup:
    with StoreFile(store) as source:
        return Backups(objects, None, SMALL, step=step).create(source, Request(type_), lambda position: None)


def stop_at(wanted: str, nth: int = 1) -> Callable[[str], None]:
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if seen.count(wanted) == nth and name == wanted:
            raise Crash(name)

    return step


def killed(objects: MemoryObjects) -> MemoryObjects:
    """What a process that was killed leaves: its lease too, which its ``finally`` would have taken away."""
    for found in catalog(objects):
        objects.put(f"{lease.RUNNING}/{found.id}.json", b"{}\n")
    objects.put(f"{lease.RUNNING}/20260101T000000.000Z-abcdef.json", b"{}\n")
    return objects


def test_a_backup_says_what_the_store_was(small: Path) -> None:
    objects = MemoryObjects()
    made = back_up(small, objects)
    with StoreFile(small) as source:
        assert made.read == source.position
        assert {t.topic: t.digest.partition("-")[0] for t in made.tables} == {
            name: str(len(rows)) for name, rows in _rows(source).items()
        }
    assert find(objects, made.id) == find(objects, made.id[:20]) == made
    assert [found.wrong for found in catalog(objects)] == [""]


def _rows(source: StoreFile) -> dict[str, list[tuple[object, ...]]]:
    with source.reading() as cursor:
        return dump(cursor, ["keyed", "plain"])


def test_an_incremental_one_follows_the_newest_full_one_and_copies_nothing(small: Path) -> None:
    objects = MemoryObjects()
    first = back_up(small, objects, "incr")
    assert first.type == "full", "there is nothing yet that it could follow"
    second = back_up(small, objects)
    third = back_up(small, objects, "incr")
    assert (third.type, third.base, third.files, third.tables) == ("incr", second.id, (), second.tables)


def test_what_was_never_marked_and_lacks_files_is_no_base(small: Path) -> None:
    objects = MemoryObjects()
    begun = back_up(small, objects)
    objects.delete(mark_name(begun.id))
    objects.delete(begun.files[0].name)
    made = back_up(small, objects, "incr")
    assert made.type == "full" and begun.files[0].name in objects.files


def test_unchanged_files_are_named_and_not_copied(small: Path) -> None:
    objects = MemoryObjects()
    first, second = back_up(small, objects), back_up(small, objects)
    assert (second.files, second.new_bytes) == (first.files, 0) and first.new_bytes == first.size


#: In short; `make test-long` takes all.
_SHORT = {"read", "published"}


def marked(step: str) -> object:
    return () if step in _SHORT else pytest.mark.slow


ALL = (*snapshot.STEPS, *create.STEPS)
STEPS = [*(pytest.param(step, 1, marks=marked(step)) for step in ALL), ("file-written", 4)]


@pytest.mark.parametrize(("step", "nth"), STEPS)
def test_killed_at_any_step_the_next_one_goes_on(step: str, nth: int, small: Path) -> None:
    objects = MemoryObjects()
    with pytest.raises(Crash):
        back_up(small, objects, step=stop_at(step, nth))
    left = {name for name in objects.files if name.startswith("files/")}
    objects.written.clear()
    made = back_up(small, killed(objects))
    assert not left & set(objects.written), "what was uploaded is found by its hash"
    assert all(found.wrong == "" for found in catalog(objects))
    finished = step in ("published", "marked")
    assert len(catalog(objects)) == 1 + finished
    assert made.files == find(objects, made.id).files


def test_a_backup_that_was_deleted_is_missed(small: Path) -> None:
    objects = MemoryObjects()
    back_up(small, objects)
    newest = back_up(small, objects)
    for name in [name for name in objects.files if name.startswith(f"backups/{newest.id}/")]:
        objects.delete(name)
    assert "deleted" in catalog(objects)[-1].wrong
    with pytest.raises(ArchiveDamaged, match="deleted"):
        expire.expire(objects, ONE, NOW)
    forget(objects, newest.id)
    assert [found.wrong for found in catalog(objects)] == [""]


def test_a_whole_backup_is_not_forgotten_and_an_unknown_one_told(small: Path) -> None:
    objects = MemoryObjects()
    made = back_up(small, objects)
    with pytest.raises(UsageError, match="is whole"):
        forget(objects, made.id)
    with pytest.raises(UnknownBackup):
        forget(objects, "nonsense")
    with pytest.raises(UnknownBackup):
        find(objects, "")


# -- beside an expiry ------------------------------------------------------------------------


def grown(objects: MemoryObjects, stores: list[Path]) -> list[Backup]:
    return [back_up(store, objects) for store in stores]


def test_what_no_backup_names_goes_and_nothing_else(small: Path, other: Path) -> None:
    objects = MemoryObjects()
    first, second = grown(objects, [other, small])
    shown = preview(objects, ONE, NOW)
    assert {v.backup.id for v in shown.verdicts if not v.kept} == {first.id} and len(objects.files) > 20
    done = expire.expire(objects, ONE, NOW)
    assert [file.name for file in done.files] == [file.name for file in shown.files]
    assert {name for name in objects.files if name.startswith("files/")} == {entry.name for entry in second.files}
    assert [found.id for found in catalog(objects)] == [second.id] and EXPIRING not in objects.files


@pytest.mark.parametrize("step", expire.STEPS)
def test_an_expiry_that_was_killed_is_finished_by_the_next(step: str, small: Path, other: Path) -> None:
    objects = MemoryObjects()
    _, second = grown(objects, [other, small])
    with pytest.raises(Crash):
        expire.expire(objects, ONE, NOW, stop_at(step))
    objects.put(EXPIRING, b"left by a killed process\n")
    with pytest.raises(BackupBusy):
        expire.expire(objects, ONE, NOW)
    objects.now_s += STALE_S + 1
    expire.expire(objects, ONE, NOW)
    assert {name for name in objects.files if name.startswith("files/")} == {entry.name for entry in second.files}


@pytest.mark.parametrize("step", [pytest.param(step, marks=marked(step)) for step in ALL])
def test_an_expiry_at_any_step_of_a_backup_takes_nothing_that_it_needs(step: str, small: Path, other: Path) -> None:
    objects = MemoryObjects()
    grown(objects, [other, small])
    for found in catalog(objects):  # nothing names the files now, and the next backup will find them
        objects.delete(mark_name(found.id))
        objects.delete(manifest(found.id))

    def at(name: str) -> None:
        if name == step:
            expire.expire(objects, ONE, NOW)

    made = back_up(small, objects, step=at)
    assert all(entry.name in objects.files for entry in made.files)
    assert [found.wrong for found in catalog(objects)] == [""]


def test_a_backup_that_was_taken_for_dead_begins_again(small: Path) -> None:
    """It stood still for two hours, and meanwhile an expiry removed what it had uploaded."""
    objects, seen = MemoryObjects(), list[str]()

    def at(name: str) -> None:
        seen.append(name)
        if name == "read" and seen.count("read") == 1:
            objects.now_s += 2 * STALE_S
            assert expire.expire(objects, ONE, NOW).files

    made = back_up(small, objects, step=at)
    assert seen.count("read") == 2
    assert all(entry.name in objects.files for entry in made.files)
    assert [found.id for found in catalog(objects)] == [made.id]


def test_a_backup_whose_lease_was_taken_waits_until_the_expiry_is_over(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expiry looked at the manifests before this one was there, and is still removing what it found unnamed."""
    objects, seen = MemoryObjects(), list[str]()

    def at(name: str) -> None:
        seen.append(name)
        if name == "read" and seen.count("read") == 1:
            for running in [found.name for found in objects.list(lease.RUNNING)]:
                objects.delete(running)
            objects.put(EXPIRING, b"an expiry at work\n")

    def meanwhile(seconds: float) -> None:
        objects.delete(next(found.name for found in objects.list("files")))
        objects.delete(EXPIRING)

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    made = back_up(small, objects, step=at)
    assert seen.count("read") == 2
    assert all(entry.name in objects.files for entry in made.files)
    assert [found.wrong for found in catalog(objects)] == [""]


def test_a_backup_waits_for_an_expiry_and_ends_in_an_error() -> None:
    objects = MemoryObjects()
    objects.put(EXPIRING, b"somebody's\n")
    with pytest.raises(BackupBusy, match="being removed"):
        Lease(objects, "x", wait_s=0)
    assert list(objects.files) == [EXPIRING]
    objects.now_s += STALE_S + 1
    Lease(objects, "x", wait_s=0)
    assert EXPIRING not in objects.files
