"""SIGKILL at each named step of a backup, an expiry and a restore: the next run comes to the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.backup import create, expire, snapshot
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.lease import STALE_S
from merganser.pipeline.backup.verify import verify
from merganser.pipeline.restore import restore
from restore.conftest import halfway
from restore.town import Town, held

TESTS = Path(__file__).parent.parent

#: In short, the steps at which most is at stake; `make test-long` takes all.
_SHORT = {"published", "archive-applied", "aside"}


def steps(*names: str) -> list[object]:
    return [pytest.param(name, marks=() if name in _SHORT else pytest.mark.slow) for name in names]


def run(do: str, archive: Path, store: Path, **more: object) -> int:
    plan = json.dumps({"do": do, "archive": str(archive), "store": str(store), **more})
    line = [sys.executable, str(TESTS / "restore" / "child.py"), plan]
    done = subprocess.run(
        line, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture
def archive(town: Town, tmp_path: Path) -> Path:
    """The town's archive as files."""
    folder = tmp_path / "archive"
    for name, data in town.memory.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def sound(folder: Path) -> int:
    """How many backups there are, all of them whole."""
    archive = Archive(folder)
    found = catalog(archive.objects)
    report = verify(archive, found)
    assert not report.findings and not report.loose, report
    return len(found)


def grow_old(folder: Path) -> None:
    """What processes left that were killed is more than an hour old."""
    for path in [*(folder / "backups" / "running").glob("*.json"), folder / "backups" / "expiring.json"]:
        if path.exists():
            os.utime(path, (path.stat().st_mtime - STALE_S - 1,) * 2)


@pytest.mark.parametrize("step", steps(*snapshot.STEPS, *create.STEPS))
def test_a_backup(step: str, town: Town, archive: Path) -> None:
    before, store = sound(archive), town.folded(town.ends)
    assert run("backup", archive, store, step=step) == -signal.SIGKILL
    assert run("backup", archive, store) == 0
    assert sound(archive) == before + 1 + (step in ("published", "marked"))


@pytest.mark.parametrize("step", steps(*expire.STEPS))
def test_an_expiry(step: str, town: Town, archive: Path) -> None:
    store = town.folded(halfway(town.ends, 1, 5))
    assert run("backup", archive, store) == 0
    assert run("expire", archive, store, step=step) == -signal.SIGKILL
    grow_old(archive)
    assert run("expire", archive, store) == 0
    assert sound(archive) == 1


@pytest.mark.parametrize("step", steps(*restore.STEPS))
def test_a_restore(step: str, town: Town, archive: Path, tmp_path: Path) -> None:
    path, target = tmp_path / "new.duckdb", halfway(town.ends, 4, 5)
    old = town.folded(halfway(town.ends, 1, 5))
    shutil.copyfile(old, path)
    assert run("restore", archive, path, to=str(target), step=step) == -signal.SIGKILL
    assert run("restore", archive, path, to=str(target)) == 0
    assert held(path) == held(town.folded(target))
    [aside] = tmp_path.glob("new.duckdb.before-restore-*")
    assert held(aside) == held(old)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "new.duckdb", aside.name}
