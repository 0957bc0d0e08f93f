"""What the values of a topic look like, to name it in a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from .kafka import Deadline

#: Byte 0 and a four-byte schema id open a value that a schema registry knows.
_FRAME = 5


def sniff_topic(client_config: Mapping[str, Any], topic: str, partitions: int, timeout_s: float = 3.0) -> str | None:
    """The format of the topic's first values, in words; None if it has no value to look at."""
    consumer = Consumer(
        {
            **client_config,
            "group.id": "merganser-sniff",  # demanded by librdkafka; never joined, never committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        consumer.assign([KafkaPartition(topic, number, 0) for number in range(partitions)])
        return describe_values(_first_values(consumer, partitions, Deadline(timeout_s)))
    except KafkaException:
        return None
    finally:
        consumer.close()


def _first_values(consumer: Consumer, partitions: int, deadline: Deadline, wanted: int = 10) -> list[bytes]:
    values: list[bytes] = []
    ended = 0
    while len(values) < wanted and ended < partitions and not deadline.passed:
        message = consumer.poll(min(0.2, deadline.left_s))
        if message is None:
            continue
        if message.error() is not None:
            ended += 1
            continue
        value = message.value()
        if value:
            values.append(value)
    return values


def describe_values(values: Iterable[bytes]) -> str | None:
    """One word or two for what *values* have in common; None if there are none."""
    kinds = {describe_value(value) for value in values}
    if not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else " and ".join(sorted(kinds))


def describe_value(value: bytes) -> str:
    if value[:1] == b"\x00" and len(value) > _FRAME:
        return "Confluent-framed"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "binary (Protobuf, or another form without a schema id)"
    try:
        parsed = json.loads(text)
    except ValueError:
        return "plain text" if text.isprintable() else "binary (Protobuf, or another form without a schema id)"
    body = parsed.get("payload", parsed) if isinstance(parsed, dict) else None
    if isinstance(body, dict) and "op" in body and ("before" in body or "after" in body):
        return "Debezium JSON"
    return "JSON"
