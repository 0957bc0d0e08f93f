"""A record in quarantine is written again once, if it is a row by now and nothing newer is undone by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from merganser.consumers.atomic import Place
from merganser.consumers.quarantined import how_many, quarantined
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.quarantine import plan, retry
from merganser.pipeline.quarantine.retry import STEPS
from merganser.schemas.errors import RolledBack, TopicRecreated, TransformFailed, UnknownTable
from merganser.schemas.headers import Condition, Marks, Origin, origin
from merganser.schemas.partitioner import partition_of
from merganser.schemas.position import Position, TopicPartition
from quarantine.scripted import Bench
from stories.world import Crash
from support.naive import both_ways, caught

K0 = TopicPartition("keyed", 0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Keyed 0: id 1 good, id 2 of a schema that nobody knows, id 4 that breaks a check. Plain 0: the same two."""
    bench = Bench(tmp_path / "store.duckdb")
    log = bench.log
    log.row("keyed", 0, 1, 10)
    log.row("keyed", 0, 2, 20, tag="new")
    log.row("keyed", 0, 4, -40)
    log.row("plain", 0, 2, 20, tag="new")
    log.row("plain", 0, 4, -40)
    log.put("plain", 1, None, b"rubbish")
    bench.fold()
    assert len(bench.quarantine()) == 5
    return bench


def states(tried: Any) -> list[str]:
    return [verdict.state for verdict in tried.verdicts]


def test_a_preview_writes_nothing(bench: Bench) -> None:
    bench.log.widen("keyed")
    before = bench.log.ends(list(bench.log.partitions))
    tried = bench.retry(execute=False)
    assert states(tried) == ["ready", "bad"] and tried.written == 0
    assert bench.log.ends(list(bench.log.partitions)) == before


def test_what_became_a_row_is_written_with_its_origin_and_stays_in_quarantine(bench: Bench) -> None:
    quarantine = bench.quarantine()
    assert states(bench.retry()) == ["bad", "bad"]
    bench.log.widen("keyed")
    tried = bench.retry()
    assert (states(tried), tried.written, tried.token) == (["ready", "bad"], 1, Position({K0: 4}))
    record = bench.log.records("keyed", 0)[-1]
    assert record is not None and record.value() == bench.log.records("keyed", 0)[1].value()  # type: ignore[union-attr]
    assert origin(record.headers() or []) == Origin("fake-cluster", "i-d_k", K0, 1)
    bench.fold()
    assert bench.rows("SELECT id, n, tag, _offset FROM keyed ORDER BY id") == [(1, 10, None, 0), (2, 20, "new", 3)]
    assert bench.quarantine() == quarantine


def test_every_replica_comes_to_the_same(bench: Bench, tmp_path: Path) -> None:
    """Also one that is built after the schema was registered, since the table has a key."""
    bench.log.widen("keyed")
    bench.retry()
    bench.fold()
    other = bench.fold(tmp_path / "other.duckdb")
    mine = bench.rows("SELECT id, n, tag FROM keyed ORDER BY id")
    with StoreFile(other) as store:
        assert store.query("SELECT id, n, tag FROM keyed ORDER BY id").rows() == mine
        assert store.query('SELECT "offset" FROM _merganser.rejections').rows() == [(3,)]


@both_ways
def test_a_record_is_written_once(naive: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.log.widen("plain")
    assert bench.retry("plain").written == 1
    if naive:
        monkeypatch.setattr("merganser.pipeline.quarantine.scan._Scan._origin", lambda self, headers: None)
    with caught(naive):
        again = bench.retry("plain")  # the store has not seen the retry yet
        assert (again.written, states(again)) == (0, ["retried", "bad", "bad"])
        bench.fold()
        assert bench.retry("plain").written == 0
        assert bench.rows("SELECT count(*) FROM plain") == [(1,)]


@pytest.mark.parametrize("step", STEPS)
def test_stopped_at_any_step_the_next_run_writes_what_is_left(step: str, bench: Bench) -> None:
    bench.log.widen("plain")
    before = len(bench.log.records("plain", 0))

    def stop(name: str) -> None:
        if name == step:
            raise Crash(name)

    with pytest.raises(Crash):
        bench.retry("plain", step=stop)
    bench.retry("plain")
    assert len(bench.log.records("plain", 0)) == before + 1


@pytest.mark.parametrize("newer", ["row", "delete", "poison"])
@both_ways
def test_a_later_record_of_the_key_is_never_undone(
    naive: bool, newer: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = bench.log
    log.widen("keyed")
    match newer:
        case "row":
            log.row("keyed", 0, 2, 99)
        case "delete":
            log.delete(0, 2)
        case "poison":
            log.put("keyed", 0, log.key("keyed", 2), b"rubbish")
    bench.fold()
    if naive:
        monkeypatch.setattr(plan, "_is_later", lambda last, mine: False)
    with caught(naive):
        assert states(bench.retry())[0] == "superseded"
        bench.fold()
        assert bench.rows("SELECT n FROM keyed WHERE id = 2") == ([(99,)] if newer == "row" else [])


@both_ways
def test_a_write_between_the_look_and_the_retry_wins(
    naive: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica rejects the retry, and says so."""
    bench.log.widen("keyed")
    bench.log.before_commit = lambda: bench.log.row("keyed", 0, 2, 99) and None
    if naive:
        monkeypatch.setattr(plan.Verdict, "condition", None)
    with caught(naive):
        assert bench.retry().written == 1
        bench.fold()
        assert bench.rows("SELECT n FROM keyed WHERE id = 2") == [(99,)]
        assert bench.rows('SELECT partition, "offset" FROM _merganser.rejections') == [(0, 4)]
        assert states(bench.retry())[0] == "retried"


def test_over_an_older_row_it_is_applied(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.duckdb")
    bench.log.row("keyed", 1, 2, 1)
    bench.log.row("keyed", 1, 2, 2, tag="new")
    bench.fold()
    bench.log.widen("keyed")
    assert bench.retry().verdicts[0].candidate.version == 0
    bench.fold()
    assert bench.rows("SELECT n, tag FROM keyed") == [(2, "new")]
    assert bench.rows("FROM _merganser.rejections") == []


def test_what_lies_beyond_retention_is_not_judged(bench: Bench) -> None:
    bench.log.widen("plain")
    bench.log.row("plain", 0, 5, 5)
    bench.log.row("plain", 0, 6, 6)
    bench.log.trim("plain", 0, 1)
    assert states(bench.retry("plain")) == ["lost", "bad", "bad"]


def test_a_key_that_is_held_back_waits(tmp_path: Path) -> None:
    """What its row is, is not decided yet. The other half of the transaction lies beyond what was read."""
    bench = Bench(tmp_path / "store.duckdb")
    log, k1 = bench.log, TopicPartition("keyed", 1)
    log.row("keyed", 0, 7, 1, marks=Marks("tx", {K0: 1, k1: 1}))
    log.put("keyed", 0, log.key("keyed", 4), b"rubbish")
    log.row("keyed", 1, 8, 1, marks=Marks("tx", {K0: 1, k1: 1}))
    bench.fold(cut={K0: 2})
    repaired: dict[Place, dict[str, Any]] = {Place(K0, 1): {"id": 7, "n": 3}}
    assert partition_of(log.key("keyed", 7) or b"", 2) == 0
    assert states(bench.retry(rows=repaired)) == ["waiting"]
    bench.fold()
    assert states(bench.retry(rows=repaired)) == ["ready"]


# -- repaired ------------------------------------------------------------------------------------


def test_a_row_is_repaired_by_hand(bench: Bench) -> None:
    """Only those that are named; the key stays, and so does the partition."""
    shown = bench.retry(execute=False).verdicts
    assert [v.candidate.row for v in shown] == [None, {"id": 4, "n": -40}]
    tried = bench.retry(rows={Place(K0, 2): {"id": 4, "n": 40}})
    assert (states(tried), tried.written) == (["ready"], 1)
    bench.fold()
    assert bench.rows("SELECT n, _partition FROM keyed WHERE id = 4") == [(40, 0)]
    assert states(bench.retry(rows={Place(K0, 2): {"id": 4, "n": 41}})) == ["retried"]


def test_a_repair_that_is_no_row_is_told(bench: Bench) -> None:
    tried = bench.retry(rows={Place(K0, 2): {"id": 4, "n": -1}, Place(K0, 1): {"id": "two"}})
    assert states(tried) == ["bad", "bad"] and "n >= 0" in tried.verdicts[1].why


def test_another_key_goes_where_that_key_belongs(bench: Bench) -> None:
    tried = bench.retry(rows={Place(K0, 2): {"id": 1_000, "n": 4}, Place(K0, 1): {"id": 1_000, "n": 5}})
    assert states(tried) == ["superseded", "ready"]
    home = partition_of(bench.log.key("keyed", 1_000) or b"", 2)
    assert tried.verdicts[1].candidate.partition == TopicPartition("keyed", home)
    bench.fold()
    assert bench.rows("SELECT n, _partition FROM keyed WHERE id = 1000") == [(4, home)]
    assert states(bench.retry(rows={Place(K0, 2): {"id": 1_000, "n": 4}})) == ["retried"]


def test_a_function_repairs(bench: Bench) -> None:
    asked: list[dict[str, Any]] = []

    def repair(record: dict[str, Any]) -> dict[str, Any] | None:
        asked.append(record)
        row: dict[str, Any] | None = record["row"]
        return None if row is None else {**row, "n": abs(row["n"])}

    tried = bench.retry("plain", repair=repair)
    assert (states(tried), tried.written) == (["left", "ready", "left"], 1)
    assert [(r["partition"], r["offset"], r["value"] is not None) for r in asked] == [
        (0, 0, True),
        (0, 1, True),
        (1, 0, True),
    ]
    assert all(r["reason"] and r["timestamp"].year == 2023 for r in asked)
    bench.fold()
    assert bench.rows("SELECT id, n FROM plain") == [(4, 40)]


@pytest.mark.parametrize("result", [7, [{"id": 4, "n": 4}]])
def test_a_function_that_fails_is_named_with_its_place(result: object, bench: Bench) -> None:
    with pytest.raises(TransformFailed, match="keyed/0 at offset 1"):
        bench.retry(repair=lambda record: result)
    with pytest.raises(TransformFailed, match="keyed/0 at offset 1"):
        bench.retry(repair=lambda record: {}["x"])


# -- in the way ----------------------------------------------------------------------------------


def test_another_topic_of_that_name_gets_nothing(bench: Bench) -> None:
    bench.log.widen("plain")

    def recreate(step: str) -> None:
        if step == "sent":
            bench.log.recreate("plain")

    bench.log.add(replace(bench.log.tables["plain"], name="other"))
    with pytest.raises(RolledBack, match="made anew"):
        bench.retry("plain", step=recreate)
    with pytest.raises(TopicRecreated):
        bench.retry("plain")
    with pytest.raises(UnknownTable):
        bench.retry("other")


def test_a_list_is_bounded_and_chooses(bench: Bench) -> None:
    with StoreFile(bench.path) as store, store.reading() as cursor:
        assert [each.offset for each in quarantined(cursor, "keyed", limit=1)] == [1]
        assert how_many(cursor, "keyed") == 2 and how_many(cursor) == 5
        [found] = quarantined(cursor, None, "RUBBISH") or [None] if how_many(cursor, None, "RUBBISH") else [None]
        assert found is None or found.value == b"rubbish"
        [broken] = list(quarantined(cursor, "keyed", "N >= 0"))
        assert (broken.partition, broken.offset, broken.timestamp_ms) == (K0, 2, 1_700_000_000_002)


def test_a_run_is_bounded_and_says_where_the_next_one_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, since = [], None
    while True:
        tried = bench.retry("plain", limit=1, since=since)
        seen += [tuple(v.candidate.place) for v in tried.verdicts]
        since = tried.rest
        assert tried.more == 3 - len(seen)
        if since is None:
            break
    assert seen == [(("plain", 0), 0), (("plain", 0), 1), (("plain", 1), 0)]
    monkeypatch.setattr(retry, "LOOKED_AT_BYTES", 0)
    assert len(bench.retry("plain").verdicts) == 1  # one at least, however large
    assert bench.retry("plain").rest == Place(TopicPartition("plain", 0), 1)


def test_a_chunk_is_one_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.log.row("plain", 1, 1, -1)
    bench.fold()
    steps: list[str] = []
    monkeypatch.setattr(retry, "CHUNK", 2)
    p0, p1 = TopicPartition("plain", 0), TopicPartition("plain", 1)
    rows = {place: {"id": 1, "n": 1} for place in (Place(p0, 1), Place(p1, 0), Place(p1, 1))}
    assert bench.retry("plain", rows=rows, step=steps.append).written == 3
    assert steps.count("committed") == 2


# -- what the record itself asked ------------------------------------------------------------


def test_a_part_of_a_rejected_transaction_is_not_written_alone(tmp_path: Path) -> None:
    """It was rejected whole, and is seen whole or not at all."""
    bench = Bench(tmp_path / "store.duckdb")
    for id_, tag in ((1, None), (2, "new")):
        bench.log.row("keyed", 0, id_, 5, tag=tag, marks=Marks("tx", {K0: 2}))
    bench.fold()
    bench.log.widen("keyed")
    assert states(bench.retry()) == ["part"]
    assert states(bench.retry(rows={Place(K0, 1): {"id": 2, "n": 5}})) == ["part"]


def test_its_own_condition_has_to_hold(tmp_path: Path) -> None:
    """Had its schema been known, it would have been rejected."""
    bench = Bench(tmp_path / "store.duckdb")
    bench.log.row("keyed", 0, 2, 1)
    bench.log.row("keyed", 0, 2, 2, tag="new", marks=Marks(condition=Condition("version", 7)))
    bench.fold()
    bench.log.widen("keyed")
    [verdict] = bench.retry().verdicts
    assert (verdict.state, verdict.why) == ("bad", "if_version=7: the row has version 0")


def test_headers_that_cannot_be_read_are_no_row_still(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.duckdb")
    record = bench.log.row("keyed", 0, 2, 1)
    bench.log.partitions[K0][0] = replace(record, marks=(("merganser-if", b"newer"),))
    bench.fold()
    assert states(bench.retry()) == ["bad"]


def test_on_a_compacted_topic_a_delete_that_is_gone_is_not_undone(tmp_path: Path) -> None:
    """The cleaner takes the record first, then the delete that came after it."""
    bench = Bench(tmp_path / "store.duckdb")
    bench.log.tables["keyed"] = replace(bench.log.tables["keyed"], compacted=True)
    bench.log.row("keyed", 0, 2, 5, tag="new")
    bench.log.delete(0, 2)
    bench.log.row("keyed", 0, 1, 1)
    bench.fold()
    bench.log.widen("keyed")
    bench.log.partitions[K0][:2] = [None, None]
    assert states(bench.retry()) == ["superseded"]


def test_a_producers_clock_does_not_hide_a_retry(tmp_path: Path) -> None:
    """It is in the partition of the repaired key, and older than what it repeats, by the times that producers give."""
    bench = Bench(tmp_path / "store.duckdb")
    bench.log.settings["message.timestamp.type"] = "CreateTime"
    bench.log.partitions[K0][0] = replace(bench.log.row("keyed", 0, 4, -1), time_ms=1_900_000_000_000)
    bench.fold()
    other = next(i for i in range(5, 50) if partition_of(bench.log.key("keyed", i) or b"", 2) == 1)
    assert states(bench.retry(repair=lambda record: {"id": other, "n": 7})) == ["ready"]
    assert states(bench.retry(repair=lambda record: {"id": other, "n": 7})) == ["retried"]


def test_a_repaired_key_waits_for_the_store_to_read_its_partition(tmp_path: Path) -> None:
    """Else the retry is for a row that is not there, is rejected, and is spent."""
    bench = Bench(tmp_path / "store.duckdb")
    other = next(i for i in range(5, 50) if partition_of(bench.log.key("keyed", i) or b"", 2) == 1)
    for n in range(3):
        bench.log.row("keyed", 0, 100 + n, 1)
    bench.log.row("keyed", 1, other, 1)
    bench.log.row("keyed", 0, 4, -1)
    bench.fold(cut={K0: 4})
    assert states(bench.retry(repair=lambda record: {"id": other, "n": 7})) == ["waiting"]
    bench.fold()
    assert states(bench.retry(repair=lambda record: {"id": other, "n": 7})) == ["ready"]
    bench.fold()
    assert bench.rows(f"SELECT n FROM keyed WHERE id = {other}") == [(7,)]
