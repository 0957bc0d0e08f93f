"""Records of the log, written once more: bytes as they are, each into a partition and with headers of the caller's.

Invariant: what is written in one call is one Kafka transaction, and the newest writer of an id fences the older
ones: when :meth:`AgainWriter.open` returns, what they wrote is committed, or never will be.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from ..schemas.kafka import Deadline, log_error
from ..schemas.position import Position, TopicPartition
from .commit import SendFailed, TransactionalClient


@dataclass(frozen=True)
class Again:
    """A record to write."""

    partition: TopicPartition
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class AgainWriter:
    """Writes records, a Kafka transaction after the other; for one thread."""

    def __init__(self, client_config: Mapping[str, Any], id_: str, timeout_s: float = 10.0) -> None:
        settings = {
            **client_config,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.timeout.ms": int(timeout_s * 1000),
            "error_cb": log_error,
        }
        self._client = TransactionalClient(settings, id_, shared=True, timeout_s=timeout_s, init_timeout_s=timeout_s)

    def open(self) -> None:
        """Fence older writers of this id. LogUnavailable, ProducerFenced."""
        self._client.open()

    def write(
        self,
        records: Sequence[Again],
        confirm: Callable[[], str | None] = lambda: None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> Position:
        """All of *records*; the position just past them. RolledBack, CommitInDoubt or ProducerFenced.

        *confirm* is asked once they are acknowledged, and says why they must not be committed, if so.
        """
        past = Position()
        errors: list[KafkaError] = []

        def report(error: KafkaError | None, message: Message[bytes, bytes]) -> None:
            nonlocal past
            if error is not None:
                errors.append(error)
            else:
                past = past | Position.past(message.topic() or "", message.partition() or 0, message.offset() or 0)

        def send(client: KafkaProducer, deadline: Deadline) -> None:
            on_step("begun")
            for record in records:
                _produce(client, record, report, deadline)
            left = client.flush(deadline.left_s)
            if errors:
                raise SendFailed(f"{records[0].partition.topic}: {errors[0].str()}", errors[0])
            if left:
                raise SendFailed(f"not acknowledged within {deadline.timeout_s:g} s")
            on_step("sent")
            if why := confirm():
                raise SendFailed(why, ours=True)

        self._client.run(uuid.uuid4().hex, send)
        on_step("committed")
        return past

    def close(self) -> None:
        self._client.close()


def _produce(
    client: KafkaProducer,
    record: Again,
    report: Callable[[KafkaError | None, Message[bytes, bytes]], None],
    deadline: Deadline,
) -> None:
    topic, partition = record.partition
    while True:
        try:
            return client.produce(
                topic, record.value, record.key, partition, on_delivery=report, headers=list(record.headers)
            )
        except BufferError:
            if deadline.passed:
                raise SendFailed(f"the send buffer stayed full for {deadline.timeout_s:g} s") from None
            client.poll(0.02)
        except KafkaException as error:
            raise SendFailed(f"{topic}: {error}") from error
