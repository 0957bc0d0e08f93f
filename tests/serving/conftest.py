"""A served replica, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from merganser.pipeline.serving.guard.guard import Guard
from serving.hostile import LIMITS
from serving.world import World, world


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("served")) as opened:
        yield opened


@pytest.fixture(scope="module")
def guard(served: World) -> Iterator[Guard]:
    """Within small limits."""
    opened = Guard(served.replica, LIMITS)
    yield opened
    opened.close()
