"""What Kafka does not permit is told as that, with what it was asked of: no broker is away then."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from merganser.schemas.errors import LogUnavailable, NotPermitted
from merganser.schemas.kafka import Cluster
from merganser.schemas.position import TopicPartition
from merganser.schemas.registry_log import _Reader

AWAY = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


class Refusing:
    """An admin client whose every question ends in *error*."""

    def __init__(self, error: int) -> None:
        self._failed: Future[Any] = Future()
        self._failed.set_exception(KafkaException(KafkaError(error)))

    def poll(self, timeout: float) -> int:
        return 0

    def describe_cluster(self, **_: Any) -> Future[Any]:
        return self._failed

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        return {"orders": self._failed}

    def list_offsets(self, asked: Any, **_: Any) -> dict[Any, Future[Any]]:
        return dict.fromkeys(asked, self._failed)

    def describe_consumer_groups(self, groups: Any, **_: Any) -> dict[str, Future[Any]]:
        return dict.fromkeys(groups, self._failed)


def refused(error: int) -> Cluster:
    cluster = Cluster(AWAY, 0.2)
    cluster._admin = Refusing(error)  # type: ignore[assignment]
    return cluster


def test_the_error_names_what_is_not_permitted() -> None:
    cluster = refused(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(NotPermitted, match=r"does not permit.*topic 'orders': .*Topic authorization failed"):
        cluster.identify(["orders"])
    with pytest.raises(NotPermitted, match="topic 'orders'"):
        cluster.ends([TopicPartition("orders", 0)])
    with pytest.raises(NotPermitted, match=r"group 'shop': .*Group authorization failed"):
        refused(KafkaError.GROUP_AUTHORIZATION_FAILED).members("shop")
    with pytest.raises(NotPermitted, match=r"the cluster: .*Cluster authorization failed"):
        refused(KafkaError.CLUSTER_AUTHORIZATION_FAILED).cluster_id()


def test_what_is_not_answered_is_no_matter_of_permission() -> None:
    with pytest.raises(LogUnavailable, match="no answer from Kafka") as caught:
        refused(KafkaError._TIMED_OUT).identify(["orders"])
    assert not isinstance(caught.value, NotPermitted)


def test_schemas_are_read_without_a_right_to_any_group() -> None:
    reader = _Reader(AWAY, "_schemas")
    reader._event(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), None)
    with pytest.raises(KafkaException):
        reader._event(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), None)
