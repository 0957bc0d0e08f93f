"""A cluster that is lost: tables of every kind, written with all that a log takes, archived; then its disk is wiped."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Producer as Raw

import merganser as mg
from drill.run import Kept
from drill.writers import Writers
from history.fold import TABLE, read_log
from history.journal import ENTRIES, PARTITIONS, ROW, Plan
from merganser.consumers.digest import columns_digest
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.pipeline.broker import LocalBroker
from merganser.pipeline.loading.inputs import open_input
from merganser.pipeline.loading.ledger import LEDGER
from merganser.pipeline.loading.load import Imported, ImportOptions, import_file
from merganser.producers.bulk import BulkOptions
from support.waiting import wait_for

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
PERSON: dict[str, Any] = {
    "type": "record",
    "name": "person",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "born", "type": {"type": "int", "logicalType": "date"}},
        {"name": "owes", "type": ["null", DECIMAL], "default": None},
    ],
}
SHOES = {"name": "shoes", "type": "int", "default": 40}
LINE = {"type": "record", "name": "line", "fields": [{"name": "text", "type": "string"}]}
NUMBER = {"type": "record", "name": "number", "fields": [{"name": "n", "type": "int"}]}
NAMED = {**NUMBER, "name": "named", "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": "int"}]}

#: Rows, as (table, partition, user's columns), each as often as it is there.
Found = Counter[tuple[Any, ...]]


@dataclass
class Lost:
    """What is left of it: *archive*. *tables* by what they are for; *digests* are of the users' columns, as a replica
    had them; *folded* are the rows of the busy tables, by a fold of the log that shares no code with replicas."""

    archive: Path
    cluster_id: str
    plan: Plan
    tables: list[str]
    digests: dict[str, str] = field(default_factory=dict)
    folded: Found = field(default_factory=Counter)
    declared: dict[str, mg.Table] = field(default_factory=dict)


def lose(folder: Path, rows: int) -> Lost:
    """Write, archive, and wipe."""
    broker = LocalBroker(folder / "old-home")
    try:
        servers = broker.start(wait_s=120).bootstrap_servers
        lost = _written(folder, servers, rows)
    finally:
        broker.stop()
    shutil.rmtree(folder / "old-home")
    return lost


def _written(folder: Path, servers: str, rows: int) -> Lost:
    plan = Plan(servers, str(folder), "busy", seed=11)
    with mg.connect(servers) as log:
        tables = [*plan.tables, "people", "lines", "plain", "last", "files"]
        lost = Lost(folder / "archive", log.cluster_id, plan, tables)
        for table, partitions in zip(plan.tables, PARTITIONS, strict=True):
            log.create_table(table, ROW, [] if table == plan.tables[ENTRIES] else ["id"], partitions=partitions)
        with Writers(plan, 2) as writers:
            wait_for("writers to write", lambda: _busy(writers, rows), timeout_s=120)
        _people(log)
        _lines(log)
        _others(log)
        _files(log, folder)
        _archive(log, lost)
        _remember(log, lost, folder / "old.duckdb")
    return lost


def _busy(writers: Writers, rows: int) -> bool:
    writers.check()
    return writers.rows >= rows


def _people(log: mg.Log) -> None:
    """Checks, decimals, deletes; a column comes, another goes; a record that is no row."""
    log.create_table("people", PERSON, ["name"], partitions=3, checks=["name <> 'nobody'"], conditions="partition")
    with log.producer() as producer:
        for n in range(60):
            producer.put("people", {"name": f"p{n}", "born": dt.date(1970, 1, 1 + n % 28), "owes": Decimal(n) / 4})
    log.alter_table("people", {**PERSON, "fields": [*PERSON["fields"], SHOES]})
    with log.producer() as producer:
        for n in range(40, 80):
            producer.put("people", {"name": f"p{n}", "born": dt.date(1990, 1, 1), "owes": None, "shoes": n})
        for n in range(0, 80, 7):
            producer.delete("people", {"name": f"p{n}"})
    log.alter_table("people", {**PERSON, "fields": [*PERSON["fields"][:2], SHOES]})
    with log.producer() as producer:
        producer.put("people", {"name": "late", "born": dt.date(2000, 2, 2), "shoes": 1})
    raw = Raw({"bootstrap.servers": log.bootstrap_servers})
    raw.produce("people", b"no row", b"no key", 1)
    assert raw.flush(20) == 0


def _lines(log: mg.Log) -> None:
    """Appended, with operation ids; one is repeated."""
    log.create_table("lines", LINE, partitions=2)
    with log.producer() as producer:
        for n in range(30):
            producer.put("lines", {"text": f"line {n}"}, op=f"line-{n}" if n % 3 == 0 else None)
        producer.put("lines", {"text": "line 0"}, op="line-0")


def _others(log: mg.Log) -> None:
    """Plain keys as Kafka's own serializers write them; a compacted table; one that is empty."""
    log.create_table("plain", NAMED, ["id"], key_encoding="string", partitions=2)
    with log.producer() as producer:
        for n in range(20):
            producer.put("plain", {"id": f"k{n % 8}", "n": n})
    log.create_table("last", ROW, ["id"], partitions=2, compact=True)
    with log.producer() as producer:
        for n in range(40):
            producer.put("last", {"id": n % 10, "n": n, "w": 0})


FILES = {"whole.csv": 250, "killed.csv": 330}


def load(log: mg.Log, path: Path, on_step: Callable[[str], None] = lambda step: None) -> Imported:
    with open_input(str(path)) as file:
        options = ImportOptions(bulk=BulkOptions(rows=100))
        return import_file(log, log.table("files"), file, options, on_step=on_step)


def _files(log: mg.Log, folder: Path) -> None:
    """Two files in an append table: one whole, of the other two chunks."""
    log.create_table("files", NUMBER, partitions=3)
    for name, rows in FILES.items():
        (folder / name).write_text("n\n" + "".join(f"{rows * 1000 + n}\n" for n in range(rows)))
    load(log, folder / "whole.csv")
    committed: list[str] = []

    def killed(step: str) -> None:
        committed.extend([step] * (step == "committed"))
        if len(committed) == 2:
            raise InterruptedError

    with suppress(InterruptedError):
        load(log, folder / "killed.csv", killed)
    assert len(committed) == 2


def _archive(log: mg.Log, lost: Lost) -> None:
    archive, limits = mg.Archive(lost.archive), SegmentLimits(records=150, age_s=60)
    partitions = [mg.TopicPartition(t, p) for t in lost.tables for p in range(log.table(t).partitions)]
    ends = log.ends(partitions)
    ends |= log.ends([mg.TopicPartition(LEDGER, 0)])
    with Archiver(log, archive, lost.tables, limits=limits, until=ends) as archiver:
        archiver.wait(ends)
        assert not archiver.stopped


def _remember(log: mg.Log, lost: Lost, path: Path) -> None:
    """What is to come back."""
    lost.declared = {name: log.table(name) for name in lost.tables}
    lost.digests = digests(log, path, lost.tables)
    records, ends = read_log(lost.plan)
    fold = Kept(records)
    fold.advance(ends)
    assert not fold.held
    first = [sum(PARTITIONS[:table]) for table in range(len(PARTITIONS))]
    for record in [*fold.rows.values(), *fold.appended]:
        table = TABLE[record.part]
        lost.folded[(lost.plan.tables[table], record.part - first[table], *record.value)] += 1


def digests(log: mg.Log, path: Path, tables: list[str]) -> dict[str, str]:
    """Of the users' columns, in a new replica that has read all there is."""
    with mg.Replica(path, log, path.stem, tables) as replica:
        replica.wait(log.ends(list(replica.position)), timeout=60)
        assert not replica.stopped
    with StoreFile(path) as store, store.reading() as cursor:
        return {table: str(columns_digest(cursor, table)) for table in tables}


def busy_rows(plan: Plan, path: Path) -> Found:
    """The rows of the busy tables in a store at rest."""
    with StoreFile(path) as store:
        return Counter(
            (table, *row)
            for table in plan.tables
            for row in store.query(f'SELECT _partition, id, n FROM "{table}"').rows()
        )
