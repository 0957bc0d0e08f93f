"""The testcontainers way to a broker (``MERGANSER_TEST_BROKER=testcontainers``)."""

from __future__ import annotations

import pytest

containers = pytest.importorskip("support.containers", reason="testcontainers is not installed")


def test_apaches_image_is_configured_for_kraft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testcontainers.core.container.DockerClient", lambda **_: None)  # it looks for an engine
    container = containers.ApacheKafkaContainer()
    container.configure()
    assert container.env["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert container.env["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@localhost:9094"
    assert "KAFKA_BROKER_ID" not in container.env
    assert "PLAINTEXT://10.0.0.7:32768,BROKER://" in container.start_script("10.0.0.7", 32768)


def test_apaches_image_answers_through_testcontainers() -> None:
    reason = containers.no_engine()
    if reason:
        pytest.skip(reason)
    from confluent_kafka.admin import AdminClient

    with containers.ApacheKafkaContainer() as container:
        client = AdminClient({"bootstrap.servers": container.get_bootstrap_server()})
        assert len(client.describe_cluster().result(30).nodes) == 1
