"""The registry that lives in the log: one compacted topic, no further service.

Invariants:
- A version is written only in a transaction of one fixed ``transactional.id``, after reading to the
  end of the topic under that id's current epoch. Whoever starts later fences us before it reads, and
  Kafka then refuses our commit. So two writers never share an id or a version, and a writer that
  dies leaves nothing behind: the next one's start aborts what it left.
- An answer covers every registration that was finished before the question: the end is sampled
  after the call began, and it is the high watermark, so a registration under way is waited for.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from .errors import LogUnavailable
from .kafka import NOT_PERMITTED, Cluster, Deadline, OneProcess, code, reason, refused
from .position import TopicPartition
from .registry_records import Book, adoption, check_registration, schema_record
from .table import Adoption, AvroSchema, SchemaVersion

T = TypeVar("T")

SCHEMAS_TOPIC = "_schemas"

#: librdkafka calls it fatal when a producer is fenced; here that is how writers take turns, and what
#: matters of it is in the exception.
_fencing_logger = logging.getLogger("merganser.kafka.registry")
_fencing_logger.setLevel(logging.CRITICAL + 1)

#: How long `register` lets another registration finish before it fences it.
_PATIENCE_S = 1.0


class LogRegistry:
    """Schemas in the log's own ``_schemas`` topic. Safe across threads, not across a fork.

    Blocking: in asyncio call it through ``asyncio.to_thread``. It owns one consumer and, after the
    first registration, one transactional producer; `close` ends both.
    """

    def __init__(
        self, client_config: Mapping[str, Any], *, topic: str = SCHEMAS_TOPIC, timeout_s: float = 15.0
    ) -> None:
        self._config = dict(client_config)
        self._topic = topic
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process = OneProcess("this registry")
        self._cluster = Cluster(self._config, timeout_s)
        self._reader = _Reader(self._config, topic)
        self._producer: Producer | None = None
        self._exists = False

    def subjects(self) -> list[str]:
        deadline = Deadline(self._timeout_s)
        with self._held(deadline):
            return self._read(deadline).subjects()

    def versions(self, subject: str) -> list[SchemaVersion]:
        deadline = Deadline(self._timeout_s)
        with self._held(deadline):
            return self._read(deadline).versions(subject)

    def register(self, subject: str, schema: AvroSchema) -> SchemaVersion:
        deadline = Deadline(self._timeout_s)
        with self._held(deadline):
            known = self._settled_already(subject, schema)
            if known is not None:
                return known
            if not self._exists:
                self._cluster.create_topic(self._topic, 1, {"cleanup.policy": "compact"})
            return self._patiently(subject, lambda: self._register_once(subject, schema, deadline), deadline)

    def adopt(self, versions: Sequence[SchemaVersion], stage: Adoption) -> None:
        deadline = Deadline(self._timeout_s)
        with self._held(deadline):
            missing = adoption(self._read(deadline), versions, live=stage == "use")
            if stage == "check" or not missing:
                return
            if not self._exists:
                self._cluster.create_topic(self._topic, 1, {"cleanup.policy": "compact"})
            self._patiently(missing[0].subject, lambda: self._adopt_once(versions, stage, deadline), deadline)

    def close(self) -> None:
        with self._lock:
            self._drop_producer()
            self._reader.close()

    # -- inside ------------------------------------------------------------------------------

    @contextmanager
    def _held(self, deadline: Deadline) -> Iterator[None]:
        """The lock, waited for no longer than the call may take."""
        self._process.check()
        if not self._lock.acquire(timeout=deadline.left_s):
            raise LogUnavailable(self._cluster.bootstrap_servers, "another thread still waits for the registry")
        try:
            yield
        finally:
            self._lock.release()

    def _settled_already(self, subject: str, schema: AvroSchema) -> SchemaVersion | None:
        """Most calls end here, found or refused, without a transaction. A registration under way is
        given a moment; one that hangs is then fenced by ours."""
        try:
            book = self._read_to_end(Deadline(_PATIENCE_S))
        except TimeoutError:
            self._drop_producer()  # the open transaction is another's, so ours was fenced by it
            return None
        known = book.find(subject, schema)
        if known is None:
            check_registration(book, subject, schema)
        return known

    def _read(self, deadline: Deadline) -> Book:
        try:
            return self._read_to_end(deadline)
        except TimeoutError as error:
            raise LogUnavailable(self._cluster.bootstrap_servers, str(error)) from error

    def _read_to_end(self, deadline: Deadline) -> Book:
        """The book up to an end sampled now; TimeoutError if a transaction before it stays open."""
        partition = TopicPartition(self._topic, 0)
        ends = self._cluster.ends([partition])
        self._exists = partition in ends
        try:
            return self._reader.read_to(ends.get(partition, 0), deadline)
        except KafkaException as error:
            raise self._cluster.unavailable(error, f"topic {self._topic!r}") from error

    def _patiently(self, subject: str, once: Callable[[], T], deadline: Deadline) -> T:
        """Try *once* until it is done, refused, or time is up. A lost commit reply is safe to retry: the
        next round reads the topic and finds what it wrote."""
        pause_s = 0.02
        while True:
            try:
                return once()
            except KafkaException as error:
                self._drop_producer()  # fenced or in doubt: only a new one knows where it stands
                if code(error) in _REFUSED:
                    why = f"Kafka refused the schema of {subject!r}: {reason(error)}"
                    raise refused(why, code(error)) from error
                if deadline.passed:
                    why = f"schema of {subject!r} not registered: {reason(error)}"
                    raise LogUnavailable(self._cluster.bootstrap_servers, why) from error
            # Random, so that many writers do not go on fencing each other in step.
            time.sleep(min(deadline.left_s, random.uniform(0, pause_s)))
            pause_s = min(0.5, pause_s * 2)

    def _register_once(self, subject: str, schema: AvroSchema, deadline: Deadline) -> SchemaVersion:
        producer = self._fencing_producer(deadline)
        book = self._read(deadline)  # nobody writes after this without fencing us first
        known = book.find(subject, schema)
        if known is not None:
            return known
        check_registration(book, subject, schema)
        made = SchemaVersion(subject, book.next_version(subject), book.id_for(schema), schema)
        self._write(producer, [schema_record(made)], deadline)
        return made

    def _adopt_once(self, versions: Sequence[SchemaVersion], stage: Adoption, deadline: Deadline) -> None:
        producer = self._fencing_producer(deadline)
        missing = adoption(self._read(deadline), versions, live=stage == "use")
        records = [schema_record(version, deleted=stage == "reserve") for version in missing]
        self._write(producer, records, deadline)

    def _write(self, producer: Producer, records: Sequence[tuple[bytes, bytes]], deadline: Deadline) -> None:
        producer.begin_transaction()
        for key, value in records:
            producer.produce(self._topic, key=key, value=value, partition=0)
        producer.commit_transaction(max(1.0, deadline.left_s))

    def _fencing_producer(self, deadline: Deadline) -> Producer:
        """The producer that holds the newest epoch, as far as we know. It is kept: a new one costs
        half a second (librdkafka's timer for producer ids), and if it was fenced, commit says so."""
        if self._producer is None:
            config = {
                **self._config,
                "transactional.id": f"merganser.{self._topic}",
                "transaction.timeout.ms": 10_000,
                "linger.ms": 0,
                "logger": _fencing_logger,
            }
            producer = Producer(config)
            producer.init_transactions(max(1.0, deadline.left_s))
            self._producer = producer
        return self._producer

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.purge()  # a fenced client has nothing left that it may send
            self._producer = None  # not close(): that tries to abort, and warns that it is fenced


class _Reader:
    """Follows the topic. A consumer is assigned only while it reads, so an idle one fetches nothing."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._config = config
        self._topic = topic
        self._consumer: Consumer | None = None
        self._book = Book()
        self._next = 0

    def read_to(self, end: int, deadline: Deadline) -> Book:
        """The book of everything below *end*. TimeoutError if a transaction below it stays open."""
        if end < self._next:
            self._book, self._next = Book(), 0  # the topic was made anew
        if end > self._next:
            consumer = self._open()
            consumer.assign([KafkaPartition(self._topic, 0, self._next)])
            try:
                while self._next < end:
                    self._step(consumer, end, deadline)
            finally:
                consumer.unassign()
        return self._book

    def _step(self, consumer: Consumer, end: int, deadline: Deadline) -> None:
        message = consumer.poll(min(0.5, max(0.001, deadline.left_s)))
        if message is not None and message.error() is None:
            self._book.apply(message.key(), message.value())
            self._next = (message.offset() or 0) + 1
        elif message is not None:
            self._event(message.error(), message.offset())
        if self._next < end and deadline.passed:
            why = f"{self._topic} read to {self._next} of {end} within {deadline.timeout_s:g} s"
            raise TimeoutError(why)

    def _event(self, error: KafkaError | None, offset: int | None) -> None:
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            # The end of a log is no record: control records and aborted ones lie before it.
            self._next = max(self._next, offset or 0)
        elif error is not None and not error.retriable() and error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise KafkaException(error)  # the group may be forbidden: it is not needed

    def _open(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **self._config,
                    "group.id": "merganser-registry",  # demanded by librdkafka; never joined, never committed
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    "check.crcs": True,
                    "fetch.wait.max.ms": 10,  # the end is reported after an empty fetch
                }
            )
        return self._consumer

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


_REFUSED = (*NOT_PERMITTED, KafkaError.MSG_SIZE_TOO_LARGE)
