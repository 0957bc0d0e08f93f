"""Open transactions that hold readers back: where they began, and when (FAILURES 20)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from .kafka import Cluster, Deadline
from .position import TopicPartition


class OpenTransaction(NamedTuple):
    """The oldest one of *partition*: no reader gets past *offset* before it ends. *age_s* is the time since
    that record was written, by the clock of whoever stamped it; None if the record could not be read."""

    partition: TopicPartition
    offset: int
    age_s: float | None

    def __str__(self) -> str:
        age = "" if self.age_s is None else f", written {self.age_s:.0f} s ago"
        return f"{self.partition} has had a transaction open since offset {self.offset}{age}"


def open_transactions(
    cluster: Cluster, config: Mapping[str, Any], partitions: Collection[TopicPartition], timeout_s: float
) -> list[OpenTransaction]:
    """Of each of *partitions* that cannot be read to its end, what it waits for. LogUnavailable."""
    deadline = Deadline(timeout_s)
    ends = cluster.ends(partitions, deadline.left_s)
    stable = cluster.stable_ends(partitions, deadline.left_s)
    stuck = {tp: stable[tp] for tp in partitions if stable.get(tp, 0) < ends.get(tp, 0)}
    written = _times_ms(config, stuck, deadline)
    now_ms = time.time() * 1000
    return [
        OpenTransaction(tp, offset, max(0.0, (now_ms - written[tp]) / 1000) if tp in written else None)
        for tp, offset in sorted(stuck.items())
    ]


def _times_ms(
    config: Mapping[str, Any], places: Mapping[TopicPartition, int], deadline: Deadline
) -> dict[TopicPartition, int]:
    """When the first record at or after each place was written."""
    if not places:
        return {}
    consumer = Consumer(
        {
            **config,
            "group.id": "merganser-hanging",  # demanded by librdkafka; never joined, never committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
        }
    )
    found: dict[TopicPartition, int] = {}
    try:
        consumer.assign([KafkaPartition(*tp, offset) for tp, offset in places.items()])
        while len(found) < len(places) and not deadline.passed:
            message = consumer.poll(min(0.2, deadline.left_s))
            if message is not None and message.error() is None:
                topic, partition = message.topic(), message.partition()
                assert topic is not None and partition is not None
                found.setdefault(TopicPartition(topic, partition), message.timestamp()[1])
    except KafkaException:
        pass  # the times are a courtesy; what is stuck is known
    finally:
        consumer.close()
    return found
