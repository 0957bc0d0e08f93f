"""Who was taken for dead, and goes on: a backup beside an expiry, an expiry beside another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.test_create import NOW, ONE, back_up
from merganser.pipeline.archive.objects import Found
from merganser.pipeline.backup import expire, lease
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.lease import EXPIRING, RUNNING, STALE_S, Lease, expiring
from merganser.pipeline.backup.manifest import Backup
from merganser.pipeline.backup.snapshot import ChunkLimits
from merganser.schemas.errors import BackupBusy
from support.memory import MemoryObjects


def test_a_backup_that_renewed_a_lease_it_had_lost_is_whole(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    for _ in range(2):
        back_up(small, objects)
    monkeypatch.setattr("backup.test_create.SMALL", ChunkLimits(rows=50))  # so that the third has files of its own
    monkeypatch.setattr(lease, "_RENEW_S", -1.0)
    frozen, go_on = threading.Event(), threading.Event()
    made: list[Backup] = []

    def at(name: str) -> None:
        if name == "file-written" and not frozen.is_set():
            frozen.set()
            go_on.wait(20)

    def backup() -> None:
        made.append(back_up(small, objects, step=at))

    thread = threading.Thread(target=backup)
    thread.start()
    assert frozen.wait(20)
    objects.now_s += 2 * STALE_S

    def at_expire(name: str) -> None:
        if name == "mark-removed" and not go_on.is_set():
            go_on.set()
            thread.join(8)

    monkeypatch.setattr(lease, "_WAIT_S", 30.0)
    expire.expire(objects, ONE, NOW, at_expire)
    thread.join(20)
    left = [entry.name for entry in made[0].files if entry.name not in objects.files]
    assert left == []
    assert [found.wrong for found in catalog(objects)] == ["", ""]


def test_an_expiry_that_was_taken_for_dead_leaves_the_next_ones_lock_alone() -> None:
    objects = MemoryObjects()
    with expiring(objects):
        objects.now_s += 2 * STALE_S
        second = expiring(objects)
        assert second.__enter__().alone
    assert EXPIRING in objects.files


def test_who_removes_says_so_again_until_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", -1.0)
    objects = MemoryObjects()
    with expiring(objects) as held:
        objects.now_s += STALE_S - 1
        held.renew()
        objects.now_s += STALE_S - 1
        with pytest.raises(BackupBusy, match="another process removes"):
            expiring(objects).__enter__()
        objects.now_s += 2 * STALE_S
        with expiring(objects):
            with pytest.raises(BackupBusy, match="stood still"):
                held.renew()


def test_a_lease_that_is_taken_away_while_it_is_written_is_not_had() -> None:
    class Between(MemoryObjects):
        armed = True

        def list(self, folder: str, after: str = "") -> Iterator[Found]:
            if self.armed:  # an expiry saw the old one as dead, and takes it away just now
                self.armed = False
                self.delete(f"{RUNNING}/x.json")
            return super().list(folder, after)

    objects = Between()
    objects.put(EXPIRING, b"an expiry at work")
    with pytest.raises(BackupBusy):
        Lease(objects, "x", wait_s=0)
