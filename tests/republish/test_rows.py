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
from merganser.schemas.encode import prefix
from merganser.schemas.errors import NotRepublishable
from merganser.schemas.headers import Marks, decode, origin
from merganser.schemas.kafka import TopicFacts, TopicId
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion
from restore.conftest import halfway
from restore.town import CLUSTER, Town
from stories.txworld import _ROW, TxWorld
from stories.world import _KEY, KEY_ID, World, version
from support.fakelog import FakeLog
from support.frames import framed
from support.naive import both_ways, caught


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
    new.registered = town.world.log.registered
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
    assert place is not None and place[:3] == (CLUSTER, old.tables[tp.topic].topic_id, tp)
    before = old.partitions[tp][place.offset]
    assert before is not None
    assert (record.key, record.value, record.time_ms) == (before.key_bytes, before.value_bytes, before.time_ms)
    marks, was = decode(record.headers), decode(before.marks)
    assert marks is None or (marks.tx, marks.condition, marks.manifest) == (None, None, None)
    assert marks is None or set(marks.ops) <= set(was.ops if was else ())


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


@pytest.mark.parametrize("compacted", [False, True])
@both_ways
def test_columns_keep_the_names_and_types_of_a_schema_that_no_row_is_left_of(
    naive: bool, compacted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only records were deleted, or are no rows. Replicas have its columns all the same."""
    world = World(1)
    log = world.log
    log.settings["cleanup.policy"] = "compact" if compacted else "delete"
    for _ in range(2):
        world._schema("keyed", 0)
        world._schema("plain", 0)
    first, third = {table: version(table, 1) for table in world.versions}, version("keyed", 3)
    for n in range(8):
        for table, schema in first.items():
            key = framed(KEY_ID, _KEY, {"id": n}) if table == "keyed" else None
            log.put(table, n % 2, key, framed(schema.id, dict(schema.schema), {"id": n, "n": n}))  # type: ignore[arg-type]
    key = framed(KEY_ID, _KEY, {"id": 100})
    log.put("keyed", 1, key, framed(third.id, dict(third.schema), {"id": 100, "amount": 2**40, "tag": None}))  # type: ignore[arg-type]
    log.put("keyed", 1, key, None)
    log.put("plain", 0, None, prefix(version("plain", 3).id))
    town = Town(world, tmp_path)
    town.archive_up_to(town.ends)
    if naive:
        monkeypatch.setattr(Rows, "_saying", lambda self, record: record)
    with caught(naive):
        new = republished(town, town.ends, tmp_path)
        said = [record for run in new.partitions.values() for record in run if record and record.marks]
        assert naive or len(said) == (16 if compacted else 4)
        if compacted:  # once other rows of all keys but the last came
            for run in new.partitions.values():
                run[:-1] = [None] * (len(run) - 1)
        for round_, source in enumerate([log, new]):
            other = Town(world, tmp_path)
            other.world = type("World", (), {"log": source})()  # type: ignore[assignment]
            other.fold(tmp_path / f"{round_}.duckdb", other.ends)
        for table in ("keyed", "plain"):
            columns = []
            for round_ in (0, 1):
                with StoreFile(tmp_path / f"{round_}.duckdb") as store:
                    columns.append(store.query(f"SELECT column_name, column_type FROM (DESCRIBE {table})").rows())
            assert columns[0] == columns[1] and columns[0][1] == ("amount", "BIGINT")
            if not compacted:
                assert users(tmp_path / "0.duckdb", table) == users(tmp_path / "1.duckdb", table)


def test_a_schema_is_met_where_it_is_read_also_in_what_is_held_back(tmp_path: Path) -> None:
    """Columns follow from the position, whether a replica came there at once or not."""
    world, two = World(1), {TopicPartition("plain", 0): 1, TopicPartition("plain", 1): 1}
    world._schema("plain", 0)
    row = framed(201, dict(version("plain", 1).schema), {"id": 1, "n": 1})  # type: ignore[arg-type]
    world.log.put("plain", 0, None, row, Marks("t", two, schema=202))
    world.log.put("plain", 1, None, row, Marks("t", two))
    town, steps, once = Town(world, tmp_path), tmp_path / "steps.duckdb", tmp_path / "once.duckdb"
    town.fold(steps, Position({**town.ends, TopicPartition("plain", 1): 0}))
    with StoreFile(steps) as store:
        assert store.pending() == {"plain": 1} and store.query("SELECT tag FROM plain").rows() == []
    for path in (steps, once):
        town.fold(path, town.ends)
        with StoreFile(path) as store:
            assert store.query("SELECT id, n, tag FROM plain").rows() == [(1, 1, None)] * 2


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


def test_a_new_topic_takes_the_largest_record_of_the_old_one_with_its_origin_and_a_batch() -> None:
    for old, new in (("1048588", 1048588 + 1024), (str(2**31 - 1), 2**31 - 1), ("20000", 1048588)):
        facts = TopicFacts("t", "old", 2, {"max.message.bytes": old})
        assert TableWay(facts, (), ()).settings["max.message.bytes"] == str(new)
