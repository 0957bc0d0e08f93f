"""The log: the Kafka cluster, its tables, and the way to write them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..producers.bulk import BulkOptions, BulkWriter
from ..producers.options import ProducerOptions
from ..producers.producer import Producer
from ..producers.resolve import resolve
from ..schemas.catalog import Catalog
from ..schemas.errors import UsageError
from ..schemas.hanging import OpenTransaction, open_transactions
from ..schemas.headers import Resolution
from ..schemas.kafka import Cluster, Connection, Member, OneProcess, Setting, TopicFacts, TopicId
from ..schemas.position import Position, TopicPartition
from ..schemas.registry import open_registry
from ..schemas.rules import Conditions
from ..schemas.table import Adoption, AvroSchema, KeyEncoding, SchemaVersion, Table
from . import tables

if TYPE_CHECKING:
    from ..consumers.chunk import Chunk
    from ..consumers.log import Reader


def connect(
    bootstrap_servers: str | None = None,
    *,
    security: Mapping[str, Setting] | None = None,
    registry: str | None = None,
    timeout_s: float = 15.0,
) -> Log:
    """The log at *bootstrap_servers*; else at ``MERGANSER_BOOTSTRAP_SERVERS``; else the local broker,
    which is started if it does not run.

    *security* goes to librdkafka as it is (``security.protocol``, ``sasl.*``, ``ssl.*``); without it the
    properties file that ``MERGANSER_KAFKA_CONFIG`` names is read, if there is one. *registry* is
    an ``http(s)://`` URL; without it (nor ``MERGANSER_REGISTRY``) schemas live in the log itself.
    LogUnavailable if no broker answers within *timeout_s*, which also bounds each later call; an hour at most.
    """
    servers = bootstrap_servers or os.environ.get("MERGANSER_BOOTSTRAP_SERVERS") or _local_broker()
    if servers.startswith(("http://", "https://")):
        raise UsageError(f"{servers!r} is no Kafka broker: host:port, without http://; several with commas between")
    where = registry or os.environ.get("MERGANSER_REGISTRY") or None
    settings = dict(security) if security is not None else _settings_file()
    return Log(Connection(servers, settings, where), timeout_s)


#: Kafka's client takes no request that may wait for longer.
_LONGEST_S = 3600.0


class Log:
    """One cluster and its tables. Safe across threads, not across a fork.

    Every call but `producer` without an id blocks for a bounded time: in asyncio use ``asyncio.to_thread``.
    """

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        if not timeout_s > 0:
            raise UsageError(f"a timeout is a number of seconds above 0, not {timeout_s!r}")
        timeout_s = min(timeout_s, _LONGEST_S)
        self._connection = connection
        self._config = connection.client_config()
        self._process = OneProcess("this log")
        self._timeout_s = timeout_s
        self._cluster = Cluster(self._config, timeout_s)
        self._cluster_id = self._cluster.cluster_id()
        self._registry = open_registry(connection.registry, self._config, timeout_s)
        self._catalog = Catalog(self._cluster, self._registry, self._config)

    @property
    def bootstrap_servers(self) -> str:
        return self._connection.bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """Tells this cluster from another at the same address."""
        return self._cluster_id

    # -- tables ------------------------------------------------------------------------------

    def create_table(
        self,
        name: str,
        schema: AvroSchema | None = None,
        key: Sequence[str] = (),
        *,
        partitions: int | None = None,
        key_encoding: KeyEncoding = "avro",
        compact: bool | None = None,
        config: Mapping[str, str] | None = None,
        checks: Sequence[str] | None = None,
        conditions: Conditions | None = None,
        existing: bool = False,
    ) -> Table:
        """Make a table: a topic, and its schemas in the registry. The same again is a no-op.

        *key* makes it keyed: the last write per key is its row; without a key, rows are appended.
        A new table has 4 partitions unless *partitions* says otherwise. *config* is of the topic.

        *checks* are SQL expressions that each row has to hold: ``["qty > 0", "status in ('new', 'paid')"]``.
        A producer refuses a row for which one is false, a replica puts it into quarantine. *conditions*
        says which conditional writes the table takes: ``any`` (the default of a keyed table that is not
        compacted), those ``partition`` holds all of, or ``none``. Both are fixed once the table is made.

        *existing* declares a topic that is there already, made by any client: *schema* may be left out
        if the registry has it, and *key* with *key_encoding* says what its keys are: ``avro`` as in the
        registry, or the plain ``string``, ``int`` or ``long`` of Kafka's own serializers.

        TableExists names what differs from a table that is there; BadSchema, BadKeyColumns and
        UsageError refuse before anything is written.
        """
        columns = (key,) if isinstance(key, str) else tuple(key)
        rules = None if checks is None else tables.check_texts(name, checks)
        request = tables.Request(
            name, schema, columns, key_encoding, partitions, compact, dict(config or {}), rules, conditions
        )
        make = tables.declare_existing if existing else tables.create_table
        return make(self._catalog, request)

    def alter_table(self, name: str, schema: AvroSchema) -> Table:
        """Give the table a new version of its schema; IncompatibleSchema, with nothing written, if
        readers of the earlier ones could not follow. A schema that is one of its versions already is a no-op:
        an older one does not become the latest again, unless it says something else in a ``doc``."""
        return tables.alter_table(self._catalog, name, schema)

    def table(self, name: str) -> Table:
        """The table as declared now; UnknownTable, or UnsupportedFormat if its values are not Avro."""
        return self._catalog.table(name)

    def tables(self) -> list[Table]:
        """Every table of the log, by name."""
        return self._catalog.tables()

    # -- reading, for replicas ---------------------------------------------------------------

    def versions(self, subject: str) -> list[SchemaVersion]:
        """All versions of a registry subject, read to an end sampled after the call began."""
        return self._registry.versions(subject)

    def starts(self, partitions: Collection[TopicPartition]) -> Position:
        """The first offset that the log still holds, of each partition."""
        return self._cluster.starts(partitions)

    def ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        """High watermarks, sampled after the call began: every acknowledged write lies below.

        *timeout_s* bounds the call if it is shorter than the log's own bound.
        """
        return self._cluster.ends(partitions, timeout_s)

    def stable_ends(self, partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
        """Last stable offsets, sampled after the call began: readers get no further while a transaction is open
        there."""
        return self._cluster.stable_ends(partitions, timeout_s)

    def at_time(self, partitions: Collection[TopicPartition], time_ms: int) -> Position:
        """The first offset of each of *partitions* with a timestamp of *time_ms* or later, by the log's own
        timestamps; the end, if there is none."""
        return self._cluster.at_time(partitions, time_ms)

    def open_transactions(
        self, partitions: Collection[TopicPartition], timeout_s: float = 5.0
    ) -> list[OpenTransaction]:
        """Of each of *partitions* that cannot be read to its end, the transaction that it waits for."""
        return open_transactions(self._cluster, self._config, partitions, timeout_s)

    def members(self, group: str, timeout_s: float | None = None) -> tuple[Member, ...]:
        """The members of a split *group*, and what each reads."""
        return self._cluster.members(group, timeout_s)

    def identify(self, topics: Collection[str]) -> dict[str, TopicId]:
        """Id and partition count of each topic, quickly; one that does not exist is absent."""
        return self._cluster.identify(topics)

    def describe(self, topics: Collection[str]) -> dict[str, TopicFacts]:
        """What the cluster says of each topic; one that does not exist is absent."""
        return self._cluster.describe(topics)

    def horizon(self, partitions: Collection[TopicPartition]) -> Position:
        """As :meth:`ends`: this log shows all that there is."""
        return self._cluster.ends(partitions)

    def reader(self, group: str, kind: type[Chunk] | None = None) -> Reader:
        from ..consumers.chunk import Chunk as PlainChunk
        from ..consumers.kafka import KafkaReader

        self._process.check()
        return KafkaReader(self._config, group, kind or PlainChunk)

    # -- writing -----------------------------------------------------------------------------

    def producer(self, options: ProducerOptions | None = None, *, id: str | None = None) -> Producer:
        """A producer of rows. Close it, or use it in a ``with``: it holds rows back to send them together.

        With an *id*, transactions of an older producer of that id, in any process, end in ProducerFenced from
        now on; this call then waits for Kafka, and raises LogUnavailable when that does not answer.
        """
        self._process.check()
        return Producer(self._catalog, self._config, options, id)

    def bulk_writer(self, id: str, options: BulkOptions | None = None) -> BulkWriter:
        """A writer of whole chunks: of encoded rows, or of records as they are. The newest of an *id* fences the older
        ones."""
        self._process.check()
        return BulkWriter(self._config, id, options)

    def adopt(self, versions: Sequence[SchemaVersion], stage: Adoption) -> None:
        """Have schemas with the numbers and ids that records of another log bear; see :meth:`Registry.adopt`."""
        self._registry.adopt(versions, stage)

    def make_topic(self, name: str, partitions: int, settings: Mapping[str, str]) -> bool:
        """Make a topic that is no table; False if it is there already."""
        return self._cluster.create_topic(name, partitions, settings)

    def resolve(self, tx: str, tables: Sequence[str], resolution: Resolution) -> None:
        """Decide on a transaction that lacks records for good (TornTransaction): ``apply`` what there is of
        it, or ``discard`` it. *tables* are all that it wrote to. Every replica comes to the same."""
        resolve(self._config, [self.table(name) for name in tables], tx, resolution, self._timeout_s)

    def close(self) -> None:
        """End the log's own clients. Producers made from it must be closed before."""
        self._registry.close()
        self._cluster.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _settings_file() -> dict[str, Setting]:
    """``name=value`` lines, as Kafka's own tools take them by ``--command-config``."""
    named = os.environ.get("MERGANSER_KAFKA_CONFIG")
    if not named:
        return {}
    try:
        lines = [line.strip() for line in Path(named).read_text().splitlines()]
    except OSError as error:
        raise UsageError(f"MERGANSER_KAFKA_CONFIG: {named}: {error.strerror}") from error
    settings: dict[str, Setting] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if line and not line.startswith("#"):
            if not equals:
                raise UsageError(f"MERGANSER_KAFKA_CONFIG: {named}, line {number}: not name=value")
            settings[name.strip()] = value.strip()
    return settings


def _local_broker() -> str:
    from .broker import ensure_local_broker  # downloads and starts Kafka: only if nothing else is said

    return ensure_local_broker()
