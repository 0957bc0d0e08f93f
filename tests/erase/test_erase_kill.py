"""Killed at each named step: what is there can be read, and the same command goes on (FAILURES 31)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from erase.erased import cells, forget_ada
from erase.people import hashes_of_ada, tells_of_ada
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.segments import batches
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.backup.lease import EXPIRING, STALE_S
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.erase.erase import STEPS
from restore.town import Town
from stories.world import Crash
from support.memory import MemoryObjects
from support.naive import both_ways, caught

TESTS = Path(__file__).parent.parent

#: In short, the steps at which most is at stake; `make test-long` takes all.
_SHORT = ("manifest-put", "staged", "published", "replaced", "file-removed")


def some(short: tuple[str, ...]) -> list[object]:
    return [pytest.param(step, marks=() if step in short else pytest.mark.slow) for step in STEPS if step != "swept"]


def killed(objects: MemoryObjects, step: str, nth: int) -> bool:
    """Whether an erasure came to *step* for the *nth* time, and was killed there: what it says of itself stays."""
    left = [nth]

    def on_step(name: str) -> None:
        left[0] -= name == step
        if name == step and left[0] == 0:
            raise Crash(step)

    try:
        forget_ada(Archive(objects), on_step)
    except Crash:
        objects.put(EXPIRING, b"of the one that was killed\n")
        objects.now_s += STALE_S + 1
        return True
    return False


def readable(objects: MemoryObjects) -> None:
    """Every chain, and every segment that it names."""
    archive = Archive(objects)
    for topic in archive.topics():
        for place in archive.declared(topic)[-1].places:
            for link in archive.chain(place).links:
                assert sum(batch.num_rows for batch in batches(archive.segment(link))) == link.rows


def forgotten(town: Town, objects: MemoryObjects, drills: bool = True) -> None:
    """Nothing tells of her any more, and nothing else is wrong."""
    hashes = hashes_of_ada(town.world.log)
    assert not [name for name, data in cells(objects) if tells_of_ada(data) or data.hex() in hashes]
    archive, found = Archive(objects), catalog(objects)
    report = verify(archive, found)
    assert not report.findings and not report.loose and not [each.wrong for each in found if each.wrong]
    assert not [note for note in check(archive).notes if note.kind != "erased"]
    for each in found if drills else ():
        assert each.backup is not None and not drill(archive, each.backup).wrong


@pytest.mark.parametrize("step", some(_SHORT))
@pytest.mark.parametrize("nth", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_next_run_goes_on(step: str, nth: int, town: Town, objects: MemoryObjects) -> None:
    if not killed(objects, step, nth):
        assert nth > 1
        return
    readable(objects)
    forget_ada(Archive(objects))
    forgotten(town, objects)


def data_first(patch: pytest.MonkeyPatch) -> None:
    """Naive: data is removed before the manifest that names it is replaced."""
    patch.setattr(MemoryObjects, "put", _removing(MemoryObjects.put))


def _removing(put: object) -> object:
    def naive(self: MemoryObjects, name: str, data: bytes) -> None:
        if name.startswith("log/") and b'"was"' in data and name in self.files:
            self.files.pop(json.loads(self.files[name])["file"], None)
            raise Crash("between")
        put(self, name, data)  # type: ignore[operator]

    return naive


@both_ways
def test_at_each_moment_what_a_manifest_names_is_there(
    naive: bool, objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        data_first(monkeypatch)

    def look(step: str) -> None:
        if step in ("published", "replaced", "data-removed"):
            readable(objects)

    with caught(naive):
        try:
            forget_ada(Archive(objects), look)
        except Crash:
            readable(objects)


@pytest.mark.parametrize("step", some(("replaced",)))
def test_a_process_that_is_killed_is_followed_by_one_that_goes_on(step: str, town: Town, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    for name, data in town.memory.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    line = [sys.executable, str(TESTS / "erase" / "child.py"), str(folder), step]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    claim = folder / EXPIRING
    os.utime(claim, (claim.stat().st_mtime - STALE_S - 1,) * 2)
    forget_ada(Archive(folder))
    held = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    forgotten(town, MemoryObjects(held), drills=False)
