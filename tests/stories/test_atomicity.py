"""Transactions, conditions and operation ids on the scripted log: at every position that a replica comes
through, its tables are what the oracle makes of the log up to there."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from merganser.consumers.apply import Applier, BatchLimits
from merganser.consumers.atomic import Atomicity, Order, Unit
from merganser.consumers.audit import audit_store
from merganser.consumers.collect import Collector
from merganser.consumers.conditions import decide
from merganser.consumers.dbfile import Limits
from merganser.consumers.decode import TableDecoder
from merganser.consumers.digest import quarantine_digest, table_digest
from merganser.consumers.log import Poll
from merganser.consumers.waiting import Waiting
from merganser.schemas.errors import StoreFailed
from merganser.schemas.position import TopicPartition
from stories.txworld import State, TxWorld
from stories.world import Crash, FakeReplica, replica
from support.fakelog import FakeLog, FakeReader
from support.naive import both_ways, caught

SEEDS = int(os.environ.get("MERGANSER_STORIES", "8"))


def seen(opened: FakeReplica) -> tuple[Mapping[TopicPartition, int], State]:
    """Read position and state of the store, of one transaction."""
    with opened.store.reading(1) as cursor:
        cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
        position = {
            TopicPartition(t, p): n
            for t, p, n in cursor.execute("SELECT topic, partition, next_offset FROM _merganser.positions").fetchall()
        }
        state = State()
        for table in state.rows:
            rows = cursor.execute(f"SELECT _partition, id, n, _offset FROM {table}").fetchall()
            state.rows[table] = {(p, o if table == "c" else i): (i, n, o) for p, i, n, o in rows}
            assert len(state.rows[table]) == len(rows)
        places = 'SELECT topic, partition, "offset" FROM _merganser.'
        state.pending = set(cursor.execute(places + "pending").fetchall())
        state.rejected = set(cursor.execute(places + "rejections").fetchall())
        operations = cursor.execute("SELECT kind, id, topic, partition, state FROM _merganser.operations").fetchall()
        for kind, id_, topic, partition, outcome in operations:
            state.transactions[id_ if kind == "tx" else str(("op", topic, partition, id_))] = outcome
        [(repeated,)] = cursor.execute("SELECT sum(repeated) FROM _merganser.positions").fetchall()
        state.repeated = {("", 0, n) for n in range(int(repeated or 0))}  # how many is all that is kept
    return position, state


def check(world: TxWorld, opened: FakeReplica) -> None:
    position, state = seen(opened)
    expected = world.state(position)
    assert len(expected.repeated) == len(state.repeated)
    expected.repeated = state.repeated
    assert state == expected


def follow(
    world: TxWorld, path: Path, size: int, crashes: random.Random | None = None, decodes: int | None = None
) -> State:
    """Apply all of the log, looking at every state in between, and crashing now and then. A batch is of one poll,
    or of up to *decodes*, as it is far behind."""
    ends = world.log.ends(list(world.log.partitions))
    while True:
        crash_in = crashes.randrange(60) if crashes else None
        limits = BatchLimits(records=size * (decodes or 1), linger_ms=0, poll_records=size)
        with replica(world, path, limits, crash_in) as opened:
            try:
                opened.loop.begin()
                check(world, opened)
                while not opened.progress.read.reaches(ends):
                    opened.loop.turn()
                    if decodes is None or opened.loop._commit is not None:
                        opened.loop.flush()
                        check(world, opened)
                with opened.store.reading(1) as cursor:
                    assert not [line for account in audit_store(cursor, digests=False) for line in account.wrong]
                return seen(opened)[1]
            except Crash:
                continue


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_state_is_the_oracles(seed: int, tmp_path: Path) -> None:
    world = TxWorld(seed, guarded=seed % 4 > 0, spellings=seed % 2 > 0)
    one = follow(world, tmp_path / "one.duckdb", random.Random(seed).choice([2, 5, 10, 1000]))
    assert not one.pending
    if seed % 3 == 0:
        assert follow(world, tmp_path / "two.duckdb", 4, random.Random(seed)) == one
    assert follow(world, tmp_path / "three.duckdb", 5, decodes=6) == one


class Late(FakeReader):
    """Does not get to one of the partitions for a while."""

    polls = 0

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        self.polls += 1
        if self.polls == 1:
            self._late = self._log.random.choice(sorted(self._log.partitions))
        asked, self.paused = self.paused, {*self.paused, *({self._late} if self.polls < 25 else ())}
        try:
            return super().poll(max_records, timeout_s, gather_s)
        finally:
            self.paused = asked


def outcome(world: TxWorld, path: Path, size: int, crashes: random.Random | None) -> list[object]:
    """Digests, and all else that two replicas must agree on, at the end of the log."""
    ends = world.log.ends(list(world.log.partitions))
    while True:
        crash_in = crashes.randrange(200) if crashes else None
        with replica(world, path, BatchLimits(records=size, linger_ms=0, poll_records=size), crash_in) as opened:
            try:
                opened.loop.begin()
                while not opened.progress.applied.reaches(ends):
                    opened.loop.turn()
                    opened.loop.flush()
            except Crash:
                continue
            with opened.store.reading(1) as cursor:
                digests = [digest(cursor, t) for t in "abc" for digest in (table_digest, quarantine_digest)]
                kept = [
                    sorted(cursor.execute(f"SELECT t::VARCHAR FROM _merganser.{table} AS t").fetchall())
                    for table in ("rejections", "operations", "pending")
                ]
                counted = (
                    "SELECT topic, partition, next_offset, puts, deletes, rejected, repeated FROM _merganser.positions"
                )
                return [*digests, *kept, sorted(cursor.execute(counted).fetchall())]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_replicas_agree_whatever_arrived_first(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TxWorld(10_000 + seed, transactions=40, spellings=seed % 2 > 0)
    at_once = outcome(world, tmp_path / "one.duckdb", 1_000, None)
    monkeypatch.setattr(FakeLog, "reader", lambda self, group: Late(self))
    assert outcome(world, tmp_path / "two.duckdb", 7, random.Random(seed)) == at_once


class OneAfterTheOther(FakeReader):
    """Brings one partition to its end before it looks at the next, as a reader far behind may."""

    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        for tp in sorted(self._next.keys() - self.paused):
            if self._next[tp] < len(self._log.partitions[tp]) or self._ended.get(tp) != self._next[tp]:
                others = [other for other in self._next if other != tp]
                mine, self.paused = self.paused, {*self.paused, *others}
                try:
                    return super().poll(max_records, timeout_s, gather_s)
                finally:
                    self.paused = mine
        return Poll()


@both_ways
def test_what_is_held_back_stays_bounded_however_unevenly_partitions_are_read(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeLog, "reader", lambda self, group: OneAfterTheOther(self))
    monkeypatch.setattr("stories.world.STORE_LIMITS", Limits(head_room=0, pending_bytes=90_000))
    if naive:  # no partition is ever paused
        monkeypatch.setattr(Applier, "_keep_together", lambda self: None)
    world = TxWorld(5, transactions=150)
    most = 0
    ends = world.log.ends(list(world.log.partitions))
    with replica(world, tmp_path / "r.duckdb", BatchLimits(records=5, linger_ms=0, poll_records=5)) as opened:
        opened.loop.begin()
        with caught(naive):
            for _ in range(2_000):
                opened.loop.turn()
                opened.loop.flush()
                most = max(most, opened.loop._collector.waiting.nbytes)
                if opened.progress.read.reaches(ends):
                    break
            assert 45_000 < most < 90_000
            check(world, opened)


@both_ways
@pytest.mark.parametrize("seed", range(3))
def test_a_table_that_joins_later_is_not_torn(
    naive: bool, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a transaction lacks in the other tables was applied before this one came."""
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 0.0)
    if naive:  # whatever is missing is lost
        monkeypatch.setattr(Waiting, "join", lambda self, late: None)
        monkeypatch.setattr(Waiting, "settle", lambda self, transactions: None)
    world = TxWorld(seed, transactions=40, guarded=False)
    for tables in (["a"], ["a", "b", "c"]):
        with replica(world, tmp_path / "r.duckdb", BatchLimits(linger_ms=0), tables=tables) as opened:
            opened.loop.begin()
            ends = world.log.ends([tp for tp in world.log.partitions if tp.topic in tables])
            with caught(naive and tables != ["a"]):
                for _ in range(300):
                    opened.loop.turn()
                    opened.loop.flush()
                assert opened.progress.applied.reaches(ends) and not opened.progress.stopped
            with opened.store.reading(1) as cursor:
                accounts = audit_store(cursor, digests=False)
            assert not [line for account in accounts for line in account.wrong]
            assert naive or not any(account.rejected or account.pending for account in accounts)


def seen_at_once(patch: pytest.MonkeyPatch) -> None:
    """Each record as it comes: a transaction shows up partition by partition (FAILURES 9)."""
    patch.setattr(Atomicity, "_whole", lambda self, open_, position: True)


def nobody_waits(patch: pytest.MonkeyPatch) -> None:
    """Only what is not whole is held back, not what comes after it."""
    patch.setattr(Order, "reach", lambda self, start: set(start))


def by_first_record(patch: pytest.MonkeyPatch) -> None:
    """Transactions one after another as they began, whatever the log says of each key."""
    patch.setattr("merganser.consumers.atomic.in_order", lambda units, follows: sorted(units, key=lambda u: u.first))


def as_they_come(patch: pytest.MonkeyPatch) -> None:
    """Circles in the order in which they were read."""
    patch.setattr("merganser.consumers.atomic.in_order", lambda units, follows: list(units))


def unconditional(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("merganser.consumers.conditions.fails", lambda condition, version: None)


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """Operations are known within a batch only (FAILURES 7)."""
    patch.setattr("merganser.consumers.ledger.known", lambda con, entries: [])


def one_by_one(patch: pytest.MonkeyPatch) -> None:
    """A failed condition leaves out its own record only."""

    def decide_each(units: Any, *rest: Any) -> Any:
        alone = [Unit(unit.tx, [entry]) for unit in units for entry in unit.entries]
        return decide(alone, *rest)

    patch.setattr("merganser.consumers.store.decide", decide_each)


def in_memory(patch: pytest.MonkeyPatch) -> None:
    """What is held back is not written down."""
    patch.setattr("merganser.consumers.ledger.hold", lambda con, entries: None)


def past_what_waits(patch: pytest.MonkeyPatch) -> None:
    """Whole transactions are applied at once, though others write their keys too."""
    patch.setattr("merganser.consumers.whole._sharing", lambda topic, records, held: set())


def in_part(patch: pytest.MonkeyPatch) -> None:
    """What there is of a transaction is applied at once, whole or not."""
    patch.setattr("merganser.consumers.whole._unfit", lambda topics, position: set())


def by_bytes(patch: pytest.MonkeyPatch) -> None:
    """Keys are told apart by how they are spelt."""
    patch.setattr(TableDecoder, "read_keys", lambda self, keys: [key and (key[5:],) for key in keys])


def whole_is_well(patch: pytest.MonkeyPatch) -> None:
    """A transaction that came whole is applied, whatever its records turn out to be."""
    patch.setattr(Collector, "_decide_after_all", lambda self, raw: None)


FAULTS = [
    by_bytes,
    past_what_waits,
    in_part,
    whole_is_well,
    seen_at_once,
    nobody_waits,
    by_first_record,
    as_they_come,
    unconditional,
    forgetful,
    one_by_one,
    in_memory,
]


LONG = (as_they_come,)  # seldom makes a difference

#: The first story that shows a fault, if it is not among the first: so the others need not be told each time.
SHOWN_BY = {whole_is_well: 15, by_first_record: 14}


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.slow) if f in LONG else f for f in FAULTS])
def test_the_stories_catch_a_planted_fault(fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    for seed in range(SHOWN_BY.get(fault, 1), 40):
        try:
            follow(TxWorld(seed, spellings=True), tmp_path / f"{seed}.duckdb", 5, random.Random(seed))
        except (AssertionError, StoreFailed, KeyError):
            return
    pytest.fail("the planted fault was not seen")
