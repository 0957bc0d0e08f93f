"""What a store has settled without all parts of a transaction is settled: when it goes on, and in a replay of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.consumers.apply import BatchLimits
from merganser.consumers.catchup import apply_until
from merganser.consumers.replica import Replica
from merganser.consumers.shadow import Shadows
from merganser.consumers.store import Store
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.replay.plan import Wish
from merganser.pipeline.replay.replay import Replayed, Replayer
from merganser.pipeline.replay.sources import Source
from merganser.schemas.headers import Marks
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table, key_subject, value_subject
from replay.scenes import held
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog
from support.frames import framed
from support.naive import both_ways, caught

_ID = {"name": "id", "type": "long"}
_KEY = {"type": "record", "name": "k", "fields": [_ID]}
_ROW = {"type": "record", "name": "row", "fields": [_ID, {"name": "n", "type": "long"}]}
_BOTH = {TopicPartition("a", 0): 1, TopicPartition("b", 0): 1}


class TwoTables(FakeLog):
    """Tables ``a`` and ``b``, of one partition each."""

    def __init__(self) -> None:
        super().__init__(1)
        for n, name in enumerate("ab"):
            key = SchemaVersion(key_subject(name), 1, 200 + n, _KEY)
            value = SchemaVersion(value_subject(name), 1, 100 + n, _ROW)
            self.add(Table(name, f"id-{name}", 1, (value,), ("id",), "avro", key))

    def row(self, table: str, id_: int, n: int, tx: str | None = None) -> None:
        """A row; of transaction *tx*, which has one in each table."""
        at = "ab".index(table)
        value = framed(100 + at, _ROW, {"id": id_, "n": n})
        self.put(table, 0, framed(200 + at, _KEY, {"id": id_}), value, Marks(tx, _BOTH) if tx else None)

    def transaction(self, tx: str, id_: int, n: int) -> None:
        self.row("a", id_, n, tx)
        self.row("b", id_, n, tx)

    def everything(self) -> Position:
        return self.ends(list(self.partitions))

    def fold(self, path: Path, *tables: str, until: Position | None = None) -> None:
        cut = BoundedLog(self, (until or self.everything()).of(set(tables)))
        store = Store(path, self.cluster_id, "g", STORE_LIMITS)
        try:
            apply_until(cut, store, tables, cut.until)
        finally:
            store.close()

    def replay(self, path: Path, table: str, to: str = "store") -> Replayed:
        source = Source(self, "the log")  # type: ignore[arg-type]  # it has at_time too
        return Replayer(path, source, STORE_LIMITS, BatchLimits()).run(Wish(table, "new", to=to, swap=True))


@both_ways
def test_a_table_that_is_followed_no_longer_holds_nothing_back(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has b up to an older offset: the rest of the transaction is not read, and nobody waits for it."""
    log, path = TwoTables(), tmp_path / "store.duckdb"
    log.transaction("t1", 1, 1)
    log.fold(path, "a", "b")
    log.transaction("t2", 2, 2)
    log.row("a", 2, 3)
    log.fold(path, "a")
    before = held(path)
    if naive:
        monkeypatch.setattr(Shadows, "settled", lambda self, lacking: set())
    with caught(naive):
        done = log.replay(path, "a")
        assert held(path) == before
        assert done.digest == done.before


@both_ways
def test_what_lies_below_the_stores_beginning_is_not_waited_for(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast the replay is: a replica asks after half a second whether it can still come."""
    log, path = TwoTables(), tmp_path / "store.duckdb"
    log.transaction("t1", 1, 1)
    log.row("b", 1, 2)
    log.row("a", 2, 1)
    log.trim("a", 0, 1)
    with Replica(path, log, "g", ["a", "b"], accept_partial=True, limits=STORE_LIMITS) as replica:
        replica.wait(log.everything())
    before = held(path)
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 1e9)
    if naive:
        monkeypatch.setattr(Shadows, "settled", lambda self, lacking: set())
    with caught(naive):
        log.replay(path, "b")
        assert held(path) == before


def test_elsewhere_a_transaction_that_the_target_cuts_in_two_stays_whole(tmp_path: Path) -> None:
    """The store has settled it at its own position, which says nothing of an earlier one."""
    log, path = TwoTables(), tmp_path / "store.duckdb"
    log.transaction("t1", 1, 1)
    log.fold(path, "a", "b")
    log.replay(path, "a", to="a/0:1,b/0:0")
    with StoreFile(path) as store:
        assert store.query("SELECT * FROM a").rows() == []


@both_ways
def test_a_table_that_was_left_out_for_a_while_is_followed_again(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a transaction that was written meanwhile, the other part is there."""
    log, path = TwoTables(), tmp_path / "store.duckdb"
    log.transaction("t1", 1, 1)
    log.fold(path, "a", "b")
    log.transaction("t2", 2, 2)
    log.fold(path, "a")
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 0.0)
    if naive:
        monkeypatch.setattr(Store, "settled", lambda self, transactions: set())
    with caught(naive), Replica(path, log, "g", ["a", "b"], limits=STORE_LIMITS) as replica:
        replica.wait(log.everything())
        assert replica.query("SELECT id FROM b ORDER BY 1").rows() == [(1,), (2,)]
        assert replica.stopped == {}


def test_what_another_replay_left_beside_is_not_read_along(tmp_path: Path) -> None:
    """The log of its tables may have lost its beginning since."""
    log, path = TwoTables(), tmp_path / "store.duckdb"
    log.row("a", 1, 1)
    log.row("b", 1, 1)
    log.fold(path, "a", "b")
    log.fold(path.with_name("store.duckdb.replaying"), "b")
    log.row("b", 2, 2)
    log.trim("b", 0, 1)
    assert {tp.topic for tp in log.replay(path, "a").read} == {"a"}
