"""One broker and one registry for the whole session, started when the first test asks for them.

``MERGANSER_TEST_BROKER=testcontainers`` takes the broker from Docker instead (support/containers.py).
Jars are fetched once, to where the command line has them (or ``MERGANSER_JARS``), and hashed at each start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from merganser.pipeline.broker import LocalBroker
    from support.apicurio import Apicurio

CHECKOUT = Path(__file__).parent.parent
CACHE = CHECKOUT / ".merganser"

settings.register_profile("steady", derandomize=True)

#: Files that take longest for the number of their tests; those that work beside those that wait.
LONG = (
    "test_crash",
    "test_split_group",
    "test_broker_life",
    "test_transaction_outage",
    "test_history",
    "test_broker_outage",
    "test_store_failures",
    "test_shop",
    "test_lost_logs",
    "test_bad_records",
    "test_archive_kafka",
    "test_live_node",
    "test_kill",
    "test_drill",
    "test_import",
    "test_live",
)


def pytest_configure() -> None:
    from merganser.pipeline.broker import user_jars

    os.environ.setdefault("MERGANSER_JARS", str(user_jars()))
    # Brokers that live for minutes: what Java's second compiler takes, they never get back.
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, or one worker is busy with it when the others are done."""
    rank = {name: n for n, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def merganser_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``MERGANSER_HOME`` of the session, so that no test touches the user's. What runs there at the end is stopped."""
    home = tmp_path_factory.mktemp("merganser-home")
    before = os.environ.get("MERGANSER_HOME")
    os.environ["MERGANSER_HOME"] = str(home)
    try:
        yield home
    finally:
        if (home / "broker").exists():
            from merganser.pipeline.broker import LocalBroker

            LocalBroker(home).stop()
        if before is None:
            del os.environ["MERGANSER_HOME"]
        else:
            os.environ["MERGANSER_HOME"] = before


@pytest.fixture(scope="session")
def broker(merganser_home: Path) -> Iterator[str]:
    """Bootstrap servers of a fresh one-node Kafka, shared by the session. Name topics and groups uniquely."""
    if os.environ.get("MERGANSER_TEST_BROKER") == "testcontainers":
        yield from _container()
        return
    from merganser.pipeline.broker import LocalBroker

    yield LocalBroker(merganser_home).start().bootstrap_servers


@pytest.fixture(scope="session")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    from merganser.pipeline.broker import LocalBroker

    broker = LocalBroker(tmp_path_factory.mktemp("spare"))
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def own_broker(spare: LocalBroker) -> LocalBroker:
    """A running broker that the test may kill: the next one starts it again. Name topics uniquely."""
    spare.start()
    return spare


def _container() -> Iterator[str]:
    from support.containers import ApacheKafkaContainer, no_engine

    reason = no_engine()
    if reason:
        pytest.skip(reason)
    with ApacheKafkaContainer() as container:
        yield container.get_bootstrap_server()


@pytest.fixture(scope="session")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """A running Apicurio Registry with ``.url``, ``.stop()`` and ``.start()``. For tests marked slow.

    A test that stops it starts it again before it ends.
    """
    from merganser.pipeline.broker.local import free_ports
    from support.apicurio import Apicurio

    registry = Apicurio(CACHE, tmp_path_factory.mktemp("apicurio"), port=free_ports(1)[0])
    try:
        yield registry.start()
    finally:
        registry.stop()
