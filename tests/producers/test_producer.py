"""What a producer promises."""

from __future__ import annotations

import os
import resource
import threading
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from producer_tables import ROW, SCHEMA, decode, read

from merganser.pipeline.log import Log
from merganser.producers.producer import Producer, ProducerOptions
from merganser.schemas import position
from merganser.schemas.errors import DeliveryFailed, InvalidRow, UnknownTable, UsageError
from merganser.schemas.kafka import Connection
from merganser.schemas.position import Position
from merganser.schemas.table import SchemaVersion, Table


class StubCatalog:
    """One table, and no log behind it."""

    def table(self, name: str) -> Table:
        if name != "orders":
            raise UnknownTable(name)
        return Table("orders", "id", 1, (SchemaVersion("orders-value", 1, 1, SCHEMA),))


def away(**options: Any) -> Producer:
    """A producer whose broker does not answer."""
    config = Connection("127.0.0.1:1").client_config()
    return Producer(StubCatalog(), config, ProducerOptions(**options))  # type: ignore[arg-type]


def test_any_avro_client_can_read_what_is_written(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        producer.put(orders.name, {"order_id": 1, "sku": "a"})
        producer.put(orders.name, {"order_id": 2, "sku": "b"})
        producer.delete(orders.name, {"order_id": 1})
    assert orders.key_schema is not None
    records = [(decode(orders.key_schema.schema, m.key()), m.value()) for m in read(log, orders)]
    by_key: dict[int, list[Any]] = {}
    for key, value in records:
        by_key.setdefault(key["order_id"], []).append(value and decode(SCHEMA, value))
    assert by_key == {1: [{"order_id": 1, "sku": "a"}, None], 2: [{"order_id": 2, "sku": "b"}]}


def test_the_token_lies_past_every_write_before_it(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        seen = Position()
        for batch in range(5):
            writes = [producer.put(orders.name, {"order_id": n, "sku": "x"}) for n in range(batch * 20)]
            token = producer.flush()
            assert token.reaches(seen), "a token is cumulative"
            for write in writes:
                assert write.position is not None and token.reaches(write.position)
            seen = token
        assert token == log.ends(list(token)), "and no further"


def test_a_token_spans_the_tables_of_a_producer(log: Log, orders: Table) -> None:
    other = log.create_table(f"{orders.name}-2", SCHEMA, ["order_id"])
    with log.producer() as producer:
        producer.put(orders.name, ROW)
        producer.put(other.name, ROW)
        assert {tp.topic for tp in producer.flush()} == {orders.name, other.name}


def test_an_acknowledged_write_without_an_offset_is_covered_too(log: Log, orders: Table) -> None:
    class Known:  # what librdkafka reports of a retry that the broker had already
        def partition(self) -> int:
            return partition

        def offset(self) -> int:
            return -1001

    with log.producer() as producer:
        first = producer.put(orders.name, ROW)
        producer.flush()
        assert first.partition is not None
        partition = first.partition
        second = log.producer()
        write = second.put(orders.name, ROW)
        second.flush()
        second._lanes[orders.name].ends.clear()
        write._report(None, Known())  # type: ignore[arg-type]
        assert second._token()[position.TopicPartition(orders.name, partition)] == 2


def test_rows_without_a_key_have_none_and_cannot_be_deleted(log: Log) -> None:
    events = log.create_table(f"events-{uuid.uuid4().hex[:8]}", SCHEMA)
    with log.producer() as producer:
        producer.put(events.name, ROW)
        with pytest.raises(UsageError, match="no key"):
            producer.delete(events.name, {"order_id": 1})
    assert [m.key() for m in read(log, events)] == [None]


@pytest.mark.parametrize("row", [{"order_id": "1", "sku": "a"}, {"order_id": 1}, {**ROW, "more": 1}])
def test_an_invalid_row_sends_nothing(log: Log, orders: Table, row: dict[str, Any]) -> None:
    with log.producer() as producer:
        with pytest.raises(InvalidRow):
            producer.put(orders.name, row)
        assert producer.flush() == Position()
    assert read(log, orders) == []


def test_an_unknown_table_is_named(log: Log) -> None:
    with log.producer() as producer, pytest.raises(UnknownTable, match="nowhere"):
        producer.put("nowhere", ROW)


def test_a_row_larger_than_a_message_is_refused_and_the_producer_goes_on(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        with pytest.raises(InvalidRow, match="larger"):
            producer.put(orders.name, {"order_id": 1, "sku": "x" * 2_000_000})
        producer.put(orders.name, ROW)
        assert len(producer.flush()) == 1


def test_a_closed_producer_says_so(log: Log, orders: Table) -> None:
    producer = log.producer()
    producer.put(orders.name, ROW)
    assert producer.close() is not None
    assert producer.close() is None
    with pytest.raises(UsageError, match="closed"):
        producer.put(orders.name, ROW)


def test_refresh_takes_an_altered_table_up(log: Log, orders: Table) -> None:
    wider = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "qty", "type": "int", "default": 0}]}
    with log.producer() as producer:
        producer.put(orders.name, ROW)
        log.alter_table(orders.name, wider)
        with pytest.raises(InvalidRow):
            producer.put(orders.name, {**ROW, "qty": 3})
        producer.refresh()
        producer.put(orders.name, {**ROW, "qty": 3})
    ids = [int.from_bytes((m.value() or b"")[1:5], "big") for m in read(log, orders)]
    assert len(set(ids)) == 2


# -- Java's partitioner ----------------------------------------------------------------------

#: From org.apache.kafka.common.utils.UtilsTest: key → murmur2.
JAVA_MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
}


def test_keys_go_where_java_puts_them(log: Log) -> None:
    schema = {**SCHEMA, "fields": [{"name": "id", "type": "string"}]}
    name = f"java-{uuid.uuid4().hex[:8]}"
    log.create_table(name, schema, ["id"], key_encoding="string", partitions=7)
    with log.producer() as producer:
        writes = {key: producer.put(name, {"id": key}) for key in JAVA_MURMUR2}
        producer.flush()
    expected = {key: (hash_ & 0x7FFFFFFF) % 7 for key, hash_ in JAVA_MURMUR2.items()}
    assert {key: write.partition for key, write in writes.items()} == expected


# -- when the broker is away -----------------------------------------------------------------


def test_what_was_not_acknowledged_is_told_once_and_in_time() -> None:
    begun = time.monotonic()
    producer = away(delivery_timeout_s=1)
    for _ in range(7):
        producer.put("orders", ROW)
    with pytest.raises(DeliveryFailed) as caught:
        producer.flush()
    assert (caught.value.count, caught.value.table) == (7, "orders")
    assert time.monotonic() - begun < 60
    assert producer.flush() == Position(), "told once"


def test_a_failure_is_told_by_the_next_put() -> None:
    producer = away(delivery_timeout_s=0.5)
    producer.put("orders", ROW)
    with pytest.raises(DeliveryFailed):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            producer.put("orders", ROW)
            threading.Event().wait(0.05)


class Dying:
    """A client that tells of its fatal error where confluent-kafka does: out of whatever serves its events first."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._told = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def flush(self, timeout_s: float) -> int:
        if not self._told:
            self._told = True
            raise KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "not permitted", fatal=True))
        return int(self._client.flush(timeout_s))


def test_a_dead_client_is_told_as_that_and_by_its_reason() -> None:
    producer = away(delivery_timeout_s=0.5)
    producer.put("orders", ROW)
    producer._client = Dying(producer._client)  # type: ignore[assignment]
    with pytest.raises(DeliveryFailed, match="not permitted: make a new producer") as caught:
        producer.flush()
    assert (caught.value.count, caught.value.table) == (1, "orders")
    with pytest.raises(DeliveryFailed, match=r"0 write.*not permitted: make a new producer"):
        producer.put("orders", ROW)


def test_a_failure_is_told_by_leaving_the_with_block() -> None:
    with pytest.raises(DeliveryFailed), away(delivery_timeout_s=0.5) as producer:
        producer.put("orders", ROW)


def test_the_first_error_stays_the_one_that_is_raised() -> None:
    with pytest.raises(KeyError) as caught, away(delivery_timeout_s=0.5) as producer:
        producer.put("orders", ROW)
        raise KeyError("mine")
    assert "not acknowledged" in caught.value.__notes__[0]


def test_a_short_flush_says_what_is_still_on_its_way() -> None:
    producer = away(delivery_timeout_s=3)
    producer.put("orders", ROW)
    with pytest.raises(DeliveryFailed, match="still being sent"):
        producer.flush(timeout_s=0.1)
    with pytest.raises(DeliveryFailed) as caught:
        producer.flush()
    assert caught.value.count == 1, "not lost by the short one"


def test_a_full_buffer_makes_put_wait_and_memory_stays_bounded() -> None:
    producer = away(delivery_timeout_s=1, buffer_bytes=1024 * 1024)
    row = {"order_id": 1, "sku": "x" * 10_000}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with pytest.raises(DeliveryFailed):
        for _ in range(100_000):
            producer.put("orders", row)
    waited = time.monotonic() - begun
    assert 0.5 < waited < 60, "put waited for room, and not for ever"
    assert len(producer._client) * 10_000 <= 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


def test_a_full_buffer_drains_and_all_rows_arrive(log: Log, orders: Table) -> None:
    with log.producer(ProducerOptions(buffer_rows=100)) as producer:
        for number in range(5_000):
            producer.put(orders.name, {"order_id": number, "sku": "x"})
        assert sum(producer.flush().values()) == 5_000


# -- threads and forks -----------------------------------------------------------------------


def test_threads_share_a_producer_and_each_token_covers_its_own_writes(log: Log, orders: Table) -> None:
    problems: list[BaseException] = []

    def work(producer: Producer, first: int) -> None:
        try:
            for batch in range(10):
                writes = [producer.put(orders.name, {"order_id": first + n, "sku": "x"}) for n in range(50)]
                token = producer.flush(60)
                assert all(w.position is not None and token.reaches(w.position) for w in writes), batch
        except BaseException as error:
            problems.append(error)

    with log.producer() as producer:
        threads = [threading.Thread(target=work, args=(producer, 1000 * n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert sum(producer.flush().values()) == 4 * 10 * 50


def test_a_flush_ends_while_another_thread_goes_on_writing(log: Log, orders: Table) -> None:
    stop = threading.Event()

    def work(producer: Producer) -> None:
        while not stop.is_set():
            producer.put(orders.name, ROW)

    with log.producer() as producer:
        thread = threading.Thread(target=work, args=(producer,))
        thread.start()
        try:
            for _ in range(5):
                producer.put(orders.name, {"order_id": 2, "sku": "x"})
                producer.flush(60)
        finally:
            stop.set()
            thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own(log: Log, orders: Table) -> None:
    with log.producer() as producer:
        producer.put(orders.name, ROW)
        child = os.fork()
        if child == 0:
            try:
                producer.put(orders.name, ROW)
            except UsageError as error:
                os._exit(7 if "fork" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert sum(producer.flush().values()) == 1


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("buffer_rows", 0, "a whole number from 1 to"),  # to librdkafka no bound at all
        ("buffer_rows", True, "is a whole number"),
        ("buffer_bytes", 100, "from 1,024 to"),
        ("delivery_timeout_s", 0, "a number from 0.1 to"),  # to librdkafka for ever
        ("delivery_timeout_s", float("inf"), "a number from 0.1 to"),
        ("delivery_timeout_s", float("nan"), "a number from 0.1 to"),
        ("transaction_rows", 0, "1 at least"),
        ("transaction_timeout_s", 0.5, "a number from 1 to"),
        ("linger_ms", "2", "is a number"),
        ("linger_ms", -1, "a number from 0 to"),
        ("compression", "brotli", "one of none, gzip"),
    ],
)
def test_an_option_out_of_its_range_is_named(name: str, value: Any, why: str) -> None:
    with pytest.raises(UsageError, match=rf"ProducerOptions.{name} .*{why}"):
        ProducerOptions(**{name: value})
