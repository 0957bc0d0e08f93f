"""SIGKILL at each named step of a replay: the table is the old one or the new one, and the next run ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from merganser.pipeline.replay.replay import STEPS
from replay.scenes import Scene, held
from restore.town import Town
from stories.txworld import TxWorld

TESTS = Path(__file__).parent.parent

#: In short, the steps at which most is at stake; `make test-long` takes all, test_replay.py all without a kill.
_SHORT = {"applied", "filled", "swapping", "swapped"}
KILLS = [pytest.param(name, marks=() if name in _SHORT else pytest.mark.slow) for name in STEPS]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(TxWorld(5, transactions=40), tmp_path_factory.mktemp("town"))
    town.archive_up_to(town.ends)
    yield town


@pytest.fixture(scope="module")
def archive(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for name, data in town.memory.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def run(archive: Path, store: Path, **more: object) -> int:
    plan = json.dumps({"table": "a", "archive": str(archive), "store": str(store), **more})
    line = [sys.executable, str(TESTS / "replay" / "child.py"), plan]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize("transform", ["", "replay.transforms:same"], ids=["replica", "derived"])
@pytest.mark.parametrize("step", KILLS)
def test_a_replay(step: str, transform: str, town: Town, archive: Path, tmp_path: Path) -> None:
    scene = Scene.of(town, tmp_path, town.ends)
    good = held(scene.path)
    scene.damage("a")
    old = held(scene.path)
    assert run(archive, scene.path, step=step, transform=transform) == -signal.SIGKILL
    swapped = step in ("swapped", "checkpointed", "cleaned")
    now = held(scene.path)
    assert now["a"] == (good if swapped else old)["a"]
    if not (swapped and transform):
        assert now["_merganser.positions"] == (good if swapped else old)["_merganser.positions"]
    assert run(archive, scene.path, transform=transform) == 0
    assert held(scene.path)["a"] == good["a"]
    assert {path.name for path in tmp_path.iterdir()} == {"store.duckdb"}
