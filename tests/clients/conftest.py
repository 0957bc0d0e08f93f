"""The node that docs/recipes.md asks, started by the block with which the page begins."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.page import FLIGHT, HTTP, Room, recipe
from merganser.pipeline.broker.local import free_ports
from support.waiting import wait_for


@pytest.fixture(scope="session")
def room(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A folder with the node of the page's first block."""
    folder = tmp_path_factory.mktemp("recipes")
    http, flight = (f"127.0.0.1:{port}" for port in free_ports(2))
    made = Room(folder, {HTTP: http, FLIGHT: flight}, broker)
    with (folder / "node.out").open("w") as out, (folder / "node.err").open("w") as err:
        block = ["bash", "-euo", "pipefail", "-c", made.there(recipe("Recipes").code("sh"))]
        shell = subprocess.Popen(block, cwd=folder, env=made.env_of({}), stdout=out, stderr=err, start_new_session=True)
        try:
            assert shell.wait(60) == 0, (folder / "node.err").read_text()
            yield made
        finally:
            _end(shell.pid)
    assert "Traceback" not in (folder / "node.err").read_text()


def _end(group: int) -> None:
    """End what the block left in the background: the node."""
    if _lives(group):
        os.killpg(group, signal.SIGTERM)
    wait_for("the node to end", lambda: not _lives(group))


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def fresh(room: Room, tmp_path: Path) -> Room:
    """The same node, from an empty folder."""
    return Room(tmp_path, room.addresses, room.broker)
