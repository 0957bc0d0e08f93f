"""A replayed table is what a replica would hold: every row, and all that ``_merganser`` says of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from merganser.consumers.audit import audit_store
from merganser.consumers.dbfile import held_partitions, open_file
from merganser.consumers.follow import Follow
from merganser.consumers.replica import Replica
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.replay import together
from merganser.pipeline.replay.replay import STEPS
from merganser.pipeline.replay.sources import Source, source_of
from merganser.schemas.errors import (
    DerivedTable,
    KeyChanged,
    LogTruncated,
    NotHeld,
    RetentionLost,
    StoreLocked,
    TopicRecreated,
    TransformFailed,
    UsageError,
)
from merganser.schemas.position import Position, TopicPartition
from replay.scenes import Scene, held
from restore.conftest import halfway
from restore.town import CLUSTER, SMALL, Town
from stories.txworld import TxWorld
from stories.world import STORE_LIMITS, Crash, World
from support.naive import both_ways, caught


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Transactions that interleave over three tables, with conditions and operation ids."""
    yield Town(TxWorld(5, transactions=40), tmp_path_factory.mktemp("town"))


@pytest.fixture
def scene(town: Town, tmp_path: Path) -> Scene:
    return Scene.of(town, tmp_path, halfway(town.ends, 3, 4))


def audited(path: Path) -> dict[str, tuple[str, ...]]:
    with StoreFile(path) as store, store.reading() as cursor:
        return {account.table: account.wrong for account in audit_store(cursor)}


def left(scene: Scene) -> set[str]:
    return {path.name for path in scene.path.parent.iterdir()}


# -- back to what the log says ---------------------------------------------------------------


@pytest.mark.parametrize("table", ["a", "b", "c"])
def test_a_damaged_table_is_what_it_was_again(table: str, scene: Scene) -> None:
    before, times = held(scene.path), scene.rows("SELECT topic, partition, caught_up_ms FROM _merganser.positions")
    scene.damage(table)
    assert audited(scene.path)[table]
    done = scene.replay(table, swap=True)
    assert held(scene.path) == before
    assert sorted(scene.rows("SELECT topic, partition, caught_up_ms FROM _merganser.positions")) == sorted(times)
    assert audited(scene.path) == {"a": (), "b": (), "c": ()}
    assert done.digest != done.before
    assert left(scene) == {"store.duckdb"}
    assert scene.replay(table, swap=True).before == done.digest


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))])
def test_at_any_position_of_any_history(seed: int, tmp_path: Path) -> None:
    world = TxWorld(seed, transactions=60) if seed % 2 else World(seed)
    if isinstance(world, World):
        world.write(400)
    town = Town(world, tmp_path)
    town.random.seed(seed)
    for number in range(3):
        (folder := tmp_path / str(number)).mkdir()
        scene = Scene.of(town, folder, town.some_position())
        before, table = held(scene.path), town.random.choice(town.tables)
        scene.sql(f"DELETE FROM {table}")
        scene.replay(table, swap=True)
        assert held(scene.path) == before


def test_the_log_is_followed_from_there_without_a_double(scene: Scene, town: Town) -> None:
    scene.damage("a")
    scene.replay("a", swap=True)
    town.fold(scene.path, town.ends)
    assert held(scene.path) == held(town.folded(town.ends))


@both_ways
def test_tables_of_one_transaction_are_read_together(
    naive: bool, town: Town, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held back in one depends on the other, and so do the conditions."""
    before = held(scene.path)
    if naive:
        monkeypatch.setattr(together, "_written_to", lambda headers: set())
    with caught(naive):
        done = scene.replay("a", swap=True)
        assert held(scene.path) == before
        assert {tp.topic for tp in done.read} == {"a", "b", "c"}


def test_tables_that_have_no_transaction_in_common_are_left_alone(tmp_path: Path) -> None:
    world = World(3)
    world.write(300)
    scene = Scene.of(Town(world, tmp_path), tmp_path, world.log.ends(list(world.log.partitions)))
    assert {tp.topic for tp in scene.replay("keyed").read} == {"keyed"}


def test_what_the_store_has_missed_stays_missed(tmp_path: Path) -> None:
    """A store that began late, and was told to accept it, is a store that began late after a replay too."""
    world = World(4)
    world.write(200)
    for tp, end in world.log.ends(list(world.log.partitions)).items():
        world.log.trim(tp.topic, tp.partition, end // 2)
    path = tmp_path / "store.duckdb"
    with Replica(path, world.log, "g", ["keyed", "plain"], accept_partial=True, limits=STORE_LIMITS) as replica:
        replica.wait(world.log.ends(list(world.log.partitions)))
    scene = Scene(Town(world, tmp_path), path, Source(world.log, "the log"))  # type: ignore[arg-type]
    before = held(path)
    scene.sql("DELETE FROM keyed")
    assert scene.replay("keyed", swap=True).plan.becomes == "replica"
    assert held(path) == before


def test_what_a_derived_tables_store_has_missed_stays_missed(tmp_path: Path) -> None:
    """In place, it holds none of the topic's partitions any more; it knows where it began all the same."""
    world, path, late = TxWorld(9, transactions=40), tmp_path / "store.duckdb", tmp_path / "late.duckdb"
    ends = world.log.ends(list(world.log.partitions))
    for tp, end in ends.items():
        world.log.trim(tp.topic, tp.partition, end // 3)
    with Replica(path, world.log, "g", ["a", "b", "c"], accept_partial=True, limits=STORE_LIMITS) as replica:
        replica.wait(ends)
    shutil.copyfile(path, late)
    scene = Scene(Town(world, tmp_path), path, Source(world.log, "the log"))  # type: ignore[arg-type]
    expected = scene.rows("FROM a ORDER BY ALL")
    scene.replay("a", transform="replay.transforms:none", swap=True)
    assert scene.rows("FROM a") == []
    for to in ("store", str(ends)):
        done = scene.replay("a", to=to, transform="replay.transforms:same", swap=True)
        assert scene.rows("FROM a ORDER BY ALL") == expected and len(expected) > 2
        assert done.plan.begin == Position({tp: end // 3 for tp, end in ends.items()})
    with pytest.raises(UsageError, match="before the store's beginning"):
        scene.replay("a", to=str(Position(dict.fromkeys(ends, 1))))
    with StoreFile(path) as store, StoreFile(late) as other:
        with other.reading() as cursor:
            begun = {tp: each for tp, each in held_partitions(cursor).items() if tp.topic == "a"}
        assert store.derived()["a"].begun == {tp: replace(each, next=each.first) for tp, each in begun.items()}


# -- shadows ---------------------------------------------------------------------------------


def test_without_a_swap_there_is_a_shadow_and_nothing_else_has_changed(scene: Scene, town: Town) -> None:
    before = held(scene.path)
    scene.replay("a")
    now = held(scene.path)
    assert now.pop("new") == before["a"] and now.pop("_merganser.derived")
    assert now == before
    town.fold(scene.path, town.ends)  # it is in nobody's way
    assert held(scene.path)["a"] == held(town.folded(town.ends))["a"]
    scene.replay("a", to="latest")
    assert held(scene.path)["new"] == held(town.folded(town.ends))["a"]


def test_a_position_in_the_past_or_the_future(scene: Scene, town: Town) -> None:
    for part in (1, 4):
        to = halfway(town.ends, part, 4)
        scene.replay("b", to=str(to))
        assert held(scene.path)["new"] == held(town.folded(to))["b"]


def test_rows_from_an_offset_on(scene: Scene) -> None:
    since = {TopicPartition("a", 0): 5, TopicPartition("a", 1): 9}
    scene.replay("a", since=str(Position(since)))
    wanted = "(_partition = 0 AND _offset >= 5) OR (_partition = 1 AND _offset >= 9)"
    assert scene.rows("FROM new ORDER BY ALL") == scene.rows(f"FROM a WHERE {wanted} ORDER BY ALL")
    assert len(scene.rows("FROM new")) < len(scene.rows("FROM a"))


def test_a_time_is_the_logs_own(scene: Scene) -> None:
    """In the scripted log, a record's is 1.7e12 ms and its offset."""
    scene.replay("a", since="2023-11-14T22:13:20.007Z")
    assert scene.rows("FROM new ORDER BY ALL") == scene.rows("FROM a WHERE _offset >= 7 ORDER BY ALL")


@pytest.mark.parametrize(
    "to", ["5", "yesterday", "a/0:3", "a/0:3,a/1:3,x/0:1", "2026-01-31T12:00:00", "a/0:1,a/1:9999"]
)
def test_a_target_that_is_none_is_refused(to: str, scene: Scene) -> None:
    with pytest.raises((UsageError, LogTruncated)):
        scene.replay("a", to=to)
    assert left(scene) == {"store.duckdb"} and "_merganser.derived" not in held(scene.path)


# -- through a transform -----------------------------------------------------------------------


def test_rows_go_through_a_function(scene: Scene) -> None:
    scene.replay("a", transform="replay.transforms:same")
    assert scene.rows("FROM new ORDER BY ALL") == scene.rows("FROM a ORDER BY ALL")
    scene.replay("a", transform="replay.transforms:odd_ones_twice")
    assert scene.rows("SELECT id, n, _offset FROM new ORDER BY ALL") == scene.rows(
        "SELECT unnest([id, -id]), n, _offset FROM a WHERE n % 2 = 1 ORDER BY ALL"
    )
    scene.replay("a", transform="replay.transforms:none")
    assert scene.rows("FROM new") == []


def test_a_function_that_fails_leaves_all_as_it_was(scene: Scene) -> None:
    before = held(scene.path)
    for name in ("raising", "a_number"):
        with pytest.raises(TransformFailed, match=r"a/\d at offset \d+"):
            scene.replay("a", transform=f"replay.transforms:{name}", swap=True)
        now = held(scene.path)
        assert {name: now[name] for name in before} == before
    scene.replay("a", swap=True)
    assert held(scene.path) == before


def test_a_transformed_table_in_place_is_derived(scene: Scene, town: Town) -> None:
    doubled = "SELECT id, n * 2, _partition, _offset, _timestamp FROM a ORDER BY ALL"
    expected = scene.rows(doubled)
    scene.replay("a", transform="replay.transforms:doubled", swap=True)
    assert scene.rows("SELECT id, twice, _partition, _offset, _timestamp FROM a ORDER BY ALL") == expected
    with StoreFile(scene.path) as store:
        assert store.derived()["a"].transform == "replay.transforms:doubled" and store.derived()["a"].swapped
        assert "a" not in store.tables() and "a" not in {tp.topic for tp in store.position}
    assert audited(scene.path) == {"b": (), "c": ()}
    with StoreFile(scene.path) as source:
        backup = Backups(town.objects, None, SMALL).create(source, Request(), town.archive_up_to)
    assert [table.topic for table in backup.tables] == ["b", "c"]


def test_the_log_is_never_applied_to_a_derived_table(tmp_path: Path) -> None:
    """The others go on; who needs its progress is told."""
    world = World(7)
    world.write(200)
    town = Town(world, tmp_path)
    (folder := tmp_path / "store").mkdir()
    scene = Scene.of(town, folder, halfway(town.ends, 1, 2))
    scene.replay("keyed", transform="replay.transforms:same", swap=True)
    frozen = held(scene.path)["keyed"]
    with Replica(scene.path, world.log, "g", ["keyed", "plain"], limits=STORE_LIMITS) as replica:
        replica.wait(town.ends.of({"plain"}))
        assert isinstance(replica.stopped["keyed"], DerivedTable)
        with pytest.raises(NotHeld):
            replica.query("select * from Keyed", level="strong")
        with pytest.raises(DerivedTable):
            replica.query("select 1", after=town.ends.of({"keyed"}))
        with pytest.raises(DerivedTable):
            replica.get("keyed", {"id": 1})
        assert len(replica.query("select * from keyed")) == len(frozen)
        assert replica.query("select * from plain", level="strong").position == town.ends.of({"plain"})
    assert held(scene.path)["keyed"] == frozen
    with pytest.raises(DerivedTable):
        Replica(scene.path, world.log, "g", ["keyed"], limits=STORE_LIMITS)


def test_an_id_is_in_doubt_while_a_table_it_may_be_of_is_derived(scene: Scene, town: Town) -> None:
    """It would be of a table that the log is not applied to: another replica may say that it was applied."""
    with Replica(scene.path, town.world.log, "g", ["a", "b", "c"], limits=STORE_LIMITS) as replica:
        assert replica.outcome("never-written").state == "rejected"
    scene.replay("a", transform="replay.transforms:same", swap=True)
    with Replica(scene.path, town.world.log, "g", ["a", "b", "c"], limits=STORE_LIMITS) as replica:
        outcome = replica.outcome("never-written")
    assert outcome.state == "in-doubt" and "a is derived here" in (outcome.reason or "")


def test_a_derived_table_is_replayed_again_or_given_back_to_the_log(tmp_path: Path) -> None:
    from merganser.consumers.shadow import Shadows

    world = World(7)
    world.write(200)
    town = Town(world, tmp_path)
    (folder := tmp_path / "store").mkdir()
    scene = Scene.of(town, folder, halfway(town.ends, 1, 2))
    scene.replay("keyed", transform="replay.transforms:same", swap=True)
    scene.replay("keyed", transform="replay.transforms:same", swap=True)  # up to the end of the log by now
    assert held(scene.path)["keyed"] == held(town.folded(town.ends))["keyed"]
    with Shadows(scene.path, STORE_LIMITS) as shadows:
        shadows.drop("keyed")
    town.fold(scene.path, town.ends)
    now, fold = held(scene.path), held(town.folded(town.ends))
    assert now.keys() == fold.keys()
    for name in now.keys() - {"_merganser.positions"}:  # which knows that this one joined late
        assert now[name] == fold[name]


def test_a_shadow_is_in_the_way_of_a_topic_of_its_name_only_as_an_error(scene: Scene) -> None:
    scene.replay("a", into="plain")
    world = World(1)
    store = Store(scene.path, CLUSTER, "g", STORE_LIMITS)
    try:
        decoders, stopped = Follow(world.log, store, ["plain"], accept_partial=False).load()
    finally:
        store.close()
    assert not decoders and isinstance(stopped[0], DerivedTable)


# -- from the archive --------------------------------------------------------------------------


def test_from_the_archive_alone(tmp_path: Path) -> None:
    town = Town(TxWorld(8, transactions=40), tmp_path)
    town.archive_up_to(town.ends)
    (folder := tmp_path / "store").mkdir()
    scene = Scene.of(town, folder, halfway(town.ends, 3, 4))
    before = held(scene.path)
    scene.damage("b")
    for tp, end in town.ends.items():
        town.world.log.trim(tp.topic, tp.partition, end)
    with pytest.raises(RetentionLost, match="from offset"):
        scene.replay("b", swap=True)
    ids = {table: f"id-{table}" for table in "abc"}
    alone = source_of(town.archive, None, "b", ids)
    assert alone.name.endswith("alone")
    bridged = source_of(town.archive, town.world.log, "b", ids)  # type: ignore[arg-type]
    for source in (alone, bridged):
        scene.source = source
        scene.replay("b", swap=True)
        assert held(scene.path) == before
        scene.damage("b")
    town.world.log.recreate("b")
    assert source_of(town.archive, town.world.log, "b", ids).name.endswith("alone")  # type: ignore[arg-type]


def test_what_the_archive_does_not_have_is_told(tmp_path: Path) -> None:
    town = Town(TxWorld(8, transactions=40), tmp_path)
    town.archive_up_to(halfway(town.ends, 1, 2))
    (folder := tmp_path / "store").mkdir()
    scene = Scene.of(town, folder, town.ends)
    scene.source = source_of(town.archive, None, "b", {table: f"id-{table}" for table in "abc"})
    with pytest.raises(LogTruncated, match="alone has b/0 up to offset"):
        scene.replay("b", swap=True)


# -- what is in the way ------------------------------------------------------------------------


def test_a_store_that_is_open_is_left_alone(scene: Scene, town: Town) -> None:
    store = Store(scene.path, CLUSTER, "g", STORE_LIMITS)
    try:
        with pytest.raises(StoreLocked):
            scene.replay("a")
    finally:
        store.close()


def test_another_topic_of_that_name_is_told(tmp_path: Path) -> None:
    town = Town(TxWorld(2, transactions=10), tmp_path)
    (folder := tmp_path / "store").mkdir()
    scene = Scene.of(town, folder, town.ends)
    town.world.log.recreate("a")
    with pytest.raises(TopicRecreated):
        scene.replay("a")


# -- killed ------------------------------------------------------------------------------------


def stop_at(wanted: str, nth: int = 1) -> object:
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if name == wanted and seen.count(wanted) == nth:
            raise Crash(name)

    return step


@pytest.mark.parametrize("transform", ["", "replay.transforms:same"], ids=["replica", "derived"])
@pytest.mark.parametrize("step", STEPS)
def test_stopped_at_any_step_the_table_is_the_old_one_or_the_new_one(
    step: str, transform: str, town: Town, tmp_path: Path
) -> None:
    scene = Scene.of(town, tmp_path, town.ends)
    good = held(scene.path)
    scene.damage("a")
    old = held(scene.path)
    with pytest.raises(Crash):
        scene.replay("a", swap=True, transform=transform, step=stop_at(step))  # type: ignore[arg-type]
    now = held(scene.path)
    swapped = step in ("swapped", "checkpointed", "cleaned")
    assert now["a"] == (good if swapped else old)["a"]
    if not (swapped and transform):
        known = good if swapped else old
        assert {name: now[name] for name in known} == known
    done = scene.replay("a", swap=True, transform=transform)
    assert done.rows == len(good["a"])
    assert held(scene.path)["a"] == good["a"]
    assert "new" not in held(scene.path) and left(scene) == {"store.duckdb"}
    if not transform:
        assert held(scene.path) == good


def test_what_was_applied_before_a_kill_is_not_read_again(scene: Scene) -> None:
    with pytest.raises(Crash):
        scene.replay("a", step=stop_at("applied"))  # type: ignore[arg-type]
    work = scene.path.with_name("store.duckdb.replaying")
    assert work.exists()
    node = work.stat().st_ino
    with pytest.raises(Crash):
        scene.replay("a", step=stop_at("noted"))  # type: ignore[arg-type]
    assert work.stat().st_ino == node
    with pytest.raises(Crash):  # a target below what was applied: begun anew
        scene.replay("a", to="a/0:1,a/1:1,b/0:1,b/1:1,c/0:1,c/1:1", step=stop_at("noted"))  # type: ignore[arg-type]
    con = open_file(work, STORE_LIMITS, read_only=True)
    try:
        [(most,)] = con.execute("SELECT max(next_offset) FROM _merganser.positions").fetchall()
    finally:
        con.close()
    assert most <= 1


def test_a_table_with_another_key_by_now_is_left_as_it_is(tmp_path: Path) -> None:
    """Its old records have keys of the old kind: a replay would put all of them into quarantine."""
    world = World(3)
    world.write(50)
    scene = Scene.of(Town(world, tmp_path), tmp_path, world.log.ends(list(world.log.partitions)))
    before = held(scene.path)
    world.log.tables["keyed"] = replace(world.log.tables["keyed"], key=("n",))
    with pytest.raises(KeyChanged, match="its key is n, the store was built with id"):
        scene.replay("keyed", swap=True)
    assert held(scene.path) == before
