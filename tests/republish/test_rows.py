"""The rows of a store as the records that they came of, on scripted logs: every one, in order, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.republish.plan import TableWay, plan_republish
from merganser.pipeline.republish.rows import Rows
from merganser.pipeline.restore.plan import RestorePlan
from merganser.pipeline.restore.sources import Wish
from merganser.producers.bulk import WholeRecord
from merganser.schemas.errors import NotRepublishable
from merganser.schemas.headers import Marks, decode, origin
from merganser.schemas.kafka import TopicFacts, TopicId
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion
from restore.conftest import halfway
from restore.town import CLUSTER, Town
from stories.txworld import _ROW, TxWorld
from support.fakelog import FakeLog
from support.frames import framed


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = Town(TxWorld(9, transactions=70), tmp_path_factory.mktemp("rows"))
    town.archive_up_to(town.ends)
    return town


def republished(town: Town, at: Position, folder: Path) -> FakeLog:
    """A log of the rows that there are at *at*."""
    path, new = folder / "rows.duckdb", FakeLog(1)
    town.restore(path, Wish(str(at)))
    for table in town.world.log.tables.values():
        new.add(table)
    with StoreFile(path) as store, store.reading() as cursor:
        rows = Rows(town.archive.log(), cursor)
        for tp in sorted(at):
            found = list(rows.records(tp, 0))
            assert len(found) == rows.count(tp)
            assert [record.headers[0] for record in found] == list(rows.origins(tp))
            for skip in {0, 1, len(found) // 2, len(found)}:
                assert list(rows.records(tp, min(skip, len(found)))) == found[skip:]
            for record in found:
                _as_it_was(town.world.log, tp, record)
                new.put(*tp, record.key, record.value, decode(record.headers))
    return new


def _as_it_was(old: FakeLog, tp: TopicPartition, record: WholeRecord) -> None:
    place = origin(record.headers)
    assert place is not None and place[:3] == (CLUSTER, f"id-{tp.topic}", tp)
    before = old.partitions[tp][place.offset]
    assert before is not None
    assert (record.key, record.value, record.time_ms) == (before.key_bytes, before.value_bytes, before.time_ms)
    marks, was = decode(record.headers), decode(before.marks)
    assert marks is None or (marks.tx, marks.condition, marks.manifest) == (None, None, None)
    assert marks is None or (was is not None and set(marks.ops) <= set(was.ops))


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_replica_of_the_new_log_has_the_users_columns_of_the_old_one(part: int, town: Town, tmp_path: Path) -> None:
    """Whatever was held back, rejected, repeated or in quarantine there."""
    at = halfway(town.ends, part, 3)
    new = republished(town, at, tmp_path)
    path = tmp_path / "new.duckdb"
    other = Town(town.world, tmp_path)
    other.world = type("World", (), {"log": new})()  # type: ignore[assignment]
    other.fold(path, other.ends)
    for table in town.tables:
        assert users(path, table) == users(town.folded(at), table), table
    with StoreFile(path) as store:
        assert not store.pending() and not store.quarantined()
        assert store.query("SELECT count(*) FROM _merganser.rejections").rows() == [(0,)]


def test_an_id_that_two_rows_of_a_transaction_bore_hides_neither(tmp_path: Path) -> None:
    """By itself, the second would be the repetition of an operation."""
    world = TxWorld(1, transactions=0)
    for n, manifest in enumerate(({TopicPartition("c", 0): 2}, None)):
        value = framed(300, _ROW, {"id": n, "n": n})
        world.log.put("c", 0, None, value, Marks("t", manifest, None, ("x",), guarded=manifest is not None))
    town = Town(world, tmp_path)
    town.archive_up_to(town.ends)
    new = republished(town, town.ends, tmp_path)
    world.log = new
    town.fold(tmp_path / "new.duckdb", town.ends)
    assert [row[1:] for row in users(tmp_path / "new.duckdb", "c")] == [(0, 0), (1, 1)]


def users(path: Path, table: str) -> list[tuple[object, ...]]:
    with StoreFile(path) as store:
        return store.query(
            f'SELECT _partition, * EXCLUDE (_partition, _offset, _timestamp) FROM "{table}" ORDER BY ALL'
        ).rows()


def test_what_is_left_out_is_counted(town: Town, tmp_path: Path) -> None:
    at = halfway(town.ends, 2, 3)
    with StoreFile(town.folded(at)) as store, store.reading() as cursor:
        rows = Rows(town.archive.log(), cursor)
        out = {table: rows.left_out(table) for table in town.tables}
        held = {table: sum(each.records for each in left.held) for table, left in out.items()}
        assert {table: n for table, n in held.items() if n} == store.pending() != {}
        assert {table: left.quarantined for table, left in out.items() if left.quarantined} == store.quarantined()
        rejected = store.query("SELECT topic, count(*) FROM _merganser.rejections GROUP BY 1 ORDER BY 1").rows()
        assert [(table, left.rejected) for table, left in out.items() if left.rejected] == rejected
        known = store.query(
            "SELECT count(DISTINCT (topic, partition, id)) FROM _merganser.operations WHERE kind = 'op'"
        )
        carried = sum(len(decode(r.headers).ops) for tp in at for r in rows.records(tp, 0) if decode(r.headers))  # type: ignore[union-attr]
        assert carried + sum(left.operations for left in out.values()) == known.rows()[0][0] and carried


@pytest.mark.parametrize("kept", ["none", "the first half", "the second half"])
def test_rows_that_only_a_backup_has_are_refused(kept: str, tmp_path: Path) -> None:
    town = Town(TxWorld(4, transactions=60), tmp_path)
    town.apply(town.ends)
    town.archive_up_to(halfway(town.ends, 1, 2))
    town.archive_up_to(town.ends)
    with StoreFile(town.store) as store, store.reading() as cursor:
        below = town.archive.log()
        rows, tp = Rows(below, cursor), TopicPartition("c", 0)
        chain = below.chain(tp)
        assert chain is not None and rows.count(tp) and len(chain.links) > 1
        half = len(chain.links) // 2
        chain._links = {"none": [], "the first half": chain._links[:half], "the second half": chain._links[half:]}[kept]
        with pytest.raises(NotRepublishable, match="only a backup has"):
            rows.count(tp)


# -- the plan --------------------------------------------------------------------------------------

WAY = TableWay(
    TopicFacts("t", "old", 2, {"cleanup.policy": "compact", "retention.ms": "5", "min.insync.replicas": "2"}),
    (SchemaVersion("t-value", 1, 1, "int"),),
    (),
)
EMPTY = RestorePlan("latest", ("t",), None, ())


def test_a_topic_is_new_begun_or_there() -> None:
    def state(found: dict[str, TopicId], declared: bool = False) -> str:
        versions = {"t": WAY.values if declared else ()}
        return plan_republish(EMPTY, "old", "new", [WAY], found, versions).tables[0].state

    there = {"t": TopicId("x", 2)}
    assert [state({}), state(there), state(there, True), state({}, True)] == ["new", "begun", "there", "new"]
    with pytest.raises(NotRepublishable, match="3 partitions, not 2"):
        state({"t": TopicId("x", 3)})
    with pytest.raises(NotRepublishable, match="which the archive is of"):
        plan_republish(EMPTY, "same", "same", [WAY], {}, {})


def test_a_new_topic_keeps_every_row_and_takes_no_number_of_brokers_over() -> None:
    assert WAY.settings == {"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1"}
