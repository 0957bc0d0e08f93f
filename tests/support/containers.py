"""The tests' second way to a broker: Apache's own image through testcontainers, where a Docker engine answers.

``MERGANSER_TEST_BROKER=testcontainers pytest`` takes it. testcontainers' ``KafkaContainer`` is made for
Confluent's image: its start script runs files under /etc/confluent, and ``with_kraft()`` refuses a tag
below 7.0.0. Apache's image has the same steps under /etc/kafka/docker, so one method is ours.
"""

from __future__ import annotations

from testcontainers.community.kafka import KafkaContainer

IMAGE = "apache/kafka:4.3.1"

# As the local broker has it: see pipeline/broker/config.py.
SETTINGS = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "6000",
}


class ApacheKafkaContainer(KafkaContainer):
    """One KRaft node of Apache's image."""

    def __init__(self) -> None:
        super().__init__(IMAGE)
        self.kraft_enabled = True  # what with_kraft() sets, without its check of Confluent's version numbers
        del self.env["KAFKA_BROKER_ID"]  # KRaft has KAFKA_NODE_ID, which configure() sets
        for name, value in SETTINGS.items():
            self.with_env(name, value)

    def start_script(self, host: str, port: int) -> str:
        """The port on the host is known only once the container runs, so it waits for this script."""
        outside = f"{self.listener_name}://{host}:{port}"
        return (
            "#!/bin/bash\n"
            f"export KAFKA_ADVERTISED_LISTENERS={outside},BROKER://$(hostname -i):9092\n"
            "exec /etc/kafka/docker/run\n"
        )

    def tc_start(self) -> None:
        script = self.start_script(self.get_container_host_ip(), self.get_exposed_port(self.port))
        self.create_file(script.encode(), self.TC_START_SCRIPT)


def no_engine() -> str | None:
    """Why there is no Docker engine here; None if one answers."""
    import docker
    from testcontainers.core.docker_client import DockerClient

    try:
        DockerClient().client.ping()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers: {str(error).splitlines()[0]}"
    return None
