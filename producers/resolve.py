"""The decision on a torn transaction, written into the log, so that every replica comes to the same state."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import Producer as KafkaProducer

from ..schemas.errors import LogUnavailable, UsageError
from ..schemas.headers import Marks, Resolution, check_id, encode
from ..schemas.kafka import reason
from ..schemas.table import Table


def resolve(
    config: Mapping[str, Any], tables: Sequence[Table], tx: str, resolution: Resolution, timeout_s: float
) -> None:
    """Write *resolution* of transaction *tx* to every partition of *tables*, in one Kafka transaction.

    A replica takes it once it has seen that the transaction lacks records for good; of one that is whole,
    it changes nothing. The records have neither key nor value. UsageError, LogUnavailable.
    """
    why = check_id(tx) or ("it has a space, and no transaction's id has" if " " in tx else None)
    if why:
        raise UsageError(f"transaction id {tx!r}: {why}")
    # Kafka takes no record without a key on a compacted topic, and what lacks there is excused anyway.
    tables = [table for table in tables if not table.compacted]
    if not tables:
        raise UsageError("all of these tables are compacted: what a transaction lacks there is excused")
    headers: list[tuple[str, str | bytes | None]] = [*encode(Marks(tx=tx, resolution=resolution))]
    producer = KafkaProducer({**config, "transactional.id": f"merganser-resolve-{uuid.uuid4().hex}", "acks": "all"})
    try:
        producer.init_transactions(timeout_s)
        producer.begin_transaction()
        for table in tables:
            for partition in range(table.partitions):
                producer.produce(table.name, None, None, partition, headers=headers)
        producer.commit_transaction(timeout_s)
    except KafkaException as error:
        producer.purge()
        raise LogUnavailable(str(config["bootstrap.servers"]), reason(error)) from error
