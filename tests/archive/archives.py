"""A scripted log with all that records can carry, and archives of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from merganser.consumers.chunk import WholeChunk
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.fakelog import FakeLog
from support.waiting import wait_for

SCHEMA = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
PARTITIONS = 2
PLACES = [TopicPartition("t", p) for p in range(PARTITIONS)]

#: A segment every few rows, or every few milliseconds.
SMALL = SegmentLimits(records=7, age_s=0.01)


class Listed:
    """*log*, with the list of its tables that Kafka's log has."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def tables(self) -> list[Table]:
        return [self._log.table(name) for name in sorted(self._log.tables)]


def table(name: str = "t", topic_id: str = "i+d/9", partitions: int = PARTITIONS) -> Table:
    return Table(name, topic_id, partitions, (SchemaVersion(f"{name}-value", 1, 1, SCHEMA),))


def history(rows: int = 60, seed: int = 1) -> FakeLog:
    """Records with and without keys, values and headers, and gaps; the same for the same numbers."""
    log, rng = FakeLog(seed), random.Random(seed)
    log.add(table())
    extend(log, rows, rng)
    return log


def extend(log: FakeLog, rows: int, rng: random.Random) -> None:
    for _ in range(rows):
        tp = rng.choice(PLACES)
        key = rng.choice([None, b"", b"k%d" % rng.randrange(9)])
        value = rng.choice([None, b"", b"\0\0\0\0\1" + rng.randbytes(rng.randrange(40))])
        log.put(*tp, key, value, Marks(tx=f"tx-{rng.randrange(5)}") if rng.random() < 0.2 else None)
        if rng.random() < 0.1:
            log.gap(*tp, rng.randrange(1, 4))


def copy(
    log: FakeLog, archive: Archive, limits: SegmentLimits = SMALL, on_step: Callable[[str], None] = lambda step: None
) -> None:
    """Archive all that *log* has now."""
    ends = log.ends(PLACES)
    with Archiver(log, archive, ["t"], limits=limits, until=ends, on_step=on_step) as archiver:
        archiver.wait(ends, 120)


def archived(folder: Path, rows: int = 60, limits: SegmentLimits = SMALL) -> tuple[FakeLog, Archive]:
    log, archive = history(rows), Archive(folder)
    copy(log, archive, limits)
    return log, archive


def records(log: Any, start: Position | None = None) -> dict[TopicPartition, list[tuple[Any, ...]]]:
    """All that a reader of *log* brings, every fact of every record."""
    reader, ends = log.reader("all", WholeChunk), log.ends(PLACES)
    reader.assign(start or Position(dict.fromkeys(PLACES, 0)))
    found: dict[TopicPartition, list[tuple[Any, ...]]] = {tp: [] for tp in PLACES}
    told: dict[TopicPartition, int] = {}

    def done() -> bool:
        poll = reader.poll(1000, 0.1)
        for topic, chunk in poll.chunks.items():
            for n, partition in enumerate(chunk.partitions):
                headers = chunk.all_headers[n]
                facts = [getattr(chunk, fact)[n] for fact in WholeChunk.facts if fact != "all_headers"]
                found[TopicPartition(topic, partition)].append((*facts, tuple(headers) if headers else None))
        told.update(poll.ends)
        assert not poll.problems, poll.problems
        return all(told.get(tp, 0) >= ends[tp] for tp in PLACES)

    wait_for("all records", done, every_s=0)
    reader.close()
    return found


def tampering(archive: Archive, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Let *change* have its way with a file, without the archive's own care; None takes it away."""
    data = archive.objects.read(name)
    assert data is not None
    changed = change(data)
    archive.objects.delete(name)
    if changed is not None:
        archive.objects.put(name, changed)


def files(archive: Archive, ends: Sequence[str] = ("",)) -> list[str]:
    return sorted(f.name for f in archive.objects.list("") if f.name.endswith(tuple(ends)))


class Gate:
    """Holds whoever comes to *step* for the *nth* time, until it is let go."""

    def __init__(self, step: str, nth: int = 1) -> None:
        self._step, self._left = step, nth
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                assert self.open.wait(120)


def sound(archive: Archive, log: FakeLog) -> None:
    """The archive holds all of *log*, each record once, and nothing is wrong with it."""
    report = check(archive)
    assert not report.findings, report.findings
    covered = {each.place.folder: each.next for each in report.coverage}
    places = archive.declared("t")[-1].places
    assert {place.tp: covered[place.folder] for place in places} == archive.log().ends(PLACES) == log.ends(PLACES)
    assert records(archive.log()) == records(log)
