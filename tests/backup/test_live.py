"""A live replica is backed up at one position while it goes on, and a node does so in time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup.restored import load
from merganser.consumers.apply import BatchLimits
from merganser.consumers.dbfile import Limits
from merganser.consumers.replica import Replica
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.policy import Policy
from merganser.pipeline.backup.schedule import Line
from merganser.pipeline.backup.snapshot import ChunkLimits, Snapshotter, patiently
from merganser.pipeline.node import CaughtUp, Schedule
from merganser.schemas.errors import ArchiveUnavailable, BackupFailed, LogUnavailable, NotFreshEnough, ReadInterrupted
from merganser.schemas.position import Position
from stories.world import World, version
from support.frames import framed
from support.memory import MemoryObjects
from support.waiting import wait_for


@pytest.fixture
def world() -> World:
    made = World(4)
    made.write(150)
    return made


@pytest.fixture
def replica(world: World, tmp_path: Path) -> Iterator[Replica]:
    limits = Limits(head_room=0, open_reads_s=0.2)
    tables = sorted(world.log.tables)
    with Replica(tmp_path / "live.duckdb", world.log, "g", tables, limits=limits, batches=BatchLimits()) as opened:
        caught_up(world, opened)
        yield opened


def caught_up(world: World, replica: Replica) -> None:
    ends = world.log.ends(list(world.log.partitions))
    wait_for("the replica to catch up", lambda: replica.position.reaches(ends))


def write(world: World, number: int, schema: int = 1) -> None:
    field = "amount" if schema > 2 else "n"
    row = {"id": number, field: number} | ({"tag": "t"} if schema in (2, 3) else {})
    world.log.put("plain", 0, None, framed(version("plain", schema).id, dict(version("plain", schema).schema), row))  # type: ignore[arg-type]


def test_what_comes_in_while_it_is_read_is_not_in_it(world: World, replica: Replica, tmp_path: Path) -> None:
    """FAILURES 30: all of it is of one position."""
    before, objects, after = replica.position, MemoryObjects(), list[Position]()

    def step(name: str) -> None:
        if name == "file-written":
            write(world, len(after))
            caught_up(world, replica)
            after.append(replica.position)

    snapshot = Snapshotter(objects, None, ChunkLimits(rows=16), step=step).take(replica, {})
    assert snapshot.state.read == before != after[-1] and len(after) > 5
    held = load(snapshot, objects, None, tmp_path / "new.duckdb")
    inside = {t.topic: int(t.digest.partition("-")[0]) for t in snapshot.state.tables}
    assert {table: len(held[table]) for table in inside} == inside


def test_a_schema_change_in_the_middle_makes_it_begin_again(world: World, replica: Replica, tmp_path: Path) -> None:
    objects, begun = MemoryObjects(), list[Position]()
    start = world.versions["plain"]

    def step(name: str) -> None:
        if name == "begun":
            begun.append(replica.position)
        if name == "file-written" and len(begun) == 1 and world.versions["plain"] == start:
            world.versions["plain"] += 1
            world.log.register(version("plain", start + 1))
            write(world, 7, start + 1)
            gate = replica._store._gate
            wait_for("the change to wait for readers", lambda: gate._closed)
            for cursor in gate._cursors:
                cursor.interrupt()  # as the gate does once it has waited long enough

    snapshot = Snapshotter(objects, None, ChunkLimits(rows=4, bytes=1), step=step).take(replica, {})
    caught_up(world, replica)
    assert len(begun) > 1
    # The change is made once the read was interrupted, so the snapshot that came out is of one schema.
    columns = {t.topic: [name for name, _ in t.columns] for t in snapshot.state.tables}
    held = load(snapshot, objects, None, tmp_path / "new.duckdb")
    assert len(held["plain"][0]) == len(columns["plain"])
    assert replica.error is None and not replica.stopped


def test_schema_changes_without_an_end_are_told(replica: Replica) -> None:
    class Restless:
        path, cluster_id, group = replica.path, "c", "g"
        tries = 0

        @contextmanager
        def reading(self) -> Iterator[object]:
            self.tries += 1
            yield None
            raise ReadInterrupted(str(self.path))

    restless = Restless()
    with pytest.raises(BackupFailed, match="20 times"):
        patiently(restless, lambda cursor: None)  # type: ignore[arg-type]
    assert restless.tries == 20


# -- a node's schedule -----------------------------------------------------------------------

DAILY = Line("0 3 * * *", "full")
START = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


def scheduled(replica: Replica, clock: Clock, objects: MemoryObjects, keep: Policy | None = None) -> Schedule:
    return Schedule(Archive(objects), replica, (DAILY,), keep, lambda position, timeout_s: None, now=clock)


def test_backups_are_made_in_time_and_made_up_for_once(replica: Replica) -> None:
    clock, objects = Clock(), MemoryObjects()
    schedule = scheduled(replica, clock, objects)
    first = schedule.look()
    assert first is not None and schedule.look() is None and schedule.status()["last"] == first.id
    clock.now = START + timedelta(hours=14, minutes=59)
    assert schedule.look() is None
    clock.now += timedelta(minutes=1)
    second = schedule.look()
    assert second is not None and not second.late
    clock.now += timedelta(days=9, hours=5)  # the node was away
    third = scheduled(replica, clock, objects).look()
    assert third is not None and third.late and third.due == "2030-01-11T03:00:00+00:00"
    again = scheduled(replica, clock, objects)
    assert again.look() is None
    assert (again.status()["last"], again.status()["last_at"]) == (third.id, third.created), "a restart forgets nothing"


def test_one_on_request_shows_that_what_failed_can_be_tried_again(replica: Replica) -> None:
    """Until the next try, which might be ten minutes off, the node had said that its backups fail."""
    clock, full = Clock(), True
    schedule = scheduled(replica, clock, MemoryObjects())

    def archive(position: Position, timeout_s: float) -> None:
        if full:
            raise ArchiveUnavailable("memory:", "no room")

    schedule.archive_up_to = archive
    assert schedule.look() is None and "no room" in schedule.status()["failed"]
    full = False
    assert schedule.look() is None, "not at once"
    made = schedule.on_request("full", {})
    assert schedule.status()["failed"] is None and schedule.status()["last"] == made.id
    assert schedule.look() is not None


def test_none_is_made_before_the_replica_has_caught_up(replica: Replica) -> None:
    clock, objects, there = Clock(), MemoryObjects(), False
    schedule = scheduled(replica, clock, objects)
    schedule.caught_up = lambda: there
    assert schedule.look() is None and schedule.status()["waiting_for"] == "the replica to catch up"
    there = True
    made = schedule.look()
    assert made is not None and schedule.status()["waiting_for"] is None
    there, clock.now = False, START + timedelta(days=1)
    assert schedule.look() is not None, "later on it may be behind, as any replica"


def test_caught_up_is_what_the_log_had_when_it_was_first_asked(world: World) -> None:
    class Far:
        """A replica that is as far as it is said to be."""

        read_position = Position(dict.fromkeys(world.log.partitions, 0))
        stopped: Collection[str] = ()

    class Away:
        def stable_ends(self, partitions: object, timeout_s: float) -> Position:
            raise LogUnavailable("127.0.0.1:1", "no broker answers")

    far, ends = Far(), world.log.ends(list(world.log.partitions))
    assert not CaughtUp(far, Away())()  # type: ignore[arg-type]
    asked = CaughtUp(far, world.log)  # type: ignore[arg-type]
    assert not asked()
    write(world, 1)
    last = min(ends)
    far.read_position = Position({**ends, last: 0})
    assert not asked()
    far.stopped = (last.topic,)
    assert asked(), "what cannot go on is not waited for"
    far.read_position, far.stopped = ends, ()
    assert asked() and not CaughtUp(far, world.log)()  # type: ignore[arg-type]


def test_a_failed_one_is_told_and_tried_again_after_a_while(replica: Replica) -> None:
    clock, objects = Clock(), MemoryObjects()
    schedule, tries = scheduled(replica, clock, objects), list[datetime]()

    def fails(position: Position, timeout_s: float) -> None:
        tries.append(clock.now)
        raise ArchiveUnavailable("memory://", "no room")

    schedule.archive_up_to = fails
    for _ in range(600):
        assert schedule.look() is None
        clock.now += timedelta(seconds=1)
    assert [round((t - START).total_seconds()) for t in tries] == [0, 30, 150]
    assert "no room" in schedule.status()["failed"]
    schedule.archive_up_to = lambda position, timeout_s: None
    clock.now += timedelta(hours=1)
    assert schedule.look() is not None and schedule.status()["failed"] is None


def test_a_node_that_stops_does_not_wait_for_the_archive(replica: Replica) -> None:
    objects, waits = MemoryObjects(), list[float]()
    schedule = scheduled(replica, Clock(), objects)

    def never(position: Position, timeout_s: float) -> None:
        waits.append(timeout_s)
        raise NotFreshEnough("archived", timeout_s, "the script says so")

    schedule.archive_up_to = never
    schedule.start()
    wait_for("the backup to wait for the archive", lambda: len(waits) > 2)
    schedule.stop()
    assert catalog(objects) == [] and all(timeout_s <= 5 for timeout_s in waits)
    assert not [name for name in objects.files if name.startswith("backups/")]


def test_what_nothing_keeps_goes_after_each_backup(replica: Replica) -> None:
    clock, objects = Clock(), MemoryObjects()
    schedule = scheduled(replica, clock, objects, Policy(full=2))
    for _ in range(4):
        assert schedule.look() is not None
        clock.now += timedelta(days=1)
    assert len(catalog(objects)) == 2
