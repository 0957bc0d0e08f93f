"""docker-compose.yml, as far as it can be told without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text()))


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 9
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_each_broker_advertises_the_port_that_is_published(compose: dict[str, Any]) -> None:
    for number in (1, 2, 3):
        broker = compose["services"][f"kafka-{number}"]
        published = broker["ports"][0].removesuffix(":9092")
        assert (
            broker["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"INSIDE://kafka-{number}:19092,HOST://{published}"
        )
        assert broker["environment"]["KAFKA_NODE_ID"] == number
        assert broker["environment"]["KAFKA_MIN_INSYNC_REPLICAS"] == 2


def test_everything_named_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", [])) <= set(compose["services"])
        for place in (volume.split(":")[0] for volume in service.get("volumes", [])):
            assert place in compose["volumes"] or (place.startswith("./") and (COMPOSE.parent / place).is_dir())
        assert {config["source"] for config in service.get("configs", [])} <= set(compose["configs"])
        assert "build" in service or ":" in service["image"], "images are pinned by a tag"
    for config in compose["configs"].values():
        yaml.safe_load(config["content"])


def test_two_replicas_are_two_copies(compose: dict[str, Any]) -> None:
    replicas = [compose["services"][name] for name in ("replica-dc1", "replica-dc2")]
    for option in ("--group", "--store"):
        values = {word for replica in replicas for word in replica["command"] if word.startswith(option)}
        assert len(values) == 2
