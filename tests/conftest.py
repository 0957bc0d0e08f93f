"""One broker for the whole run, started when the first test asks for it; its workers share it.

``MERGANSER_TEST_BROKER=testcontainers`` takes the broker from Docker instead (support/containers.py).
Jars are fetched once, to where the command line has them (or ``MERGANSER_JARS``), and hashed at each start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from merganser.pipeline.broker import LocalBroker
    from support.apicurio import Apicurio
    from support.s3 import S3

CHECKOUT = Path(__file__).parent.parent
CACHE = CHECKOUT / ".merganser"

_SHARED_HOME = "MERGANSER_TEST_HOME"

#: How long an example takes says how busy the machine is, and nothing of us.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", UNHURRIED, derandomize=True)
settings.register_profile("varied", UNHURRIED)

#: What takes longest, first: one of those that wait for Kafka, three that do without it (its first start takes the
#: time of a download), the others that wait.
LONG = (
    "test_crash",
    "test_store_failures",
    "test_atomicity",
    "test_damage",
    "test_split_group",
    "test_broker_life",
    "test_lost_everything",
    "test_import",
    "test_drill",
    "test_replay",
    "test_live_node",
    "test_lost_logs",
    "test_transaction",
    "test_transaction_outage",
    "test_kill",
    "test_history",
    "test_page",
    "test_recovery",
    "test_shop",
    "test_cli_replica",
    "test_cli_backup",
    "test_live",
    "test_cli_replay",
    "test_cli_rows",
    "test_broker_outage",
    "test_bad_records",
    "test_archive_kafka",
)


def pytest_configure(config: pytest.Config) -> None:
    from merganser.pipeline.broker import user_jars

    if not hasattr(config, "workerinput"):  # the one that starts the workers, and outlives them
        home = tempfile.mkdtemp(prefix="merganser-test-")
        os.environ[_SHARED_HOME] = home
        config.add_cleanup(lambda: _end(Path(home)))
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
        _end(home)
        if before is None:
            del os.environ["MERGANSER_HOME"]
        else:
            os.environ["MERGANSER_HOME"] = before


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap servers of a fresh one-node Kafka, shared by the whole run. Name topics and groups uniquely."""
    if os.environ.get("MERGANSER_TEST_BROKER") == "testcontainers":
        yield from _container()
        return
    from merganser.pipeline.broker import LocalBroker

    yield LocalBroker(Path(os.environ[_SHARED_HOME])).start(wait_s=120).bootstrap_servers


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
    spare.start(wait_s=120)
    return spare


def _end(home: Path) -> None:
    """Stop what runs there, and leave nothing."""
    if (home / "broker").exists():
        from merganser.pipeline.broker import LocalBroker

        LocalBroker(home).stop()
    shutil.rmtree(home, ignore_errors=True)


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A running S3 API server with a bucket ``merganser``. For tests marked slow: it is built from source at first."""
    from merganser.pipeline.broker.local import free_ports
    from support.s3 import S3

    server = S3(tmp_path_factory.mktemp("s3"), free_ports(1)[0])
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def s3_url(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place of the test's own on that server, with the environment that leads there."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://merganser/{tmp_path.name}"
