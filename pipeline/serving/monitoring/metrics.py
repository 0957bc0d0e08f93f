"""What a node tells Prometheus. docs/metrics.md lists every name.

Read off the replica, the store and the lookout when somebody asks; only requests are counted as they come. Nothing
here waits for Kafka, and what cannot be told at the moment is left out rather than made up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ....consumers.dbfile import size_of, wal_of
from ....consumers.meter import BOUNDS_S, Times
from ....consumers.statements import run
from ....schemas.errors import MerganserError
from ....schemas.position import Position
from .figures import ACCOUNTS_SQL, OUTCOMES
from .lookout import Lookout

if TYPE_CHECKING:
    from ....consumers.replica import Replica
    from ..guard.guard import Guard
    from ..users.login import Logins

#: How long a scrape waits for a schema change of the store.
_PATIENCE_S = 1.0

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One node's. Each node has a registry of its own. Safe across threads."""

    def __init__(
        self,
        replica: Replica,
        lookout: Lookout,
        guard: Guard,
        logins: Logins | None,
        beside: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of each counter a second series, of which nobody asks
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_Node(replica, lookout, guard, logins, beside))
        self._requests = Counter(
            "merganser_requests", "Requests by door, what they asked for, and how they ended.",
            ["door", "path", "status"], registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "merganser_request_seconds", "From the request to the end of its answer.",
            ["door", "path"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._bytes = Counter(
            "merganser_answer_bytes", "Bytes of bodies, as sent.", ["door", "path"], registry=self.registry
        )

    def answered(self, door: str, path: str, status: str, seconds: float, nbytes: int = 0) -> None:
        """Count a request. *path* is a route's name, never what a client wrote."""
        self._requests.labels(door, path, status).inc()
        self._seconds.labels(door, path).observe(seconds)
        self._bytes.labels(door, path).inc(nbytes)


class _Node(Collector):
    def __init__(
        self,
        replica: Replica,
        lookout: Lookout,
        guard: Guard,
        logins: Logins | None,
        beside: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._replica, self._lookout, self._guard, self._logins, self._beside = replica, lookout, guard, logins, beside

    def describe(self) -> list[Metric]:
        return []  # so that registering does not ask the store

    def collect(self) -> Iterator[Metric]:
        yield from self._state()
        yield from self._parts()
        yield from self._places()
        yield from self._log()
        yield from self._accounts()
        yield from self._queries()
        yield commits(self._replica.commits)

    def _state(self) -> Iterator[Metric]:
        replica = self._replica
        info = GaugeMetricFamily("merganser_replica_info", "What this is.", labels=["group", "cluster", "version"])
        info.add_metric([replica.group, replica.cluster_id, _version()], 1)
        yield info
        yield _gauge("merganser_replica_running", "1 while the apply loop runs.", replica.error is None)
        ready = self._lookout.not_ready() is None
        yield _gauge("merganser_replica_ready", "1 once it has caught up, as /readyz says.", ready)
        yield _gauge("merganser_replica_waiting", "1 while the loop waits for broker, registry or archive.",
                     replica.waiting_for is not None)  # fmt: skip
        stopped = GaugeMetricFamily("merganser_table_stopped", "1 if the table cannot go on.", labels=["table"])
        why = replica.stopped
        for table in sorted({tp.topic for tp in replica.read_position} | set(why)):
            stopped.add_metric([table], float(table in why))
        yield stopped
        unfollowed = GaugeMetricFamily(
            "merganser_table_unfollowed", "1 for a table of the store that is not followed.", labels=["table"]
        )
        for table in replica.unfollowed:
            unfollowed.add_metric([table], 1)
        yield unfollowed
        path = replica.path
        sizes = GaugeMetricFamily("merganser_store_bytes", "Size of the store's files.", labels=["file"])
        for name, file in (("data", path), ("wal", wal_of(path))):
            sizes.add_metric([name], size_of(file))
        yield sizes

    def _parts(self) -> Iterator[Metric]:
        """What archives and backs up, if this node does."""
        parts = self._beside()
        failed = GaugeMetricFamily("merganser_part_failed", "1 while archive or backups fail.", labels=["part"])
        for part, facts in parts.items():
            waits = part == "archive" and facts.get("waiting_for")  # that of backups is for the replica
            failed.add_metric([part], float(bool(facts.get("failed") or waits)))
        yield failed
        if (archive := parts.get("archive")) is not None:
            yield from self._archive(Position.parse(archive["position"]), archive["stopped"])
        if (backup := parts.get("backup")) is not None:
            for which, at in (("last", backup["last_at"]), ("next", backup["next"])):
                if at is not None:
                    at_s = datetime.fromisoformat(at).timestamp()
                    yield _gauge(f"merganser_backup_{which}_timestamp_seconds", f"When the {which} backup is.", at_s)

    def _archive(self, archived: Position, stopped: Collection[str]) -> Iterator[Metric]:
        labels, ends = ["table", "partition"], self._lookout.sight.ends
        offset = GaugeMetricFamily("merganser_archived_offset", "All below it is archived.", labels=labels)
        lag = GaugeMetricFamily(
            "merganser_archive_lag_records", "Offsets up to the log's end not archived yet.", labels=labels
        )
        for tp, next_ in sorted(archived.items()):
            offset.add_metric([tp.topic, str(tp.partition)], next_)
            if tp in ends:
                lag.add_metric([tp.topic, str(tp.partition)], max(0, ends[tp] - next_))
        halted = GaugeMetricFamily("merganser_archive_stopped", "1 if its archive cannot go on.", labels=["table"])
        for table in sorted({tp.topic for tp in archived} | set(stopped)):
            halted.add_metric([table], float(table in stopped))
        yield from (offset, lag, halted)

    def _places(self) -> Iterator[Metric]:
        labels = ["table", "partition"]
        read = GaugeMetricFamily("merganser_read_offset", "Every record below it is accounted for.", labels=labels)
        applied = GaugeMetricFamily(
            "merganser_applied_offset", "As the read one, but stops at what is held back.", labels=labels
        )
        for family, position in ((read, self._replica.read_position), (applied, self._replica.position)):
            for tp, offset in sorted(position.items()):
                family.add_metric([tp.topic, str(tp.partition)], offset)
            yield family

    def _log(self) -> Iterator[Metric]:
        labels, sight = ["table", "partition"], self._lookout.sight
        yield _gauge("merganser_log_reachable", "1 if the last look at the log's ends succeeded.", sight.away is None)
        ends = GaugeMetricFamily("merganser_log_end_offset", "High watermark, as last seen.", labels=labels)
        for tp, offset in sorted(sight.ends.items()):
            ends.add_metric([tp.topic, str(tp.partition)], offset)
        lag = GaugeMetricFamily("merganser_lag_records", "Offsets up to the log's end not applied yet.", labels=labels)
        for tp, behind in sorted(self._lookout.lag().items()):
            lag.add_metric([tp.topic, str(tp.partition)], behind)
        unstable = GaugeMetricFamily(
            "merganser_log_unstable_records", "High watermark minus last stable offset.", labels=labels
        )
        age = GaugeMetricFamily(
            "merganser_log_unstable_seconds", "How long an open transaction has held that offset.", labels=labels
        )
        for tp in sorted(sight.ends):
            stuck = sight.stuck.get(tp)
            unstable.add_metric([tp.topic, str(tp.partition)], stuck.records if stuck else 0)
            age.add_metric([tp.topic, str(tp.partition)], max(0.0, sight.at_s - stuck.since_s) if stuck else 0)
        yield from (ends, lag, unstable, age)

    def _accounts(self) -> Iterator[Metric]:
        rows = self._read()
        if rows is None:
            return
        records = CounterMetricFamily(
            "merganser_records", "Offsets accounted for, by what became of them.", labels=["table", "outcome"]
        )
        quarantined = GaugeMetricFamily("merganser_quarantined_records", "Records in quarantine.", labels=["table"])
        pending = GaugeMetricFamily("merganser_pending_records", "Records held back now.", labels=["table"])
        for table, *counts, in_quarantine, waiting in rows:
            for name, count in zip(OUTCOMES, counts, strict=True):
                records.add_metric([table, name.removesuffix("s")], count)
            quarantined.add_metric([table], in_quarantine)
            pending.add_metric([table], waiting)
        yield from (records, quarantined, pending)

    def _read(self) -> list[tuple[Any, ...]] | None:
        try:
            with self._replica.reading(_PATIENCE_S) as cursor:
                return run(cursor, ACCOUNTS_SQL)
        except MerganserError:
            return None  # the store is changing a schema, or failed: `running` tells of that

    def _queries(self) -> Iterator[Metric]:
        counts = self._guard.counts()
        queries = CounterMetricFamily("merganser_queries", "Queries of all doors.", labels=["result"])
        for result in ("answered", "refused", "failed"):
            queries.add_metric([result], getattr(counts, result))
        yield queries
        yield CounterMetricFamily(
            "merganser_query_seconds", "Time from asking to the first rows.", value=counts.seconds
        )
        yield _gauge("merganser_queries_running", "Queries that run now.", counts.running)
        yield _gauge("merganser_queries_waiting", "Queries that wait for a place.", counts.waiting)
        yield CounterMetricFamily("merganser_query_pauses", "Pauses of queries for a checkpoint.", value=counts.pauses)
        yield CounterMetricFamily("merganser_query_pause_seconds", "How long they took.", value=counts.paused_s)
        yield _gauge("merganser_answers_open", "Answers that are being read.", counts.open)
        if self._logins is not None:
            failures = self._logins.failures
            yield CounterMetricFamily("merganser_login_failures", "Log-ins that failed or had to wait.", value=failures)


def commits(times: Times) -> Metric:
    """The histogram of *times*, as Prometheus has one: each bucket holds those below it too."""
    family = HistogramMetricFamily("merganser_commit_seconds", "Time of one commit of the apply loop.")
    sums = list(accumulate(times.counts))
    bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
    family.add_metric([], list(zip(bounds, sums, strict=True)), times.total_s)
    return family


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


def _version() -> str:
    from importlib.metadata import version

    return version("merganser")
