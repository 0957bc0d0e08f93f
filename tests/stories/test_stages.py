"""A replica far behind decodes several times a batch: what it comes to is the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merganser.consumers.apply import BatchLimits
from merganser.schemas.headers import Marks
from merganser.schemas.table import SchemaVersion, Table
from stories.world import replica
from support.fakelog import FakeLog
from support.frames import framed

_ROW: dict[str, Any] = {"type": "record", "name": "row", "fields": [{"name": "id", "type": "long"}]}


@pytest.mark.parametrize("polled", [1, 1000])
def test_an_operation_is_applied_once_though_its_repetition_is_in_the_same_batch(polled: int, tmp_path: Path) -> None:
    log = FakeLog()
    log.add(Table("c", "id-c", 1, (SchemaVersion("c-value", 1, 1, _ROW),)))
    for n in range(12):  # every sixth is operation "x"
        log.put("c", 0, None, framed(1, _ROW, {"id": n}), Marks(ops=("x" if n % 6 == 0 else f"op{n}",)))
    world: Any = SimpleNamespace(log=log)
    limits = BatchLimits(records=1000, linger_ms=0, poll_records=polled)
    with replica(world, tmp_path / "r.duckdb", limits) as opened:
        opened.loop.begin()
        while opened.loop._commit is None:  # nothing is handed over before all is read
            opened.loop.turn()
        opened.loop.flush()
        with opened.store.reading(1) as cursor:
            assert cursor.execute("SELECT sum(repeated) FROM _merganser.positions").fetchall() == [(1,)]
            assert cursor.execute("SELECT count(*) FROM c").fetchall() == [(11,)]
