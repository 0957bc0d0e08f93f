"""A served replica, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from merganser.pipeline.serving.guard.guard import Guard
from serving.hostile import LIMITS, PATIENT
from serving.world import World, world


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("served")) as opened:
        yield opened


@pytest.fixture(scope="module")
def guard(served: World) -> Iterator[Guard]:
    """Within small limits."""
    opened = Guard(served.replica, PATIENT)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def hasty(served: World) -> Iterator[Guard]:
    """For what is to be refused: what has no end is stopped soon."""
    opened = Guard(served.replica, LIMITS)
    yield opened
    opened.close()
