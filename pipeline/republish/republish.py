"""Carrying it out: rows are resolved in a scratch store, written to the new log, read back, and shown.

Invariants
- The rows come of a restore (``pipeline/restore``), so they are those of a replica; there is no other way to
  tell them.
- A table is none before all of it is there: its schemas are reserved first and shown last, all tables at once. Until
  then no producer of ours writes to it, and no replica follows it.
- Each row is written once, whoever is killed, and however often: a run fences the others, reads the new topics
  back, and goes on after the last row that is there (``standing.py``). A record of anybody else's ends it.
- Nothing is shown before all of it was read back.

Steps, for tests that kill: ``planned``, ``resolved``, ``reserved``, ``made``, ``fenced``, for each chunk ``begun``,
``sent``, ``committed``, then ``written``, ``proved``, ``carried`` and ``shown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...consumers.dbfile import Limits
from ...consumers.digest import columns_digest
from ...consumers.reads import positions
from ...consumers.storefile import StoreFile
from ...producers.bulk import BulkOptions, BulkWriter, WholeRecord, whole_chunks
from ...schemas.errors import (
    CommitInDoubt,
    NotRepublishable,
    ProducerFenced,
    RepublishStopped,
    RolledBack,
    StoreFormat,
)
from ...schemas.position import Position, TopicPartition
from ...schemas.table import SchemaVersion, key_subject, value_subject
from ..archive.archive import Archive
from ..backup.snapshot import Unwatched, Watch
from ..loading.ledger import make_ledger, note_of, read_ledger
from ..restore.restore import Restorer
from ..restore.sources import Origin, Wish
from .imports import Renewed, archived_entries, carried
from .plan import RepublishPlan, TableWay, plan_republish
from .rows import BY_EXPORT, LeftOut, Rows
from .standing import standing

if TYPE_CHECKING:
    from ..log import Log

#: One at a time on a cluster: the newest fences the others.
WRITER = "merganser-republish"

GROUP = "merganser-republish"


@dataclass(frozen=True)
class Table:
    """What the new log has of a table: *rows*, *written* of them by this run. *columns_digest* is that of the users'
    columns, in the old log's replicas and the new one's alike."""

    name: str
    rows: int
    written: int
    columns_digest: str
    left_out: LeftOut

    def fields(self) -> dict[str, Any]:
        out = self.left_out
        return {
            "table": self.name,
            "rows": self.rows,
            "written": self.written,
            "columns_digest": self.columns_digest,
            "held_back": [{"tx": held.tx, "records": held.records} for held in out.held],
            "quarantined": out.quarantined,
            "rejected": out.rejected,
            "operations_forgotten": out.operations,
        }


class Republisher:
    """Makes the tables of *archive* anew in *log*. *scratch* is a folder for the store that rows are resolved in."""

    def __init__(
        self,
        archive: Archive,
        log: Log,
        scratch: Path,
        *,
        limits: Limits | None = None,
        chunks: BulkOptions | None = None,
        watch: Watch | None = None,
        step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._origin = Origin(archive, None)
        self._log, self._limits, self._chunks = log, limits, chunks
        self._watch, self._step = watch or Unwatched(), step
        self._store = scratch / f"{log.cluster_id}.duckdb"

    def plan(self, wish: Wish) -> RepublishPlan:
        """How to fulfil *wish*, of which no tables mean all. NotRepublishable, OtherSchema, NotRestorable."""
        names = sorted(wish.tables or self._origin.archive.topics())
        restore = self._origin.plan(Wish(wish.to, tuple(names), wish.base))
        below = self._origin.below
        facts = below.describe(names)
        for name in sorted(set(names) - facts.keys()):
            raise NotRepublishable(name, "only backups have it, and a new log is made of records", BY_EXPORT)
        ways = [
            TableWay(facts[name], tuple(below.versions(value_subject(name))), tuple(below.versions(key_subject(name))))
            for name in names
        ]
        declared = {name: self._log.versions(value_subject(name)) for name in names}
        found = self._log.identify(names)
        plan = plan_republish(restore, below.cluster_id, self._log.cluster_id, ways, found, declared)
        self._log.adopt(_versions(plan), "check")
        return plan

    def run(self, plan: RepublishPlan) -> list[Table]:
        """Carry *plan* out, or go on with it. NotRepublishable; RepublishStopped where the same call, made again,
        goes on."""
        self._step("planned")
        self._resolve(plan)
        self._step("resolved")
        with StoreFile(self._store, self._limits) as store, store.reading() as cursor:
            rows = Rows(self._origin.below, cursor)
            counts = {tp: rows.count(tp) for way in plan.tables for tp in way.partitions}
            self._log.adopt(_versions(plan), "reserve")
            self._step("reserved")
            written = self._write(plan, rows, counts)
            self._prove(plan, rows, written)
            self._step("proved")
            self._carry_imports(plan, positions(cursor)[1])
            self._step("carried")
            tables = [
                Table(
                    way.name,
                    sum(counts[tp] for tp in way.partitions),
                    sum(written[tp] for tp in way.partitions),
                    str(columns_digest(cursor, way.name)),
                    rows.left_out(way.name),
                )
                for way in plan.tables
            ]
        self._log.adopt(_versions(plan), "use")
        self._step("shown")
        self._forget()
        return tables

    # -- the rows ----------------------------------------------------------------------------

    def _resolve(self, plan: RepublishPlan) -> None:
        """Have the store that says which records are rows."""
        if self._is_resolved(plan):
            return
        self._store.parent.mkdir(parents=True, exist_ok=True)
        self._forget()
        Restorer(self._origin, self._store, GROUP, limits=self._limits, watch=self._watch).run(plan.restore)

    def _is_resolved(self, plan: RepublishPlan) -> bool:
        if not self._store.exists():
            return False
        with suppress(StoreFormat), StoreFile(self._store, self._limits) as store:
            return store.cluster_id == plan.from_cluster_id and store.position == plan.restore.target
        return False

    def _forget(self) -> None:
        for path in (self._store, self._store.with_name(self._store.name + ".wal")):
            path.unlink(missing_ok=True)

    # -- the new log -------------------------------------------------------------------------

    def _write(self, plan: RepublishPlan, rows: Rows, counts: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Write what is not there yet; how many rows that were."""
        ids = {way.name: self._made(way) for way in plan.tables}
        self._step("made")
        writer = self._log.bulk_writer(WRITER, self._chunks)
        written: dict[TopicPartition, int] = {}
        try:
            writer.open()
            self._step("fenced")
            self._watch.begin("publish", sum(counts.values()))
            for way in plan.tables:
                there = self._standing(way, rows)
                written |= {tp: counts[tp] - there[tp] for tp in way.partitions}
                missing = (rows.records(tp, there[tp]) for tp in way.partitions if written[tp])
                self._continue(writer, chain.from_iterable(missing), way.name, ids[way.name])
        except ProducerFenced as error:
            raise RepublishStopped("another run has taken over", _TAKEN_OVER) from error
        except (RolledBack, CommitInDoubt) as error:
            raise RepublishStopped(str(error)) from error
        finally:
            writer.close()
        self._step("written")
        return written

    def _made(self, way: TableWay) -> str:
        """Have the topic of *way*; its id."""
        self._log.make_topic(way.name, way.facts.partitions, way.settings)
        found = self._log.identify([way.name]).get(way.name)
        if found is None or found.partitions != way.facts.partitions:
            raise NotRepublishable(way.name, "its topic was made by somebody else meanwhile, or deleted")
        return found.topic_id

    def _continue(self, writer: BulkWriter, records: Iterator[WholeRecord], topic: str, topic_id: str) -> None:
        for chunk in whole_chunks(records, writer.options.rows, writer.options.bytes):
            writer.write_whole(chunk, confirm=lambda: self._is_other(topic, topic_id), on_step=self._step)
            self._watch.advance(len(chunk))

    def _is_other(self, topic: str, topic_id: str) -> str | None:
        """Asked when records are acknowledged: librdkafka goes on by name when a topic is made anew."""
        found = self._log.identify([topic]).get(topic)
        if found is None or found.topic_id != topic_id:
            return f"topic {topic!r} was deleted, or made anew, meanwhile"
        return None

    def _prove(self, plan: RepublishPlan, rows: Rows, written: dict[TopicPartition, int]) -> None:
        """Read back the tables that were written to: nothing else is there, and nothing is lacking."""
        ways = [way for way in plan.tables if any(written[tp] for tp in way.partitions)]
        counts = {tp: rows.count(tp) for way in ways for tp in way.partitions}
        self._watch.begin("read back", sum(counts.values()))
        for way in ways:
            for tp, count in self._standing(way, rows).items():
                if count != counts[tp]:
                    raise NotRepublishable(way.name, f"{tp} has {count:,} records, {counts[tp]:,} were written")

    def _standing(self, way: TableWay, rows: Rows) -> dict[TopicPartition, int]:
        return standing(self._log, {tp: rows.origins(tp) for tp in way.partitions}, self._watch.advance)

    def _carry_imports(self, plan: RepublishPlan, applied: Position) -> None:
        """Let the ledger of imports say what the new tables have; what it says already stays."""
        ids, target = self._log.identify([way.name for way in plan.tables]), plan.restore.target
        renewed = {
            way.name: Renewed(
                way.facts.topic_id,
                ids[way.name].topic_id,
                bool(way.keys),
                applied.of({way.name}),
                target.of({way.name}),
                self._log.ends(way.partitions),
            )
            for way in plan.tables
        }
        entries = carried(archived_entries(self._origin.below), renewed)
        if not entries:
            return
        make_ledger(self._log)
        known = {entry.key for entry in read_ledger(self._log, _LEDGER_S, settled=True)}
        notes = [note_of(entry) for entry in entries if entry.key not in known]
        writer = self._log.bulk_writer(WRITER, self._chunks)
        try:
            records = (WholeRecord(topic, partition, key, value) for topic, partition, key, value in notes)
            for chunk in whole_chunks(records, writer.options.rows, writer.options.bytes):
                writer.write_whole(chunk)
        except (RolledBack, CommitInDoubt, ProducerFenced) as error:
            raise RepublishStopped(str(error)) from error
        finally:
            writer.close()


_LEDGER_S = 30.0

_TAKEN_OVER = "let that one end; it goes on from where this one was"


def _versions(plan: RepublishPlan) -> list[SchemaVersion]:
    return [version for way in plan.tables for version in way.versions]
