"""An archive, cut or not, is a log that replicas are built of: the same rows, and no guess at what is not there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from archives import PARTITIONS, PLACES, SCHEMA, archived, copy, extend, history, records
from hypothesis import given, settings
from hypothesis import strategies as st

import merganser as mg
from merganser.pipeline.archive import bridged as bridged_module
from merganser.pipeline.archive import log as log_module
from merganser.pipeline.archive.archive import Archive, open_archive
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.archive.log import ArchiveLog, ArchiveReader
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas import errors
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from support.fakelog import FakeLog
from support.frames import framed
from support.naive import both_ways, caught
from support.waiting import wait_for

ROW = {"type": "record", "name": "r", "fields": [{"name": "id", "type": "int"}, {"name": "n", "type": "int"}]}
KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "int"}]}


def shop(rows: int, seed: int = 1) -> FakeLog:
    """A keyed table with transactions over both of its partitions, some of them open at the end."""
    log, rng = FakeLog(seed), random.Random(seed)
    log.add(
        Table("t", "id", PARTITIONS, (SchemaVersion("t-value", 1, 1, ROW),), ("id",), "avro",
              SchemaVersion("t-key", 1, 2, KEY))
    )  # fmt: skip
    for n in range(rows):
        if rng.random() < 0.2:
            counts = dict.fromkeys(PLACES, 1)
            for tp in PLACES:
                put(log, tp, rng.randrange(20), n, Marks(tx=f"tx-{n}", manifest=counts))
        else:
            put(log, rng.choice(PLACES), rng.randrange(20), n)
    return log


def put(log: FakeLog, tp: TopicPartition, id_: int, n: int, marks: Marks | None = None) -> None:
    log.put(*tp, framed(2, KEY, {"id": id_}), framed(1, ROW, {"id": id_, "n": n}), marks)


def rows(path: Path, log: Any, name: str, until: Position | None = None) -> Any:
    """The digest and rows of a new replica of *log*, at its end."""
    with mg.Replica(path / name, log, name, ["t"]) as replica:
        wait_for("it is there", lambda: replica.error is not None or reached(replica, until or log.ends(PLACES)))
        assert replica.error is None and not replica.stopped, (replica.error, replica.stopped)
        return replica.query("select * from t order by all").rows()


def reached(replica: mg.Replica, end: Position) -> bool:
    result = replica.query("select 1")
    return result.position.reaches(end)


def test_a_replica_of_the_archive_is_equal_to_one_of_the_log(tmp_path: Path) -> None:
    log, archive = shop(120), Archive(tmp_path / "archive")
    copy(log, archive)
    assert rows(tmp_path, archive.log(), "below") == rows(tmp_path, log, "above") != []


@both_ways
def test_a_transaction_whose_rest_is_not_archived_yet_is_not_torn(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = shop(10), Archive(tmp_path / "archive")
    first, second = PLACES
    counts = dict.fromkeys(PLACES, 1)
    put(log, first, 1, 77, Marks(tx="half", manifest=counts))
    copy(log, archive)
    if naive:
        monkeypatch.setattr(ArchiveLog, "horizon", ArchiveLog.ends)
    with mg.Replica(tmp_path / "r", archive.log(), "g", ["t"]) as replica, caught(naive):
        wait_for("it is read", lambda: bool(replica.stopped) or reached(replica, log.ends(PLACES)))
        looked = replica._applier._closed_at
        wait_for("it was looked at", lambda: bool(replica.stopped) or replica._applier._closed_at > looked + 0.6)
        assert not replica.stopped
        put(log, second, 2, 78, Marks(tx="half", manifest=counts))
        copy(log, archive)
        wait_for("it is whole", lambda: bool(replica.query("select 1 from t where n = 78").rows()))


# -- cut at a position ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth() -> tuple[FakeLog, dict[TopicPartition, list[tuple[Any, ...]]]]:
    log = history(80)
    return log, records(log)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(1, 50), st.integers(0, 40))
def test_a_cut_log_ends_at_the_cut_and_brings_all_below(
    truth: Any, zero: int, one: int, portion: int, start: int
) -> None:
    log, all_of_it = truth
    until = Position(dict(zip(PLACES, (zero, one), strict=True)))
    cut = BoundedLog(log, until)
    ends = cut.ends(PLACES)
    assert all(ends[tp] == min(until[tp], log.ends(PLACES)[tp]) for tp in PLACES)
    reader = cut.reader("g")
    reader.assign(Position(dict.fromkeys(PLACES, start)))
    seen: dict[TopicPartition, list[int]] = {tp: [] for tp in PLACES}
    told: dict[TopicPartition, int] = {}
    for _ in range(400):
        poll = reader.poll(portion, 0)
        for topic, chunk in poll.chunks.items():
            for partition, offset in zip(chunk.partitions, chunk.offsets, strict=True):
                assert TopicPartition(topic, partition) not in told
                seen[TopicPartition(topic, partition)].append(offset)
        told.update(poll.ends)
        if len(told) == PARTITIONS:
            break
    for tp in PLACES:
        assert seen[tp] == [record[1] for record in all_of_it[tp] if start <= record[1] < ends[tp]]
        assert told[tp] == max(ends[tp], start)
    assert all(n <= ends[tp] for tp, n in reader.known_ends().items())


def test_a_partition_that_the_cut_does_not_name_ends_at_0() -> None:
    log = history(20)
    cut = BoundedLog(log, Position({PLACES[0]: 4}))
    assert cut.ends(PLACES) == {PLACES[0]: 4, PLACES[1]: 0}


@both_ways
def test_a_restore_to_a_position_inside_a_transaction_holds_it_back_and_can_be_followed_on(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shop(40)
    inside = log.ends(PLACES)
    counts = dict.fromkeys(PLACES, 1)
    put(log, PLACES[0], 1, 77, Marks(tx="cut", manifest=counts))
    put(log, PLACES[1], 2, 78, Marks(tx="cut", manifest=counts))
    until = Position({PLACES[0]: inside[PLACES[0]] + 1, PLACES[1]: inside[PLACES[1]]})
    if naive:
        monkeypatch.setattr(BoundedLog, "horizon", BoundedLog.ends)
    with mg.Replica(tmp_path / "r", BoundedLog(log, until), "g", ["t"]) as replica, caught(naive):
        wait_for("it is read", lambda: bool(replica.stopped) or reached(replica, until))
        looked = replica._applier._closed_at
        wait_for("it was looked at", lambda: bool(replica.stopped) or replica._applier._closed_at > looked + 0.6)
        assert not replica.stopped and not replica.query("select 1 from t where n in (77, 78)").rows()
    if not naive:
        with mg.Replica(tmp_path / "r", log, "g", ["t"]) as replica:
            wait_for("it is whole", lambda: len(replica.query("select 1 from t where n in (77, 78)").rows()) == 2)


# -- by time -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(-1, 32))
@settings(max_examples=12, deadline=None)
def test_a_time_is_the_first_record_of_then_or_later_by_the_logs_own_timestamps(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], wanted: int
) -> None:
    log = FakeLog(1)
    log.add(Table("t", "id", 1, (SchemaVersion("t-value", 1, 1, SCHEMA),)))
    for ms in times:  # in no order: producers' clocks differ
        record = log.put("t", 0, None, b"x")
        log.partitions[PLACES[0]][-1] = type(record)(record.at, None, b"x", ms)
    archive = Archive(tmp_path_factory.mktemp("archive"))
    ends = log.ends(PLACES[:1])
    from merganser.pipeline.archive.archiver import Archiver

    with Archiver(log, archive, ["t"], limits=SegmentLimits(records=5), until=ends) as archiver:
        archiver.wait(ends, 120)
    expected = next((n for n, ms in enumerate(times) if ms >= wanted), len(times))
    assert archive.log().at_time(PLACES[:1], wanted) == {PLACES[0]: expected}


# -- memory and order ----------------------------------------------------------------------------


def test_few_segments_are_open_at_a_time_and_all_records_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, archive = archived(tmp_path, rows=200)
    monkeypatch.setattr(log_module, "_OPEN_BYTES", 1)
    opened: list[int] = []
    real = ArchiveReader._read

    def watched(self: ArchiveReader, *args: Any) -> int:
        found = real(self, *args)
        opened.append(sum(cursor.rows is not None for cursor in self._cursors.values()))
        return found

    monkeypatch.setattr(ArchiveReader, "_read", watched)
    assert records(ArchiveLog(archive)) == records(log)
    assert max(opened) == 1


def test_a_paused_partition_does_not_keep_the_others_from_their_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, archive = archived(tmp_path, rows=100)
    monkeypatch.setattr(log_module, "_OPEN_BYTES", 1)
    reader = ArchiveLog(archive).reader("g")
    reader.assign(Position(dict.fromkeys(PLACES, 0)))
    first = next(iter(reader.poll(1, 1.0).chunks["t"].partitions))
    reader.pause([PLACES[first]])
    ends: list[Any] = []
    wait_for("the other one's end", lambda: bool(ends.extend(reader.poll(10, 0.1).ends) or ends), every_s=0)
    assert [end.partition for end in ends] == [PLACES[1 - first]]


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.WrongArchive, match="there is no archive"):
        open_archive(str(tmp_path))
    _, archive = archived(tmp_path)
    with pytest.raises(errors.UnknownTable) as caught:
        archive.log().table("ducks")
    assert caught.value.hint == "the archive has: t"
    other = history(1)
    other.cluster_id = "another"
    with pytest.raises(errors.WrongArchive, match="cluster fake-cluster, this is cluster another"):
        archive.under(other)


# -- Kafka above ---------------------------------------------------------------------------------


def test_what_the_log_lost_comes_from_the_archive_and_nothing_twice(tmp_path: Path) -> None:
    log, archive = archived(tmp_path, rows=100)
    whole = records(log)
    for tp, trimmed in zip(PLACES, (17, 30), strict=True):
        log.trim(*tp, trimmed)
    assert archive.under(log).starts(PLACES) == dict.fromkeys(PLACES, 0)
    assert records(archive.under(log)) == whole


def test_the_archive_is_not_asked_while_the_log_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, archive = archived(tmp_path)
    bridged = archive.under(log)
    monkeypatch.setattr(Archive, "chain", lambda *_: pytest.fail("the archive was asked"))
    assert records(bridged) == records(log)


def test_an_archive_that_does_not_reach_the_log_is_of_no_use(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    extend(log, 50, random.Random(2))
    end = archive.log().ends(PLACES)[PLACES[0]]
    log.trim("t", 0, end + 1)
    assert archive.under(log).starts(PLACES)[PLACES[0]] == end + 1
    log.trim("t", 0, end)
    assert archive.under(log).starts(PLACES)[PLACES[0]] == 0


def test_an_archive_of_another_topic_of_that_name_is_not_taken(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    log.recreate("t")
    extend(log, 90, random.Random(2))
    log.trim("t", 0, 5)
    assert archive.under(log).starts(PLACES)[PLACES[0]] == 5


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_retention_may_go_on_at_any_time(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Trimmed at random while it is read, up to what is archived: every record once, in order."""
    rng = random.Random(seed)
    log, archive = history(120, seed=seed), Archive(tmp_path_factory.mktemp("archive"))
    copy(log, archive)
    extend(log, 20, rng)
    whole = records(log)
    bridged = archive.under(log)
    reader, ends = bridged.reader("g"), log.ends(PLACES)
    reader.assign(Position(dict.fromkeys(PLACES, 0)))
    seen: dict[TopicPartition, list[int]] = {tp: [] for tp in PLACES}
    told: dict[TopicPartition, int] = {}
    for _ in range(1000):
        tp = rng.choice(PLACES)
        if rng.random() < 0.3:
            limit = archive.log().ends([tp])[tp]
            log.trim(*tp, rng.randint(log.start[tp], max(limit, log.start[tp])))
        poll = reader.poll(rng.randint(1, 12), 0)
        assert not poll.problems
        for topic, chunk in poll.chunks.items():
            for partition, offset in zip(chunk.partitions, chunk.offsets, strict=True):
                seen[TopicPartition(topic, partition)].append(offset)
        told.update(poll.ends)
        if all(told.get(tp) == ends[tp] for tp in PLACES):
            break
    assert seen == {tp: [record[1] for record in found] for tp, found in whole.items()}


@both_ways
def test_what_neither_of_both_has_any_more_is_told_and_waited_for_no_longer(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody archives, and the log loses what it has alone, while a replica reads the archive."""
    monkeypatch.setattr(bridged_module, "STRANDED_S", float("inf") if naive else 0.0)
    log, archive = archived(tmp_path)
    log.trim("t", 0, 5)
    reader = archive.under(log).reader("g")
    reader.assign(Position(dict.fromkeys(PLACES, 0)))
    extend(log, 50, random.Random(2))
    end = archive.log().ends(PLACES)[PLACES[0]]
    log.trim("t", 0, end + 3)
    problems = [problem for _ in range(50) for problem in reader.poll(100, 0).problems]
    with caught(naive):
        assert [problem.partition for problem in problems] == [PLACES[0]]
        assert f"the archive ends at {end}, Kafka begins at {end + 3}" in problems[0].why


def test_a_replica_behind_retention_is_filled_from_the_archive(tmp_path: Path) -> None:
    log, archive = shop(60), Archive(tmp_path / "archive")
    rows(tmp_path, log, "behind")
    log.partitions = shop(200).partitions  # the same, and more
    copy(log, archive)
    undisturbed = rows(tmp_path, log, "undisturbed")
    for tp in PLACES:
        log.trim(*tp, log.ends(PLACES)[tp] - 10)
    with pytest.raises(errors.RetentionLost):
        rows(tmp_path, log, "behind")
    with pytest.raises(errors.PartialStart):
        rows(tmp_path, log, "new")
    for name in ("behind", "new"):
        assert rows(tmp_path, archive.under(log), name) == undisturbed


def test_the_last_record_applied_is_compared_with_the_archives(tmp_path: Path) -> None:
    """A store of another history than the archive's is not continued, whatever the offsets say."""
    log, archive = shop(60), Archive(tmp_path / "archive")
    rows(tmp_path, shop(60, seed=2), "other")
    log.partitions = shop(200).partitions
    copy(log, archive)
    for tp in PLACES:
        log.trim(*tp, log.ends(PLACES)[tp] - 10)
    with mg.Replica(tmp_path / "other", archive.under(log), "other", ["t"]) as replica:
        wait_for("it has stopped", lambda: bool(replica.stopped))
        assert isinstance(replica.stopped["t"], errors.LogTruncated)
