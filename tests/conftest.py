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


def pytest_configure() -> None:
    from merganser.pipeline.broker import user_jars

    os.environ.setdefault("MERGANSER_JARS", str(user_jars()))


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


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that the test may kill."""
    from merganser.pipeline.broker import LocalBroker

    broker = LocalBroker(tmp_path / "home")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


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
