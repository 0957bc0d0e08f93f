"""Asking Kafka itself whether it is there."""

from __future__ import annotations

import concurrent.futures

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ...schemas.errors import BrokerError
from .config import Cluster


class Admin:
    """One admin client, for the question "are you all there?"."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = AdminClient(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 250,
                "log_level": 0,  # refused connections are the normal case here
            }
        )

    def answers(self, wait_s: float) -> bool:
        """Whether every node is a live member of *this* cluster, as the cluster itself sees it."""
        asked = self._client.describe_cluster(request_timeout=wait_s)
        try:
            found = asked.result(timeout=wait_s + 5)
        except (KafkaException, concurrent.futures.TimeoutError):
            return False
        if found.cluster_id != self._cluster.cluster_id:
            raise BrokerError(
                f"another Kafka (cluster {found.cluster_id}) answers at {self._cluster.bootstrap_servers}",
                hint="stop that one, or use another MERGANSER_HOME",
            )
        return len(found.nodes) == len(self._cluster.nodes)
