"""What cannot be a store, or name one, is refused before there is a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import merganser as mg
from merganser.consumers.kafka import KafkaReader
from merganser.consumers.store import Store
from merganser.schemas.errors import StoreFormat, UsageError
from support.fakelog import FakeLog


@pytest.mark.parametrize("group", ["", " ", None, 5])
def test_a_group_without_a_name(tmp_path: Path, group: Any) -> None:
    """confluent-kafka ends the whole process over an empty one, by an assertion in C."""
    with pytest.raises(UsageError, match="a group is a name"):
        mg.Replica(tmp_path / "r.duckdb", FakeLog(), group, ["t"])
    with pytest.raises(UsageError, match="a group is a name"):
        KafkaReader({}, group)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "_merganser.duckdb", "_merganser"])
def test_a_path_that_cannot_be_a_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreFormat):
        Store(tmp_path / name, "cluster", "g")
    assert not list(tmp_path.iterdir())


def test_limits_that_nothing_can_work_with() -> None:
    with pytest.raises(UsageError, match="threads"):
        mg.Limits(threads=0)
