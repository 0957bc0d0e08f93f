"""The session's broker, as a log and an admin client; a table name for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

import merganser as mg


@pytest.fixture(scope="session")
def log(broker: str) -> Iterator[mg.Log]:
    with mg.connect(broker) as opened:
        yield opened


@pytest.fixture(scope="session")
def admin(broker: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker})


@pytest.fixture
def name() -> str:
    """A table, and a group, that no other test has."""
    return f"t-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def quick_cleaner(admin: AdminClient) -> None:
    """The log cleaner looks every 0.2 s, not every 15 s."""
    entry = ConfigEntry("log.cleaner.backoff.ms", "200", incremental_operation=AlterConfigOpType.SET)
    for broker_id in admin.list_topics(timeout=20).brokers:
        resource = ConfigResource(ResourceType.BROKER, str(broker_id), incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(20)
