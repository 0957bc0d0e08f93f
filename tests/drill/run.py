"""A drill: backups and an archive are made while transactions run, then many points are restored from them, and
each is compared, row by row, with a fold of the log that shares no code with replicas.

Points are positions, cut through the partitions at random, and times, of which the log's own timestamps decide.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

import merganser as mg
from drill.writers import Writers
from history.fold import TABLE, Fold, Record, read_log
from history.journal import ENTRIES, PARTITIONS, ROW, Plan
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.pipeline.backup.manifest import Backup
from merganser.schemas.position import Position
from support.waiting import wait_for


@dataclass
class Report:
    points: int = 0
    times: int = 0
    bases: set[str] = field(default_factory=set)
    held_back: int = 0
    records: int = 0
    backups: list[Backup] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def text(self) -> str:
        return (
            f"{self.points} points ({self.times} of them times) of {self.records:,} records, from {len(self.bases)}"
            f" bases of {len(self.backups)} backups; {self.held_back} with records held back; {self.seconds:.0f} s\n"
            + ("\n".join(self.wrong) or "each is the fold of the log up to it")
        )


def drill(plan: Plan, points: int, rows: int, say: Callable[[str], None] = lambda line: None) -> Report:
    """Write *rows*, back up on the way, and restore *points*."""
    report, begun = Report(), time.monotonic()
    folder = Path(plan.folder)
    archive = mg.Archive(folder / "archive")
    with mg.connect(plan.servers) as log:
        for table, partitions in zip(plan.tables, PARTITIONS, strict=True):
            log.create_table(table, ROW, [] if table == plan.tables[ENTRIES] else ["id"], partitions=partitions)
        began, ended = _live(plan, log, archive, rows, report)
    say(f"{len(report.backups)} backups made while {rows:,} rows were written")
    records, ends = read_log(plan)
    stamps = _timestamps(plan, ends)
    report.records = sum(map(len, records))
    rng = random.Random(plan.seed)
    certain = [report.backups[0].position, str(Position(dict(zip(plan.partitions, ends, strict=True))))]
    for number in range(points):
        # However few records there are, or backups that lie below a point: these two are of two bases.
        to = certain[number] if number < len(certain) else _point(plan, rng, ends, began, ended)
        _check(plan, archive, to, records, stamps, report, folder / "restored.duckdb")
        if number % 25 == 24:
            say(f"{number + 1} points restored")
    report.seconds = time.monotonic() - begun
    return report


def _live(plan: Plan, log: mg.Log, archive: mg.Archive, rows: int, report: Report) -> tuple[float, float]:
    """A replica, an archiver and backups, while writers write. From when to when they did."""
    began = time.time()
    store, roll = Path(plan.folder) / "live.duckdb", SegmentLimits(age_s=0.5, records=400)
    with mg.Replica(store, log, f"drill-{plan.tag}", plan.tables) as replica:
        with Archiver(log, archive, plan.tables, group=f"archive-{plan.tag}", limits=roll) as archiver:
            backed_up = replica.read_position
            with Writers(plan, 3) as writers:
                for part in range(1, 5):
                    wait_for("writers to write", lambda p=part: _gone_on(writers, rows * p // 5), timeout_s=600)
                    # A replica that is slow to start, or behind an open transaction, stands at the last one's place:
                    # backups of one place are one base.
                    wait_for("the replica to go on", lambda at=backed_up: replica.read_position != at, timeout_s=600)
                    report.backups.append(archive.backup(replica, log, type="incr" if part == 3 else "full"))
                    backed_up = report.backups[-1].read
                wait_for("writers to write", lambda: _gone_on(writers, rows), timeout_s=600)
            ended = time.time()
            wait_for("open transactions to end", lambda: _readable(log, replica), timeout_s=60)
            archiver.until(replica.position)
            archiver.wait(replica.position)
            assert archiver.error is None and not archiver.stopped and replica.error is None
    return began, ended


def _gone_on(writers: Writers, rows: int) -> bool:
    writers.check()
    return writers.rows >= rows


def _readable(log: mg.Log, replica: mg.Replica) -> bool:
    return replica.position.reaches(log.ends(list(replica.position)))


def _point(plan: Plan, rng: random.Random, ends: list[int], began: float, ended: float) -> str:
    if rng.random() < 0.4:
        return datetime.fromtimestamp(rng.uniform(began, ended), UTC).isoformat()
    # Most cuts lie near each other in time, as a moment's do: a share of the way, and a little aside.
    share, aside = rng.random(), rng.choice([0, 3, 30])
    cut = [min(end, max(0, round(end * share) + rng.randint(-aside, aside))) for end in ends]
    return str(Position(dict(zip(plan.partitions, cut, strict=True))))


def _check(
    plan: Plan,
    archive: mg.Archive,
    to: str,
    records: list[list[Record]],
    stamps: list[list[tuple[int, int]]],
    report: Report,
    path: Path,
) -> None:
    """Restore *to*, from the archive alone, and compare."""
    done = archive.restore(path, to=to, group="drill")
    vector = plan.vector(done.position)
    is_time = to[:2] == "20" and "T" in to
    report.points, report.times = report.points + 1, report.times + is_time
    report.bases.add(_base(archive, to))
    if is_time:
        time_ms = -int(-datetime.fromisoformat(to).timestamp() * 1000 // 1)
        report.wrong += [f"to {to}: {why}" for why in _off(plan, vector, stamps, time_ms)]
    elif done.position != Position.parse(to):
        report.wrong.append(f"to {to}: it is at {done.position}")
    fold = Kept(records)
    fold.advance(vector)
    report.held_back += bool(fold.held)
    if (mine := _rows(plan, path)) != (theirs := _fold_rows(fold)):
        lacks, more = theirs - mine, mine - theirs
        report.wrong.append(f"to {to}: lacks {sorted(lacks)[:3]}, has {sorted(more)[:3]}")
    path.unlink()


def _base(archive: mg.Archive, to: str) -> str:
    from merganser.pipeline.restore.sources import Origin, Wish

    base = Origin(archive, None).plan(Wish(to)).base
    return "none" if base is None else base.id


def _rows(plan: Plan, path: Path) -> set[tuple[int, ...]]:
    """(table, partition, offset, id, n) of every row of a store."""
    with StoreFile(path) as store:
        return {
            (number, *row)
            for number, table in enumerate(plan.tables)
            for row in store.query(f'SELECT _partition, _offset, id, n FROM "{table}"').rows()
        }


class Kept(Fold):
    """The fold, with the rows of append tables kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.appended: list[Record] = []

    def append(self, record: Record) -> None:
        self.appended.append(record)


def _fold_rows(fold: Kept) -> set[tuple[int, ...]]:
    first = [sum(PARTITIONS[:table]) for table in range(len(PARTITIONS))]
    rows = {(TABLE[r.part], r.part - first[TABLE[r.part]], r.offset, *r.value) for r in fold.rows.values()}
    appended = {(TABLE[r.part], r.part - first[TABLE[r.part]], r.offset, *r.value) for r in fold.appended}
    return rows | appended


def _timestamps(plan: Plan, ends: list[int]) -> list[list[tuple[int, int]]]:
    """(offset, timestamp) of each committed record, by partition."""
    settings = {"bootstrap.servers": plan.servers, "group.id": f"stamps-{plan.tag}", "enable.partition.eof": True}
    consumer = Consumer({**settings, "isolation.level": "read_committed", "auto.offset.reset": "error"})
    numbers = {(tp.topic, tp.partition): number for number, tp in enumerate(plan.partitions)}
    found: list[list[tuple[int, int]]] = [[] for _ in numbers]
    ended = set[int]()
    try:
        consumer.assign([KafkaPartition(topic, partition, 0) for topic, partition in numbers])
        while len(ended) < len(numbers):
            for message in consumer.consume(10_000, 1.0):
                part = numbers[message.topic(), message.partition()]  # type: ignore[index]
                if message.error() is not None:
                    ended.add(part)
                else:
                    found[part].append((message.offset(), message.timestamp()[1]))  # type: ignore[arg-type]
    finally:
        consumer.close()
    return found


def _off(plan: Plan, vector: list[int], stamps: list[list[tuple[int, int]]], time_ms: int) -> list[str]:
    """Records on the wrong side of *vector*: below it are those before the first of that time, and no others."""
    wrong = []
    for tp, at, partition in zip(plan.partitions, vector, stamps, strict=True):
        first = next((offset for offset, stamp in partition if stamp >= time_ms), None)
        below = [offset for offset, _ in partition if offset < at]
        meant = [offset for offset, _ in partition if first is None or offset < first]
        if below != meant:
            wrong.append(f"{tp} is cut at {at}, the first record of that time is {first}")
    return wrong
