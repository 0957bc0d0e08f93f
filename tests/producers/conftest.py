"""The session's broker as a log, and tables of a test's own on it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from producer_tables import SCHEMA

from merganser.pipeline.log import Log, connect
from merganser.schemas.table import Table


@pytest.fixture
def log(broker: str) -> Iterator[Log]:
    with connect(broker) as log:
        yield log


@pytest.fixture
def orders(log: Log) -> Table:
    return log.create_table(f"orders-{uuid.uuid4().hex[:8]}", SCHEMA, ["order_id"])


@pytest.fixture
def events(log: Log) -> Table:
    """Rows without a key."""
    return log.create_table(f"events-{uuid.uuid4().hex[:8]}", SCHEMA)
