"""The default limits, a hundredth of each: what is decoded together must leave room for what is held back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merganser.consumers.apply import BatchLimits
from merganser.consumers.dbfile import Limits
from merganser.schemas.headers import Marks
from merganser.schemas.position import TopicPartition
from merganser.schemas.table import SchemaVersion, Table
from stories.test_atomicity import OneAfterTheOther
from stories.world import replica
from support.fakelog import FakeLog
from support.frames import framed

_ROW: dict[str, Any] = {"type": "record", "name": "row", "fields": [{"name": "b", "type": "bytes"}]}
_KEY = SchemaVersion("c-key", 1, 2, {**_ROW, "name": "k"})
PARTS = 100


@pytest.mark.parametrize("large", ["values", "keys"])
def test_uneven_partitions_do_not_fill_pending(large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merganser.consumers.apply._CLOSE_S", 0.0)
    monkeypatch.setattr(FakeLog, "reader", lambda self, group: OneAfterTheOther(self))
    monkeypatch.setattr(
        "stories.world.STORE_LIMITS", Limits(head_room=0, pending_bytes=Limits().pending_bytes // PARTS)
    )
    log = FakeLog()
    keyed: Any = (("b",), "avro", _KEY) if large == "keys" else ()
    log.add(Table("c", "id-c", 2, (SchemaVersion("c-value", 1, 1, _ROW),), *keyed))
    one, two = TopicPartition("c", 0), TopicPartition("c", 1)
    for n in range(4000):
        key, value = None, framed(1, _ROW, {"b": b"x" * 1500})
        if large == "keys":
            key, value = framed(2, dict(_KEY.schema), {"b": b"%05d" % n * 300}), None
        alone = n < 1278 and n % 20 < 12  # of what a whole limit would take in, less than half is held
        log.put("c", 0, key, value, None if alone else Marks(f"t{n}", {one: 1, two: 1}))
        if not alone:
            log.put("c", 1, key, value, Marks(f"t{n}", {one: 1, two: 1}))
    limits = BatchLimits()
    limits = BatchLimits(
        limits.records // PARTS, limits.bytes // PARTS, 0, limits.poll_records // PARTS, limits.poll_bytes // PARTS
    )
    world: Any = SimpleNamespace(log=log)
    with replica(world, tmp_path / "r.duckdb", limits) as opened:
        opened.loop.begin()
        while not opened.progress.read.reaches(log.ends(list(log.partitions))):
            opened.loop.turn()
            assert not opened.progress.stopped


def test_what_waits_for_an_open_transaction_keeps_no_other_topic_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half of each transaction is hidden behind an open one: the other halves fill pending up to where reading
    pauses. A topic that has nothing to do with them is read on."""
    monkeypatch.setattr(
        "stories.world.STORE_LIMITS", Limits(head_room=0, pending_bytes=Limits().pending_bytes // PARTS)
    )
    log = FakeLog()
    for name in ("c", "free"):
        log.add(Table(name, f"id-{name}", 2, (SchemaVersion(f"{name}-value", 1, 1, _ROW),)))
    one, two = TopicPartition("c", 0), TopicPartition("c", 1)
    value = framed(1, _ROW, {"b": b"x" * 1500})
    for n in range(2000):
        for p in (0, 1):
            log.put("c", p, None, value, Marks(f"t{n}", {one: 1, two: 1}))
    log.stable[two] = 0
    limits = BatchLimits(linger_ms=0, poll_records=100, poll_bytes=40_000)
    world: Any = SimpleNamespace(log=log)
    with replica(world, tmp_path / "r.duckdb", limits) as opened:
        opened.loop.begin()
        for _ in range(300):
            opened.loop.turn()
        assert opened.progress.read[one] < 2000 and not opened.progress.stopped  # it pauses before the limit
        for n in range(20):
            log.put("free", n % 2, None, value)
        for _ in range(100):
            opened.loop.turn()
        opened.loop.flush()
        assert opened.progress.applied.reaches(log.ends([tp for tp in log.partitions if tp.topic == "free"]))
        del log.stable[two]
        while not opened.progress.applied.reaches(log.ends(list(log.partitions))):
            opened.loop.turn()
            assert not opened.progress.stopped
