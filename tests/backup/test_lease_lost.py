"""A backup that was taken for dead, and writes its lease anew while it goes on: the expiry is still at work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from backup.test_create import NOW, ONE, back_up
from merganser.pipeline.backup import expire, lease
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.lease import STALE_S
from merganser.pipeline.backup.manifest import Backup
from merganser.pipeline.backup.snapshot import ChunkLimits
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
