"""Writers that run in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from confluent_kafka import Producer

from merganser.schemas import registry_log
from merganser.schemas.kafka import Connection, Deadline
from merganser.schemas.registry_log import LogRegistry
from merganser.schemas.registry_records import schema_record
from merganser.schemas.table import AvroSchema, Registry, SchemaVersion

Spec = tuple[str, str, str]  # ("log" or "naive" or "url", servers or URL, topic)


def open_spec(spec: Spec) -> Registry:
    kind, where, topic = spec
    if kind == "url":
        from merganser.schemas.registry_url import UrlRegistry

        return UrlRegistry(where, {})
    config = Connection(where).client_config()
    return (NaiveRegistry if kind == "naive" else LogRegistry)(config, topic=topic, timeout_s=120)


class NaiveRegistry(LogRegistry):
    """What is easily written instead: read to the end, then write, with no transaction around it."""

    def _register(self, subject: str, schema: AvroSchema, deadline: Deadline) -> SchemaVersion:
        book = self._read(deadline)
        made = SchemaVersion(subject, book.next_version(subject), book.id_for(schema), schema)
        key, value = schema_record(made)
        producer = Producer({**self._config, "enable.idempotence": True})
        producer.produce(self._topic, key=key, value=value, partition=0)
        producer.flush(10)
        return made


def record(name: str, extra: int = 0) -> dict[str, Any]:
    added = [{"name": f"f{n}", "type": "int", "default": 0} for n in range(extra)]
    return {"type": "record", "name": name, "fields": [{"name": "a", "type": "int"}, *added]}


def register_many(spec: Spec, prefix: str, writer: int, count: int, start: Barrier) -> list[tuple[str, int, int]]:
    """Register *count* schemas: half as versions of a subject that all writers share."""
    registry = open_spec(spec)
    start.wait(60)
    made = []
    for number in range(count):
        if number % 2:
            made.append(registry.register(f"{prefix}-{writer}-{number}", record(f"R{writer}_{number}")))
        else:
            shared = record("Shared", 1)
            shared["fields"][1]["default"] = writer * 1000 + number  # another schema, and compatible
            made.append(registry.register(f"{prefix}-shared", shared))
    registry.close()
    return [(v.subject, v.version, v.id) for v in made]


def die_before_commit(spec: Spec, subject: str, written: Any) -> None:
    """Write the record of a version, tell the parent, and never commit. Who waits for the end of that transaction, in
    the place of fencing it, waits for longer than anybody has patience."""
    registry_log.Producer = lambda config: Producer({**config, "transaction.timeout.ms": 600_000})  # type: ignore[assignment,misc]

    class Dying(LogRegistry):
        def _fencing_producer(self, deadline: Deadline) -> Any:
            return _NeverCommits(super()._fencing_producer(deadline), written)

    _, where, topic = spec
    Dying(Connection(where).client_config(), topic=topic).register(subject, record("Half"))


class _NeverCommits:
    def __init__(self, producer: Producer, written: Any) -> None:
        self._producer, self._written = producer, written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout: float) -> None:
        self._producer.flush(10)
        self._written.set()
        time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
