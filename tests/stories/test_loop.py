"""The loop with its own threads, on the scripted log: what nobody waits for happens all the same."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from merganser.consumers.apply import Applier, BatchLimits
from merganser.consumers.dbfile import Limits
from merganser.consumers.follow import Follow
from merganser.consumers.log import Problem
from merganser.consumers.progress import Progress
from merganser.consumers.store import Store
from merganser.schemas.errors import KeyChanged, LogTruncated, TopicRecreated
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, key_subject
from stories.world import KEY_ID, PARTITIONS, World, framed, replica, version
from support.naive import both_ways, caught
from support.waiting import wait_for


class FailsOnce(Store):
    """The first commit of rows fails after the fact."""

    failed = False

    def _move(self, batch):  # type: ignore[no-untyped-def]
        if not self.failed:
            self.failed = True
            raise duckdb.IOException("injected")
        super()._move(batch)


def applier(world: World, store: Store, progress: Progress) -> Applier:
    follow = Follow(world.log, store, ["keyed", "plain"], accept_partial=False)
    return Applier(world.log, store, follow, world.log.reader("g"), progress, BatchLimits(linger_ms=0))


def wait_for_all(world: World, progress: Progress, table: str | None = None) -> None:
    """Until everything in the log, or in *table*, is applied."""
    ends = world.log.ends([tp for tp in world.log.partitions if table in (None, tp.topic)])
    wait_for(f"everything of {table or 'the log'}", lambda: progress.applied.reaches(ends))


@contextmanager
def running(world: World, path: Path, store: type[Store] = Store) -> Iterator[tuple[Store, Progress, Applier]]:
    opened = store(path, world.log.cluster_id, "g", Limits(head_room=0))
    progress = Progress()
    loop = applier(world, opened, progress)
    loop.start(split=False)
    try:
        yield opened, progress, loop
    finally:
        loop.stop()
        opened.close()


def test_a_commit_that_fails_on_a_quiet_log_is_made_good_without_another_record(tmp_path: Path) -> None:
    world = World(1)
    world.write(30)
    with running(world, tmp_path / "s.duckdb", FailsOnce) as (_, progress, _):
        wait_for_all(world, progress)


def test_a_large_open_transaction_keeps_nothing_else_from_being_applied(tmp_path: Path) -> None:
    """Far behind, batches are large; but what an open transaction hides is not behind: nobody can read it."""
    world, hidden = World(1), TopicPartition("plain", 0)
    for _ in range(BatchLimits().poll_records + 100):
        world._put("plain", 0)
    world.log.stable[hidden] = 3
    with running(world, tmp_path / "r.duckdb") as (_, progress, _loop):
        for n in range(5):
            world._put("keyed", 1)
            here = world.log.ends([TopicPartition("keyed", 1)])
            wait_for(f"row {n} of another table", lambda here=here: progress.applied.reaches(here), timeout_s=10)
        assert progress.applied[hidden] == 3
        del world.log.stable[hidden]
        wait_for_all(world, progress)


@pytest.mark.parametrize("compacted", [True, False])
def test_a_partition_without_a_leader_keeps_no_other_table_back(
    compacted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to note that a compacted table is at its end, nor to find out whether a transaction can become whole."""
    monkeypatch.setattr("merganser.consumers.apply._LOOK_S", 0.1)
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 0.1)
    world, away = World(1), TopicPartition("keyed", 0)
    world.log.tables["keyed"] = replace(world.log.tables["keyed"], compacted=compacted)
    with running(world, tmp_path / "r.duckdb") as (_, progress, _loop):
        wait_for_all(world, progress)
        asked, ends = threading.Event(), world.log.ends

        def in_vain(partitions: Collection[TopicPartition], timeout_s: float | None = None) -> Position:
            if away in partitions:
                asked.set()
            return ends(partitions, timeout_s)

        monkeypatch.setattr(world.log, "ends", in_vain)
        world.log.leaderless = {away}
        if not compacted:
            value = framed(201, dict(version("plain", 1).schema), {"id": 1, "n": 1})  # type: ignore[arg-type]
            world.log.put("plain", 0, None, value, Marks("t", {away: 1, TopicPartition("plain", 0): 1}))
        wait_for("the loop to ask where it ends", asked.is_set)
        world._put("plain", 1)
        here = TopicPartition("plain", 1)
        wait_for("a row of another table", lambda: progress.applied.reaches(world.log.ends([here])), timeout_s=30)
        world.log.leaderless = set()


def test_a_batch_that_grows_slowly_is_applied_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merganser.consumers.apply._GROWN_S", 0.3)
    monkeypatch.setattr("merganser.consumers.apply._STALLED_S", 60.0)
    world, slow = World(1), TopicPartition("plain", 0)
    for _ in range(BatchLimits().poll_records + 100):
        world._put("plain", 0)
    world.log.stable[slow] = 1
    with running(world, tmp_path / "r.duckdb") as (_, progress, _loop):
        for n in range(2, 6):
            world.log.stable[slow] = n
            wait_for(f"{n} records", lambda n=n: progress.applied.get(slow, 0) >= n, timeout_s=10)


def test_a_key_schema_registered_later_is_known_when_its_keys_come(tmp_path: Path) -> None:
    world = World(1)
    with running(world, tmp_path / "s.duckdb") as (store, progress, _):
        key = {"type": "record", "name": "k", "doc": "said anew", "fields": [{"name": "id", "type": "long"}]}
        world.log.register(SchemaVersion(key_subject("keyed"), 2, KEY_ID + 500, key))
        value = version("keyed", 1)
        row = framed(value.id, dict(value.schema), {"id": 1, "n": 2})  # type: ignore[arg-type]
        world.log.put("keyed", 0, framed(KEY_ID + 500, key, {"id": 1}), row)
        wait_for_all(world, progress)
        with store.reading(1) as cursor:
            assert cursor.execute("SELECT id, n FROM keyed").fetchall() == [(1, 2)]
            assert cursor.execute("SELECT * FROM _merganser.quarantine").fetchall() == []


def test_another_key_than_the_store_was_built_with_stops_the_table(tmp_path: Path) -> None:
    world = World(1)
    world.write(10)
    with running(world, tmp_path / "s.duckdb"):
        pass
    world.log.tables["plain"] = replace(world.log.tables["keyed"], name="plain", topic_id="id-p")
    world.log.registered["plain-key"] = world.log.registered["keyed-key"]
    with running(world, tmp_path / "s.duckdb") as (_, progress, _):
        why = progress.stopped["plain"]
        assert isinstance(why, KeyChanged) and "its key is id, the store was built with none" in str(why)
        goes_on(world, progress, "keyed")


def test_a_topic_deleted_while_the_replica_was_down_stops_its_table_and_no_other(tmp_path: Path) -> None:
    world = World(1)
    apply_all(world, tmp_path / "s.duckdb")
    del world.log.tables["plain"]
    with running(world, tmp_path / "s.duckdb") as (store, progress, _):
        assert isinstance(progress.stopped["plain"], TopicRecreated)
        assert store.tables()["plain"].stopped == "the topic was deleted"
        goes_on(world, progress, "keyed")


def test_of_a_split_group_a_partition_that_cannot_go_on_stops_its_whole_table(tmp_path: Path) -> None:
    world = World(1)
    apply_all(world, tmp_path / "s.duckdb")
    world.log.recreate("plain")
    every = list(world.log.partitions)
    plain = [tp for tp in every if tp.topic == "plain"]
    store = Store(tmp_path / "s.duckdb", world.log.cluster_id, "g", Limits(head_room=0))
    loop = applier(world, store, Progress())
    loop._load()
    loop.gained([tp for tp in every if tp not in plain[1:]])
    loop.gained(plain[1:])  # of which the store has nothing, so that they could begin
    assert {tp.topic for tp in loop._collector.owned} == {"keyed"}
    assert "created again" in (store.tables()["plain"].stopped or "")
    loop.stop()
    store.close()


@both_ways
def test_of_lost_partitions_nothing_that_was_collected_is_written(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAILURES 13. Far behind, with batches that are never full: what is polled stays collected."""
    if naive:
        monkeypatch.setattr(Applier, "lost", Applier.revoked)
    world = World(1)
    world.write(60)
    every = list(world.log.partitions)
    with replica(world, tmp_path / "s.duckdb", BatchLimits(linger_ms=0, poll_records=1)) as member:
        loop, steps = member.loop, member.steps
        loop._load()
        loop._reader.assign(loop.gained(every))
        while loop._collector.records < 5:
            loop.turn()
        assert not steps
        loop.lost(every)
        with caught(naive):
            assert not steps
        loop._reader.assign(loop.gained(every))
        member.follow()
        for table in ("keyed", "plain"):
            assert member.rows(table, world.columns(table)) == world.expected(table)


@both_ways
def test_rows_of_a_topic_created_again_under_a_running_replica_are_not_applied(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAILURES 17. The reader goes on by name, and the new topic has more records than the old one had."""
    if naive:
        monkeypatch.setattr(Applier, "_check_topics", lambda self, tables: None)
    world = World(1)
    world.write(60)
    with running(world, tmp_path / "s.duckdb") as (store, progress, _):
        wait_for_all(world, progress)
        before = rows_of(store, "plain")
        world.log.recreate("plain")
        for partition in range(PARTITIONS):
            for _ in range(100):
                world._put("plain", partition)
        with caught(naive):
            wait_for("it stops or reads on", lambda: "plain" in progress.stopped or rows_of(store, "plain") != before)
            assert rows_of(store, "plain") == before
            assert isinstance(progress.stopped["plain"], TopicRecreated)
        goes_on(world, progress, "keyed")


def rows_of(store: Store, table: str) -> list[tuple[int, int]]:
    """The places in the log that the rows of *table* came from."""
    with store.reading(1) as cursor:
        return sorted(cursor.execute(f"SELECT _partition, _offset FROM {table}").fetchall())


def apply_all(world: World, path: Path) -> None:
    """Write a history, and keep it in the store at *path*."""
    world.write(60)
    with running(world, path) as (_, progress, _):
        wait_for_all(world, progress)


def goes_on(world: World, progress: Progress, table: str) -> None:
    world._put(table, 0)
    wait_for_all(world, progress, table)


def refuse(world: World, loop: Applier, why: str, truncated: bool = False) -> None:
    """The log refuses to go on with the table ``plain``."""
    reader = loop._reader
    poll = reader.poll

    def with_problem(max_records: int, timeout_s: float, gather_s: float = 0.0):  # type: ignore[no-untyped-def]
        got = poll(max_records, timeout_s)
        got.problems += [Problem(tp, why, truncated) for tp in world.log.partitions if tp.topic == "plain"]
        return got

    reader.poll = with_problem  # type: ignore[method-assign]


def test_a_deleted_topic_stops_its_table_and_no_other(tmp_path: Path) -> None:
    world = World(1)
    world.write(40)
    with running(world, tmp_path / "s.duckdb") as (_, progress, loop):
        wait_for_all(world, progress)
        del world.log.tables["plain"]
        world._put("plain", 0)
        refuse(world, loop, "unknown topic")
        wait_for("the table to stop", lambda: "plain" in progress.stopped)
        assert isinstance(progress.stopped["plain"], TopicRecreated) and progress.error is None
        goes_on(world, progress, "keyed")


def test_a_log_that_went_back_and_grew_again_stops_its_table_by_that_name(tmp_path: Path) -> None:
    """Start and end of the partition say nothing of it then, only Kafka's leader epochs do."""
    world = World(1)
    world.write(40)
    with running(world, tmp_path / "s.duckdb") as (_, progress, loop):
        wait_for_all(world, progress)
        refuse(world, loop, "truncation detected", truncated=True)
        wait_for("the table to stop", lambda: "plain" in progress.stopped)
        assert isinstance(progress.stopped["plain"], LogTruncated) and progress.error is None
        goes_on(world, progress, "keyed")


def test_a_time_outside_the_calendar_is_null_and_readable(tmp_path: Path) -> None:
    world = World(random.Random(1).randrange(9))
    world._put("plain", 0)
    world.log.partitions = {
        tp: [r and replace(r, time_ms=1_700_000_000_000_000_000) for r in records]
        for tp, records in world.log.partitions.items()
    }
    with running(world, tmp_path / "s.duckdb") as (store, progress, _):
        wait_for_all(world, progress)
        with store.reading(1) as cursor:
            assert cursor.execute("SELECT count(*), count(_timestamp) FROM plain").fetchall() == [(1, 0)]


@both_ways
def test_partitions_that_are_gained_wait_for_the_registry(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is held back there, a key may be of a schema that has to be asked for."""
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 1e9)  # what it lacks may come yet
    world, path = World(1), tmp_path / "store.duckdb"
    partitions = list(world.log.partitions)
    here, elsewhere = (TopicPartition("keyed", n) for n in (0, 1))
    key = framed(77, {"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}, {"id": 0})
    world.log.put("keyed", 0, key, b"", Marks("tx", {here: 1, elsewhere: 1}))
    with replica(world, path, BatchLimits()) as before:
        before.loop.begin()
        while not before.progress.read.reaches(world.log.ends(partitions)):
            before.loop.turn()
            before.loop.flush()
    store = Store(path, world.log.cluster_id, "g", Limits(head_room=0))
    loop = applier(world, store, Progress())
    try:
        loop._load()
        world.log.registry_fails = 2
        if naive:
            monkeypatch.setattr(loop, "_patiently", lambda question: question())
        with caught(naive):
            assert loop.gained(partitions).keys() == set(partitions)
            assert world.log.registry_fails == 0
    finally:
        loop.stop()
        store.close()
