"""What can happen to a store's file, and that the log mends it: FAILURES 24 to 29."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from merganser.consumers.apply import Applier, BatchLimits
from merganser.consumers.audit import audit_store
from merganser.consumers.batch import Batch
from merganser.consumers.checks import Stored
from merganser.consumers.dbfile import Limits
from merganser.consumers.progress import Progress
from merganser.consumers.store import Store
from merganser.schemas.errors import NotFreshEnough, StoreFull, StoreLocked
from merganser.schemas.position import Position, TopicPartition
from stories.test_recovery import check, limits
from stories.world import Crash, FakeReplica, World, replica
from support.naive import both_ways, caught

SMALL = BatchLimits(records=5, linger_ms=0, poll_records=5)


def copy_as_killed(path: Path, to: Path, wal_bytes: int | None = None) -> None:
    """The files of an open store as a SIGKILL would leave them, the WAL cut to *wal_bytes*."""
    shutil.copy(path, to)
    wal = path.with_name(path.name + ".wal")
    to.with_name(to.name + ".wal").write_bytes(wal.read_bytes()[:wal_bytes])


@pytest.mark.parametrize("stride", [401, pytest.param(1, marks=pytest.mark.slow)])
def test_a_torn_wal_only_takes_the_store_back_to_a_commit(stride: int, tmp_path: Path) -> None:
    for world, again in with_torn_wals(tmp_path, stride):
        with again.store.reading(1) as cursor:
            assert [why for account in audit_store(cursor, digests=False) for why in account.wrong] == []
        again.run()
        check(world, again)


def test_a_position_kept_elsewhere_would_not_go_back_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive: the group's offsets, or another file, say where to go on."""
    exact, furthest = Store.positions, dict[TopicPartition, Stored]()

    def elsewhere(self: Store) -> dict[TopicPartition, Stored]:
        here = exact(self)
        for tp in here:
            furthest[tp] = max(here[tp], furthest.get(tp, here[tp]), key=lambda stored: stored.next_offset)
        return {tp: furthest[tp] for tp in here}

    monkeypatch.setattr(Store, "positions", elsewhere)
    with caught(True):
        for world, again in with_torn_wals(tmp_path, 401):
            again.run()
            check(world, again)


def with_torn_wals(folder: Path, stride: int) -> Iterator[tuple[World, FakeReplica]]:
    """A replica of a killed one's store with its WAL cut, every *stride* bytes."""
    world = World(3)
    world.write(25)
    path = folder / "store.duckdb"
    with replica(world, path, SMALL) as opened:
        opened.run()
        opened.store.positions()
        whole = path.with_name(path.name + ".wal").stat().st_size
        for cut in range(0, whole, stride):
            copy_as_killed(path, folder / "cut.duckdb", cut)
            with replica(world, folder / "cut.duckdb", SMALL) as again:
                yield world, again


@both_ways
def test_a_position_that_was_served_is_waited_for_after_the_file_went_back(
    naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # what was shown is forgotten
        monkeypatch.setattr(Progress, "served", lambda self, position: None)
    tp = TopicPartition("t", 0)
    progress = Progress()
    five, three = Position({tp: 5}), Position({tp: 3})
    progress.hold(five, five)
    progress.served(five)
    progress.hold(three, three)
    with caught(naive), pytest.raises(NotFreshEnough):
        progress.wait(Position(), 0.05, "session", progress.floor)
    progress.advance(five, five)
    progress.wait(Position(), 0.05, "session", progress.floor)


_CHILD = """
import sys
from pathlib import Path
from stories.test_recovery import limits
from stories.world import World, replica
world = World(7)
world.write(400)
with replica(world, Path(sys.argv[1]), limits(4)) as opened:
    opened.store._step = lambda step: print(step, flush=True)
    opened.run()
print("done", flush=True)
"""


def test_kill_open_checkpoint_again_and_again_loses_no_row(tmp_path: Path) -> None:
    path, rng = tmp_path / "store.duckdb", random.Random(1)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True, env=env)
        assert child.stdout is not None
        for _, line in zip(range(rng.randint(1, 60)), child.stdout, strict=False):
            if line.strip() == "done":
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with duckdb.connect(str(path)) as con:
            con.execute("CHECKPOINT").fetchall()
    world = World(7)
    world.write(400)
    with replica(world, path, limits(4)) as opened:
        opened.run()
        check(world, opened)


# -- disk full ---------------------------------------------------------------------------------


def test_a_full_disk_stops_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(5)
    world.write(50)
    path = tmp_path / "store.duckdb"
    usage = shutil.disk_usage(tmp_path)
    with replica(world, path, SMALL) as opened:
        with monkeypatch.context() as patched:
            patched.setattr("merganser.consumers.dbfile.shutil.disk_usage", lambda _: usage._replace(free=0))
            with pytest.raises(StoreFull):
                opened.run()
        assert opened.rows("plain", ["id"]) == []
    with replica(world, path, SMALL) as opened:
        opened.run()
        check(world, opened)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_space_in_the_middle_of_a_commit_leaves_a_whole_store(tmp_path: Path) -> None:
    world = World(11)
    with small_disk(tmp_path / "disk", "4m") as disk:
        path = disk / "store.duckdb"
        with replica(world, path, BatchLimits(records=50, linger_ms=0, poll_records=50)) as opened:
            opened.run()
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(b"\xff" * (free - 24_000))
        world.write(3000)
        with pytest.raises((duckdb.Error, StoreFull)):
            with replica(world, path, BatchLimits(records=50, linger_ms=0, poll_records=50)) as opened:
                opened.run()
        ballast.unlink()
        with replica(world, path, limits(999)) as opened:
            with opened.store.reading(1) as cursor:
                assert [why for account in audit_store(cursor, digests=False) for why in account.wrong] == []
            opened.run()
            check(world, opened)


# -- a commit whose outcome is unknown -----------------------------------------------------------


class Flaky(Store):
    """Commits that fail, before or after the fact, as an I/O error does."""

    failures = 0
    rng = random.Random(0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        dice = self.rng.random() if self.failures else 1.0
        with super()._transaction():
            yield
            if dice < 0.1:
                type(self).failures -= 1
                raise duckdb.IOException("injected before the commit")
        if dice < 0.2:
            type(self).failures -= 1
            raise duckdb.IOException("injected after the commit")


def run_recovering(opened: FakeReplica) -> None:
    """As the loop's own thread does: a DuckDB error means reopen, and begin again from the file."""
    ends = opened._world.log.ends(list(opened._world.log.partitions))
    step = opened.loop.begin
    while not opened.progress.applied.reaches(ends):
        try:
            step()
            opened.loop.flush()
        except duckdb.Error as error:
            opened.loop.recover(error)
        step = opened.loop.turn


@pytest.mark.parametrize("seed", range(4))
def test_a_commit_of_unknown_outcome_is_settled_by_the_file(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stories.world.Store", Flaky)
    world = World(seed)
    world.write(400)
    with replica(world, tmp_path / "store.duckdb", BatchLimits(records=10, linger_ms=0, poll_records=10)) as opened:
        Flaky.failures, Flaky.rng = 12, random.Random(seed)
        run_recovering(opened)
        assert Flaky.failures < 12
        Flaky.failures = 0
        check(world, opened)


def test_to_apply_again_after_an_error_would_double_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive variant: an error means that nothing was committed, so the same batch once more."""

    def again(self: Applier, batch: Batch, look: object) -> None:
        try:
            self._store.apply(batch)
        except duckdb.Error:
            self._store.apply(batch)
        self._progress.advance(batch.position, batch.applied)

    monkeypatch.setattr("stories.world.Store", Flaky)
    monkeypatch.setattr(Applier, "_apply", again)
    world = World(1)
    world.write(400)
    with replica(world, tmp_path / "store.duckdb", BatchLimits(records=10, linger_ms=0, poll_records=10)) as opened:
        Flaky.failures, Flaky.rng = 12, random.Random(3)
        run_recovering(opened)
        Flaky.failures = 0
        with pytest.raises(AssertionError):
            check(world, opened)


# -- one owner -----------------------------------------------------------------------------------


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    store = Store(path, "c", "g", Limits())
    with pytest.raises(StoreLocked, match="this very process"):
        Store(path, "c", "g", Limits())
    code = "import sys, merganser.consumers.store as s; s.Store(sys.argv[1], 'c', 'g')"
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "StoreLocked" in other.stderr and str(os.getpid()) in other.stderr
    store.close()
    Store(path, "c", "g", Limits()).close()


def test_a_crash_in_a_schema_change_is_taken_up_again(tmp_path: Path) -> None:
    for crash_in in range(8):
        world = World(0)
        world.write(5)
        path = tmp_path / f"{crash_in}.duckdb"
        with replica(world, path, SMALL) as opened:
            opened.run()
        for _ in range(3):
            world._schema("plain", 0)
        for _ in range(9):
            world._put("plain", 0)
        try:
            with replica(world, path, limits(1000), crash_in) as opened:
                opened.run()
        except Crash:
            pass
        with replica(world, path, SMALL) as opened:
            opened.run()
            check(world, opened)
