"""Making backups and removing files, kept apart.

A backup that is being made names files that only its manifest, at its end, will protect. So who makes one says so
first, in a file under ``running``, and who removes files says so first, in ``expiring.json``; each then looks
for the other. Both see each other, or one sees the other: never neither.

Invariants
- Nothing is removed while a backup is being made. A backup begins when nothing is being removed.
- So who has a lease, and sees that all files of a manifest are there, may mark it: nothing takes them any more.
- Ages are differences of the object store's own times, never of two hosts' clocks. What is older than an hour, and
  was not renewed, was left by a process that died; a backup that lost its lease so looks whether its files are there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from ...schemas.errors import BackupBusy
from ..archive.objects import Objects
from .manifest import FOLDER

RUNNING = f"{FOLDER}/running"
EXPIRING = f"{FOLDER}/expiring.json"

STALE_S = 3600.0
_RENEW_S = 60.0
_WAIT_S = 60.0
_POLL_S = 0.5


class Lease:
    """A backup, *id*, is being made, from construction to :meth:`release`. BackupBusy if files are being removed."""

    def __init__(self, objects: Objects, id_: str, wait_s: float = _WAIT_S) -> None:
        self._objects = objects
        self._name = _name(id_)
        self._written_s = 0.0
        self._take(wait_s)

    def _take(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            self._write()
            ages = _ages(self._objects, self._name)
            if ages is None:
                continue  # taken away in this very moment, by an expiry: it is to be seen
            if EXPIRING not in ages:
                return
            if ages[EXPIRING] > STALE_S:
                self._objects.delete(EXPIRING)
            elif time.monotonic() > deadline:
                self.release()
                raise BackupBusy(self._objects.url, "files of backups are being removed (backup expire)")
            else:
                self.release()
                time.sleep(_POLL_S)

    def renew(self) -> None:
        """Say again that the backup is being made; cheap if it was said lately."""
        if time.monotonic() - self._written_s > _RENEW_S:
            self._write()

    def ensure(self) -> None:
        """Have it from now on, also if it was taken away meanwhile for a dead one's. Then files may be gone.

        It may have been taken away and written again by :meth:`renew`, so it is not enough that it is there.
        """
        self._take(_WAIT_S)

    def release(self) -> None:
        self._objects.delete(self._name)

    def _write(self) -> None:
        self._objects.put(self._name, b"{}\n")
        self._written_s = time.monotonic()


class Alone:
    """Nobody else removes backups; *alone*: none is being made either. BackupBusy once that no longer holds."""

    def __init__(self, objects: Objects, mine: bytes, alone: bool) -> None:
        self._objects, self._mine, self.alone = objects, mine, alone
        self._written_s = time.monotonic()

    def renew(self) -> None:
        """Say so again; cheap if it was said lately."""
        if time.monotonic() - self._written_s <= _RENEW_S:
            return
        if self._objects.read(EXPIRING) != self._mine:
            raise BackupBusy(self._objects.url, "this process stood still for an hour, and another has gone on since")
        self._objects.put(EXPIRING, self._mine)
        self._written_s = time.monotonic()


@contextmanager
def expiring(objects: Objects) -> Iterator[Alone]:
    """Files may be removed inside, if it yields one that is *alone*. BackupBusy if another removes."""
    mine = f"{uuid4()}\n".encode()
    if not objects.create(EXPIRING, mine):
        _break_if_stale(objects)
        if not objects.create(EXPIRING, mine):
            raise BackupBusy(objects.url, "another process removes backups")
    try:
        ages = _ages(objects, EXPIRING) or {}
        running = {name for name in ages if name.startswith(f"{RUNNING}/")}
        dead = {name for name in running if ages[name] > STALE_S}
        for name in dead:
            objects.delete(name)
        yield Alone(objects, mine, running == dead)
    finally:
        if objects.read(EXPIRING) == mine:  # else it took so long that another one began
            objects.delete(EXPIRING)


def _name(id_: str) -> str:
    return f"{RUNNING}/{id_}.json"


def _break_if_stale(objects: Objects) -> None:
    """Take away what an `expire` that died left behind, once it is old enough."""
    probe = f"{FOLDER}/clock-{uuid4()}.json"
    objects.put(probe, b"{}\n")
    try:
        if (_ages(objects, probe) or {}).get(EXPIRING, 0) > STALE_S:
            objects.delete(EXPIRING)
    finally:
        objects.delete(probe)


def _ages(objects: Objects, now: str) -> dict[str, float] | None:
    """How much older than *now*, which was written just now, each lease is, by the store's clock; None if *now* is
    gone again."""
    times = {found.name: found.modified_s for found in objects.list(FOLDER)}
    leases = {name: at for name, at in times.items() if name == EXPIRING or name.startswith(f"{RUNNING}/")}
    return {name: times[now] - at for name, at in leases.items() if name != now} if now in times else None
