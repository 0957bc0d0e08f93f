"""Reads that ask for freshness, once the log is no longer the one that the store is of (FAILURES 17, 18, 23)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import merganser as mg
from merganser.schemas.errors import PartitionsChanged, TopicRecreated, UsageError
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import SchemaVersion, Table, value_subject
from stories.world import STORE_LIMITS
from support.fakelog import FakeLog
from support.frames import framed
from support.waiting import wait_for

_ROW = {"type": "record", "name": "row", "fields": [{"name": "n", "type": "long"}]}

Read = Callable[[mg.Replica], Any]


@pytest.fixture
def log() -> FakeLog:
    log = FakeLog()
    for id_, name in enumerate(("here", "there"), 1):
        log.add(Table(name, f"id-{name}", 1, (SchemaVersion(value_subject(name), 1, id_, _ROW),)))
        write(log, name, *range(10))
    return log


@pytest.fixture
def replica(log: FakeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mg.Replica]:
    monkeypatch.setattr("merganser.consumers.apply._LOOK_S", 0.5)
    with mg.Replica(tmp_path / "r.duckdb", log, "g", ["here", "there"], limits=STORE_LIMITS) as replica:
        replica.wait("here/0:10,there/0:10")
        yield replica


def write(log: FakeLog, name: str, *numbers: int) -> None:
    for n in numbers:
        log.put(name, 0, None, framed(log.tables[name].values[0].id, _ROW, {"n": n}))


def strong(replica: mg.Replica) -> list[Any]:
    return replica.query("SELECT max(n) FROM here", level="strong", timeout=20).rows()


def bounded(replica: mg.Replica) -> list[Any]:
    return replica.query("SELECT max(n) FROM here", max_staleness=0.001, timeout=20).rows()


def by_token(replica: mg.Replica) -> list[Any]:
    return replica.query("SELECT max(n) FROM here", after="here/0:1").rows()


@pytest.mark.parametrize("read", [strong, bounded])
def test_a_topic_that_began_again_with_less_is_noticed_by_the_read(
    log: FakeLog, replica: mg.Replica, read: Read
) -> None:
    """Its end lies below what is applied, so waiting for it is no proof."""
    assert read(replica) == [(9,)]
    log.recreate("here")
    write(log, "here", 1000)
    with pytest.raises(TopicRecreated):
        read(replica)


@pytest.mark.parametrize("read", [strong, bounded, by_token])
def test_no_read_proves_its_freshness_by_another_log(log: FakeLog, replica: mg.Replica, read: Read) -> None:
    log.recreate("here")
    write(log, "here", 1000)
    wait_for("the table to stop", lambda: "here" in replica.stopped)
    with pytest.raises(TopicRecreated):
        read(replica)
    with pytest.raises(TopicRecreated):
        replica.wait("here/0:1")
    assert replica.query("SELECT max(n) FROM here").rows() == [(9,)]  # what is here can still be read
    assert replica.query("SELECT max(n) FROM there", level="strong").rows() == [(9,)]


def test_no_outcome_is_told_by_another_log(log: FakeLog, replica: mg.Replica) -> None:
    log.recreate("here")
    write(log, "here", 1000)  # it might be of the transaction that is asked for
    assert replica.outcome("tx-1").state == "in-doubt"


@pytest.mark.parametrize("read", [strong, bounded])
def test_rows_of_an_added_partition_are_not_missed_in_silence(log: FakeLog, replica: mg.Replica, read: Read) -> None:
    log.tables["here"] = replace(log.tables["here"], partitions=2)
    log.partitions[TopicPartition("here", 1)], log.start[TopicPartition("here", 1)] = [], 0
    log.put("here", 1, None, framed(1, _ROW, {"n": 1000}))
    wait_for("the table to stop", lambda: "here" in replica.stopped)
    with pytest.raises(PartitionsChanged):
        read(replica)
    assert by_token(replica) == [(9,)]  # that log is the same one, and the token means what it meant


def test_outcomes_of_what_lies_below_the_beginning_of_a_store_are_not_known(log: FakeLog, tmp_path: Path) -> None:
    log.trim("here", 0, 4)

    class Known:
        def __init__(self, end: int, id_: str | None = None) -> None:
            self.position, self.id = Position({TopicPartition("here", 0): end}), id_

    with mg.Replica(tmp_path / "r.duckdb", log, "g", ["here"], accept_partial=True, limits=STORE_LIMITS) as replica:
        for asked in ("tx-1", Known(4, "tx-1"), Known(4)):
            assert replica.outcome(asked).state == "in-doubt"
        assert replica.outcome(Known(5, "tx-1")).state == "rejected"
        assert replica.outcome(Known(5)).state == "applied"


def test_an_empty_transaction_was_applied(replica: mg.Replica) -> None:
    class Empty:
        position, id = Position(), "tx-1"

    assert replica.outcome(Empty()).state == "applied"
    assert replica.outcome("tx-1").state == "rejected"  # an id alone does not say that


def test_what_is_no_token_is_refused_with_a_way(replica: mg.Replica) -> None:
    class Write:
        position = Position({TopicPartition("here", 0): 1})

    with pytest.raises(UsageError, match=r"is no token: give its \.position"):
        replica.query("SELECT 1", after=Write())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="5 is no token"):
        replica.query("SELECT 1", after=5)  # type: ignore[arg-type]
