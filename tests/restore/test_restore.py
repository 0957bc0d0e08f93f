"""A restored store is what a replica holds that read up to there: every row, and all of ``_merganser``."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from merganser.consumers.apply import Applier
from merganser.consumers.audit import audit_store
from merganser.consumers.catchup import apply_until
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.archive.key import Key
from merganser.pipeline.backup.catalog import catalog
from merganser.pipeline.backup.drill import drill
from merganser.pipeline.restore.restore import STEPS
from merganser.pipeline.restore.sources import Wish
from merganser.schemas.errors import (
    NotRestorable,
    SplitTransaction,
    StoreInTheWay,
    StoreLocked,
    UnknownTable,
    UsageError,
    WrongKey,
)
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from restore.conftest import halfway
from restore.town import CLUSTER, Town, held
from stories.txworld import _IDS, _KEY, _ROW, TxWorld
from stories.world import STORE_LIMITS, Crash, World
from support.fakelog import FakeLog
from support.frames import framed


def expected(town: Town, target: Position) -> object:
    return held(town.folded(target))


# -- to any position -------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_any_position_comes_out_as_the_fold_of_the_log_up_to_it(number: int, town: Town, tmp_path: Path) -> None:
    town.random.seed(number)
    target = town.some_position() if number else town.ends
    town.restore(tmp_path / "new.duckdb", Wish(str(target)))
    assert held(tmp_path / "new.duckdb") == expected(town, target)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_any_position_of_any_history(seed: int, tmp_path: Path) -> None:
    world = TxWorld(seed, transactions=80) if seed % 2 else World(seed)
    if isinstance(world, World):
        world.write(500)
    town = Town(world, tmp_path, Key(bytes([seed] * 32)) if seed % 3 == 0 else None)
    for part in (1, 2, 3):
        town.apply(halfway(town.ends, part, 4))
        town.back_up("incr" if part == 2 else "full")
    town.archive_up_to(town.ends)
    town.random.seed(seed)
    for number in range(10):
        target, path = town.some_position(), tmp_path / f"{number}.duckdb"
        town.restore(path, Wish(str(target)))
        assert held(path) == expected(town, target), str(target)


def test_without_a_base_it_comes_to_the_same(town: Town, tmp_path: Path) -> None:
    target = halfway(town.ends, 4, 5)
    town.restore(tmp_path / "new.duckdb", Wish(str(target), base="none"))
    assert held(tmp_path / "new.duckdb") == expected(town, target)


def test_at_the_position_of_a_backup_the_digests_are_compared(town: Town, tmp_path: Path) -> None:
    for found in catalog(town.objects):
        assert found.backup is not None
        done = town.restore(tmp_path / f"{found.id}.duckdb", Wish(found.backup.position))
        assert done.compared == found.id


def test_a_drill_restores_each_backup_for_show(town: Town, tmp_path: Path) -> None:
    for found in catalog(town.objects):
        assert found.backup is not None
        drilled = drill(town.archive, found.backup, tmp_path)
        assert not drilled.wrong and drilled.rows == found.backup.rows
    lied = dataclasses.replace(found.backup.tables[0], digest="1-0000000000000000")
    wrong = dataclasses.replace(found.backup, tables=(lied, *found.backup.tables[1:]))
    assert "has digest" in drill(town.archive, wrong, tmp_path).wrong
    assert not list(tmp_path.iterdir())


def test_a_time_is_before_the_first_record_of_that_time(town: Town, tmp_path: Path) -> None:
    """By the log's own timestamps: in the scripted log, a record's is 1.7e12 ms and its offset."""
    when = datetime.fromtimestamp(1_700_000_000.020, UTC)
    done = town.restore(tmp_path / "new.duckdb", Wish(when.isoformat()))
    target = Position({tp: _first_since(town, tp, 20) for tp in town.ends})
    assert done.position == target
    assert held(tmp_path / "new.duckdb") == expected(town, target)


def _first_since(town: Town, tp: TopicPartition, offset: int) -> int:
    records = town.world.log.partitions[tp]
    return next((r.offset() for r in records if r is not None and r.offset() >= offset), len(records))


@pytest.mark.parametrize(
    "to", ["2026-01-31T12:00:00", "2026-01-31T99:00:00Z", "yesterday", "a/0:x", "", "a/0:5", "a/9:1"]
)
def test_a_target_that_is_none_is_refused(to: str, town: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        town.restore(tmp_path / "new.duckdb", Wish(to))
    assert not list(tmp_path.iterdir())


def test_what_nothing_leads_to_is_told(town: Town, tmp_path: Path) -> None:
    beyond = Position({tp: end + 1 for tp, end in town.ends.items()})
    with pytest.raises(NotRestorable, match="the log does not answer"):
        town.restore(tmp_path / "new.duckdb", Wish(str(beyond)))
    with pytest.raises(UnknownTable):
        town.restore(tmp_path / "new.duckdb", Wish("latest", ("nothing",)))
    assert not list(tmp_path.iterdir())


def test_some_tables_are_what_a_replica_of_these_holds(tmp_path: Path) -> None:
    """What waits for a record of another table in the whole store need not wait in one without that table."""
    town = Town(TxWorld(3, transactions=60, guarded=False), tmp_path)
    ends = town.ends
    town.apply(halfway(ends, 1, 2))
    town.back_up()
    town.archive_up_to(ends)
    for part in (1, 2):
        target = halfway(ends, part, 2).of({"a"})
        path, fold = tmp_path / f"a{part}.duckdb", tmp_path / f"fold{part}.duckdb"
        town.restore(path, Wish(str(target), ("a",)))
        town.fold(fold, target, ["a"])
        mine, theirs = held(path), held(fold)
        assert mine["a"] == theirs["a"] and set(mine) == set(theirs)
        assert mine["_merganser.pending"] == theirs["_merganser.pending"]
        assert mine["_merganser.positions"] == theirs["_merganser.positions"]


def test_a_table_that_cannot_be_decided_alone_stops_the_restore_by_name(town: Town, tmp_path: Path) -> None:
    with pytest.raises(SplitTransaction):
        town.restore(tmp_path / "new.duckdb", Wish("latest", ("a",), base="none"))
    assert [path.name for path in tmp_path.iterdir()] == []


# -- and from there on -----------------------------------------------------------------------


def test_it_follows_the_log_from_there_without_a_double(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    town.restore(path, Wish(str(halfway(town.ends, 3, 4))))
    town.fold(path, town.ends)
    assert held(path) == expected(town, town.ends)
    with StoreFile(path) as store, store.reading() as cursor:
        assert [account.wrong for account in audit_store(cursor)] == [()] * 3


def test_the_log_itself_leads_on_where_the_archive_ends(tmp_path: Path) -> None:
    town = Town(TxWorld(8, transactions=60), tmp_path)
    half = halfway(town.ends, 1, 2)
    town.apply(half)
    town.back_up()
    done = town.restore(tmp_path / "new.duckdb", Wish("latest"), live=True)
    assert done.position == town.ends
    assert held(tmp_path / "new.duckdb") == expected(town, town.ends)
    assert town.restore(tmp_path / "alone.duckdb", Wish("latest")).position == half


def cut_inside_a_torn_transaction() -> tuple[FakeLog, Position]:
    """A log with a torn transaction that was decided on, and a position that lies within another one."""
    log, a0, b0 = TxWorld(1, transactions=0).log, TopicPartition("a", 0), TopicPartition("b", 0)

    def put(table: str, id_: int, marks: Marks | None = None) -> None:
        key, row = framed(_IDS[table] + 50, _KEY, {"id": id_}), framed(_IDS[table], _ROW, {"id": id_, "n": id_})
        log.put(table, 0, key, row, marks)

    put("a", 1, Marks("torn", {a0: 1, b0: 1}))
    put("a", 1)  # waits behind it
    put("a", 2, Marks("cut", {a0: 1, b0: 1}))
    for table in ("a", "b"):
        log.put(table, 0, None, None, Marks("torn", resolution="discard"))
    at = Position({**log.ends(list(log.partitions))})
    put("b", 2, Marks("cut", {a0: 1, b0: 1}))  # beyond: not torn, only cut
    return log, at


def test_a_torn_transaction_that_was_decided_on_comes_out_as_decided(tmp_path: Path) -> None:
    world = TxWorld(1, transactions=0)
    world.log, at = cut_inside_a_torn_transaction()
    town = Town(world, tmp_path)
    town.archive_up_to(town.ends)
    town.restore(tmp_path / "new.duckdb", Wish(str(at), base="none"))
    found = held(tmp_path / "new.duckdb")
    assert [row[2] for row in found["_merganser.pending"]] and len(found["_merganser.pending"]) == 1
    assert len(found["a"]) == 1 and len(found["_merganser.rejections"]) == 1
    town.fold(tmp_path / "new.duckdb", town.ends)
    assert len(held(tmp_path / "new.duckdb")["a"]) == 2


def test_a_store_that_fails_in_the_last_step_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided on is closed in a batch of its own, once all is read."""
    log, at = cut_inside_a_torn_transaction()
    resting: list[Applier] = []
    rest, failures = Applier.rest, ["the disk said no"]
    monkeypatch.setattr(Applier, "rest", lambda self, *how: (resting.append(self), rest(self, *how)))

    def fail_once(step: str) -> None:
        if resting and step == "moved" and failures:
            raise duckdb.IOException(failures.pop())

    kept = []
    for name, on_step in (("failed", fail_once), ("whole", lambda step: None)):
        store = Store(tmp_path / name, CLUSTER, "g", STORE_LIMITS, on_step)
        apply_until(BoundedLog(log, at), store, ["a", "b", "c"], at)
        store.close()
        kept.append(held(tmp_path / name))
    assert not failures and kept[0] == kept[1] and kept[0]["_merganser.rejections"]


def test_when_deletes_may_have_been_missed_is_told_by_the_log_not_by_the_restore(town: Town, tmp_path: Path) -> None:
    """FAILURES 35: a store restored today from an archive of last year has not seen the deletes of this one."""
    path = tmp_path / "new.duckdb"
    town.restore(path, Wish(str(halfway(town.ends, 4, 5)), base="none"))
    with StoreFile(path) as store:
        times = store.query("SELECT caught_up_ms FROM _merganser.positions WHERE next_offset > 0").rows()
    assert times and all(1_700_000_000_000 <= time < 1_700_000_001_000 for (time,) in times)


# -- killed ----------------------------------------------------------------------------------


def early(town: Town) -> Position:
    """Where a store is that is in the way."""
    return halfway(town.ends, 1, 5)


def stop_at(wanted: str, nth: int) -> Callable[[str], None]:
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if name == wanted and seen.count(wanted) == nth:
            raise Crash(name)

    return step


#: In short; `make test-long` takes all, and test_kill.py kills whole processes.
_SHORT = {"loaded", "archive-applied", "aside", "in-place"}
KILLS = [pytest.param(step, 1, True, marks=() if step in _SHORT else pytest.mark.slow) for step in STEPS]
KILLS += [pytest.param("file-loaded", 9, False), pytest.param("wal-aside", 1, False, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("step", "nth", "existing"), KILLS)
def test_killed_at_any_step_the_next_run_goes_on(
    step: str, nth: int, existing: bool, town: Town, tmp_path: Path
) -> None:
    path, target = tmp_path / "new.duckdb", halfway(town.ends, 4, 5)
    if existing:
        shutil.copyfile(town.folded(early(town)), path)
    old = held(path) if existing else None
    restorer = town.restorer(path, force=True, step=stop_at(step, nth))
    with pytest.raises(Crash):
        restorer.run(restorer.origin.plan(Wish(str(target))))
    if path.exists() and step not in ("in-place",):
        assert held(path) == old, "what is there under the store's name is whole, always"
    done = town.restore(path, Wish(str(target)), force=existing)
    assert done.position == target
    assert held(path) == expected(town, target)
    left = {p.name for p in tmp_path.iterdir()} - {"new.duckdb"}
    asides = {name for name in left if name.startswith("new.duckdb.before-restore-")}
    assert left == asides and len(asides) == existing
    if existing:
        assert held(tmp_path / asides.pop()) == old


def test_what_was_begun_for_another_target_is_gone_on_with_only_if_it_leads_there(town: Town, tmp_path: Path) -> None:
    path, far, near = tmp_path / "new.duckdb", town.ends, halfway(town.ends, 4, 5)
    restorer = town.restorer(path, step=stop_at("applied", 1))
    with pytest.raises(Crash):
        restorer.run(restorer.origin.plan(Wish(str(far))))
    town.restore(path, Wish(str(near)))
    assert held(path) == expected(town, near)


# -- what is in the way ----------------------------------------------------------------------


def test_a_store_that_holds_something_is_replaced_by_force_only_and_kept(town: Town, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(town.folded(early(town)), tmp_path / "new.duckdb"))
    old = held(path)
    with pytest.raises(StoreInTheWay, match="group 'g'"):
        town.restore(path, Wish())
    assert held(path) == old and [p.name for p in tmp_path.iterdir()] == ["new.duckdb"]
    done = town.restore(path, Wish(), force=True)
    assert done.aside is not None and held(done.aside) == old
    assert held(path) != old


def test_a_file_that_is_no_store_is_in_the_way_too(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not to be lost")
    with pytest.raises(StoreInTheWay):
        town.restore(path, Wish())
    done = town.restore(path, Wish(), force=True)
    assert done.aside is not None and done.aside.read_text() == "not to be lost"


def test_a_store_in_use_is_never_replaced(town: Town, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(town.folded(early(town)), tmp_path / "new.duckdb"))
    code = f"import duckdb, sys; con = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked):
            town.restore(path, Wish(), force=True)
        assert holder.stdin is not None
        holder.stdin.close()
    assert [p.name for p in tmp_path.iterdir()] == ["new.duckdb"]


def test_what_appears_while_it_runs_is_not_replaced(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"

    def step(name: str) -> None:
        if name == "verified":
            town.fold(path, Position(dict.fromkeys(town.ends, 0)))

    restorer = town.restorer(path, step=step)
    with pytest.raises(StoreInTheWay):
        restorer.run(restorer.origin.plan(Wish()))
    with StoreFile(path) as store:
        assert not any(store.position.values())


def test_two_restores_into_one_file_do_not_meet(town: Town, tmp_path: Path) -> None:
    path, met = tmp_path / "new.duckdb", list[str]()

    def step(name: str) -> None:
        if name == "loaded" and not met:
            with pytest.raises(StoreLocked, match="another restore"):
                town.restore(path, Wish())
            met.append(name)

    restorer = town.restorer(path, step=step)
    restorer.run(restorer.origin.plan(Wish()))
    assert met


def test_the_wal_of_the_old_store_goes_with_it(town: Town, tmp_path: Path) -> None:
    """What a killed replica left in its WAL is of the old store: neither lost to it, nor found by the new one."""
    path, work = tmp_path / "new.duckdb", tmp_path / "work"
    work.mkdir()
    store = Store(work / "s.duckdb", CLUSTER, "g", STORE_LIMITS)
    before = early(town)
    apply_until(BoundedLog(town.world.log, before), store, town.tables, before)
    for name in ("s.duckdb", "s.duckdb.wal"):
        if (work / name).exists():
            (tmp_path / name.replace("s.", "new.")).write_bytes((work / name).read_bytes())
    store.close()
    assert (tmp_path / "new.duckdb.wal").exists()
    done = town.restore(path, Wish(), force=True)
    assert done.aside is not None and not (tmp_path / "new.duckdb.wal").exists()
    with StoreFile(done.aside) as old:
        assert old.position == before
    assert held(path) == expected(town, town.ends)


# -- keys ------------------------------------------------------------------------------------


def test_an_encrypted_archive_needs_its_key(tmp_path: Path) -> None:
    town = Town(TxWorld(2, transactions=20), tmp_path, Key(bytes(range(32))))
    town.apply(town.ends)
    made = town.back_up()
    assert not any(data[:4] == b"PAR1" for data in town.memory.files.values())
    assert town.restore(tmp_path / "new.duckdb", Wish()).compared == made.id
    for key, word in ((None, "no key was given"), (Key(bytes(32)), "the key given is")):
        town.archive.key = key
        with pytest.raises(WrongKey, match=word):
            town.restore(tmp_path / "again.duckdb", Wish())
    assert not (tmp_path / "again.duckdb").exists()


def test_a_plan_can_be_shown(town: Town) -> None:
    plan = town.restorer(Path("x")).origin.plan(Wish())
    assert plan.base is not None and plan.fields()["base"] == plan.base.id
    assert json.dumps(plan.fields()) and plan.lines()[2].startswith(f"base     {plan.base.id}")
