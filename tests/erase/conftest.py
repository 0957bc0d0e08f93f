"""A town of people, in memory: what it was before anybody was forgotten, and after."""

from __future__ import annotations

import pytest

from erase.erased import FEW, a_town, forget_ada
from erase.people import People
from merganser.pipeline.archive.archive import Archive
from restore.town import Town
from support.memory import MemoryObjects


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return a_town(People(3), tmp_path_factory.mktemp("people"), backups=FEW)


@pytest.fixture
def objects(town: Town) -> MemoryObjects:
    """The town's archive, to do with as one likes."""
    return town.memory.copy()


@pytest.fixture(scope="session")
def forgotten(town: Town) -> MemoryObjects:
    """The same without ada. Copy it."""
    objects = town.memory.copy()
    forget_ada(Archive(objects))
    return objects
