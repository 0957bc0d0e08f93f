"""Lost everything: from the archive alone come a new log, and replicas that are equal in the users' columns."""

from __future__ import annotations

import datetime as dt
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer as Raw

import merganser as mg
from kafka.kafka_tables import raw_records
from merganser.__main__ import main
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.broker import LocalBroker
from merganser.pipeline.republish.republish import Republisher, Table
from merganser.pipeline.restore.sources import Wish
from merganser.schemas import errors
from merganser.schemas.headers import decode, origin
from republish.child import run
from republish.lost import FILES, ROW, Lost, busy_rows, digests, load, lose

pytestmark = pytest.mark.timeout(1200)  # three brokers are started

#: Where a run over all tables is killed, one after the other, each going on from the one before.
SHORT = (("sent", 2), ("committed", 3), ("carried", 1))
ALL = (
    *(("planned", 1), ("resolved", 1), ("reserved", 1), ("made", 1), ("fenced", 1), ("begun", 1), ("sent", 2)),
    *(("committed", 2), ("begun", 2), ("written", 1), ("proved", 1), ("carried", 1), ("shown", 1)),
)


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    return lose(tmp_path_factory.mktemp("lost"), 150)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[str]:
    """A new cluster, empty."""
    broker = LocalBroker(tmp_path / "new-home")
    try:
        yield broker.start(wait_s=120).bootstrap_servers
    finally:
        broker.stop()


def republished(lost: Lost, log: mg.Log, scratch: Path, wish: Wish | None = None) -> dict[str, Table]:
    republisher = Republisher(mg.Archive(lost.archive), log, scratch)
    return {table.name: table for table in republisher.run(republisher.plan(wish or Wish()))}


@pytest.mark.parametrize("kills", [SHORT, pytest.param(ALL, marks=pytest.mark.slow)], ids=["short", "all"])
def test_a_new_log_and_replicas_come_of_the_archive_alone_however_often_it_is_killed(
    kills: tuple[tuple[str, int], ...], lost: Lost, first: str, tmp_path: Path
) -> None:
    with mg.connect(first) as log:
        assert log.cluster_id != lost.cluster_id
        for step, nth in kills:
            assert run(lost.archive, first, tmp_path / "scratch", lost.tables, step, nth) == -signal.SIGKILL, step
            assert [table.name for table in log.tables()] == (sorted(lost.tables) if step == "shown" else []), step
        _is_as_it_was(lost, log, tmp_path)


def _is_as_it_was(lost: Lost, log: mg.Log, tmp_path: Path) -> None:
    done = republished(lost, log, tmp_path / "scratch")
    assert not any(table.written for table in done.values()), "all was written before"
    assert {name: table.columns_digest for name, table in done.items()} == lost.digests
    _as_it_was_declared(lost, log)
    _each_row_once(lost, log.bootstrap_servers, done)
    for store in (tmp_path / "one.duckdb", tmp_path / "two.duckdb"):
        assert digests(log, store, lost.tables) == lost.digests
        assert busy_rows(lost.plan, store) == lost.folded
    assert done["people"].left_out.quarantined == 1 and not done["people"].left_out.held
    _goes_on(lost, log, tmp_path)


def _as_it_was_declared(lost: Lost, log: mg.Log) -> None:
    for name, old in lost.declared.items():
        new = log.table(name)
        assert new.topic_id != old.topic_id
        assert replace(new, topic_id=old.topic_id) == old


def _each_row_once(lost: Lost, servers: str, done: dict[str, Table]) -> None:
    """By another reader: whole in the new topics, in the old order, with nothing that has to be decided again."""
    for name, table in done.items():
        records = raw_records(servers, name, lost.declared[name].partitions)
        assert len(records) == table.rows
        last: dict[int, int] = {}
        for record in sorted(records, key=lambda r: (r.partition(), r.offset())):  # type: ignore[no-any-return]
            found, marks = origin(record.headers() or ()), decode(record.headers() or ())
            assert found is not None and found.cluster_id == lost.cluster_id
            assert found.topic_id == lost.declared[name].topic_id.replace("/", "_").replace("+", "-")
            assert found.partition == (name, record.partition())
            assert found.offset > last.get(found.partition.partition, -1)
            last[found.partition.partition] = found.offset
            assert marks is None or (marks.tx, marks.condition) == (None, None)
        if name == "people":  # of what was deleted there is no trace
            names = {(record.key() or b"")[6:].decode() for record in records}
            assert "p1" in names and not names & {f"p{n}" for n in range(0, 80, 7)}


def _goes_on(lost: Lost, log: mg.Log, tmp_path: Path) -> None:
    """Services write on: a key is the row that it was, a check holds, an operation that is repeated is known."""
    with log.producer() as producer:
        producer.put("plain", {"id": "k3", "n": -1})
        with pytest.raises(errors.UsageError):
            producer.put("people", {"name": "nobody", "born": dt.date(2001, 1, 1), "shoes": 1})
        again = producer.put("lines", {"text": "line 3"}, op="line-3")
        producer.put("lines", {"text": "new"}, op="line-new")
        producer.flush()
    with mg.Replica(tmp_path / "on.duckdb", log, "on", ["plain", "lines"]) as replica:
        rows = replica.query("SELECT n FROM plain WHERE id = 'k3'", level="strong", timeout=30).rows()
        assert rows == [(-1,)]
        lines = [text for (text,) in replica.query("SELECT text FROM lines", level="strong", timeout=30).rows()]
        assert sorted(lines) == sorted([*(f"line {n}" for n in range(30)), "new"])
    assert again.offset is not None
    _files_are_known(lost, log, tmp_path)


def _files_are_known(lost: Lost, log: mg.Log, tmp_path: Path) -> None:
    """What was imported is not imported twice; what was begun goes on where it was."""
    done = {name: load(log, lost.archive.parent / name) for name in FILES}
    assert [(each.state, each.written) for each in done.values()] == [("already", 0), ("continued", 130)]
    with mg.Replica(tmp_path / "files.duckdb", log, "files", ["files"]) as replica:
        rows = [n for (n,) in replica.query("SELECT n FROM files ORDER BY n", level="strong", timeout=30).rows()]
    assert rows == sorted(rows * 1000 + n for rows in FILES.values() for n in range(rows))


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another new cluster, for what goes wrong. Each test has tables of its own."""
    broker = LocalBroker(tmp_path_factory.mktemp("second-home"))
    try:
        yield broker.start(wait_s=120).bootstrap_servers
    finally:
        broker.stop()


def test_the_command_does_nothing_unless_it_is_told_to(
    lost: Lost, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "files"
    line = ["archive", "republish", "--archive", str(lost.archive), "--bootstrap-servers", second, "--tables", name]
    line += ["--scratch", str(tmp_path / "scratch")]

    def run_it(*more: str) -> str:
        assert main([*line, *more]) == 0
        return capsys.readouterr().out

    with mg.connect(second) as log:
        assert f"{name}: partitions 3, schema versions 1; it is made, topic and schemas" in run_it()
        before = json.loads(run_it("--json"))
        assert not before["executed"] and before["tables"][0]["state"] == "new" and not before["republished"]
        assert (
            log.identify([name]) == {} and log.versions(f"{name}-value") == [] and not (tmp_path / "scratch").exists()
        )
        [done] = json.loads(run_it("--json", "--execute"))["republished"]
        assert (done["written"], done["columns_digest"]) == (done["rows"], lost.digests[name])
        assert [table.name for table in log.tables()] == [name] and not list((tmp_path / "scratch").iterdir())
        assert name in run_it("--execute")
        assert json.loads(run_it("--json"))["tables"][0]["state"] == "there"


# -- what is refused -------------------------------------------------------------------------------


def test_nothing_is_written_beside_what_others_wrote(lost: Lost, second: str, tmp_path: Path) -> None:
    """Another topic; records of others, before and meanwhile; rows of another time. No table shows."""
    raw = Raw({"bootstrap.servers": second})

    def others(topic: str) -> None:
        raw.produce(topic, b"theirs", b"k", 0)
        assert raw.flush(20) == 0

    left = lost.plan.tables[0]
    with mg.connect(second) as log:
        log.make_topic(left, 3, {})
        with pytest.raises(errors.NotRepublishable, match="3 partitions, not 8"):
            republished(lost, log, tmp_path, Wish(tables=(left,)))
        log.make_topic("lines", 2, {})
        others("lines")
        with pytest.raises(errors.NotRepublishable, match="offset 0 that somebody else has written"):
            republished(lost, log, tmp_path, Wish(tables=("lines",)))
        assert run(lost.archive, second, tmp_path, ["people"], "committed", 2) == -signal.SIGKILL
        others("people")
        with pytest.raises(errors.NotRepublishable, match="somebody else has written"):
            republished(lost, log, tmp_path, Wish(tables=("people",)))
        earlier = Wish(to="last/0:5,last/1:5", tables=("last",))
        republished(lost, log, tmp_path, earlier)
        with pytest.raises(errors.NotRepublishable, match=r"comes from .*, not from|after all rows"):
            republished(lost, log, tmp_path, Wish(tables=("last",)))
        assert not {"lines", "people", left} & {table.name for table in log.tables()}


def test_of_two_runs_the_newer_goes_on(lost: Lost, second: str, tmp_path: Path) -> None:
    """The older one is fenced wherever it stands, and what it had not committed is not there."""
    tables = ("plain",)
    with mg.connect(second) as log, mg.connect(second) as newer:
        done: dict[str, Table] = {}

        def overtaken(step: str) -> None:
            if step == "sent" and not done:
                done.update(republished(lost, newer, tmp_path / "second", Wish(tables=tables)))

        first = Republisher(mg.Archive(lost.archive), log, tmp_path / "first", step=overtaken)
        with pytest.raises(errors.RepublishStopped):
            first.run(first.plan(Wish(tables=tables)))
        for name in tables:
            assert len(raw_records(second, name, lost.declared[name].partitions)) == done[name].rows > 0


def test_the_archives_own_cluster_is_refused(broker: str, tmp_path: Path) -> None:
    name = "t-own-cluster"
    with mg.connect(broker) as log:
        log.create_table(name, ROW, ["id"], partitions=1)
        ends = log.ends([mg.TopicPartition(name, 0)])
        with Archiver(log, mg.Archive(tmp_path / "a"), [name], until=ends) as archiver:
            archiver.wait(ends)
        with pytest.raises(errors.NotRepublishable, match="which the archive is of"):
            Republisher(mg.Archive(tmp_path / "a"), log, tmp_path).plan(Wish(tables=(name,)))
