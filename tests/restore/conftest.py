"""Towns: a log, its archive, backups. Tests that only restore share one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from merganser.schemas.position import Position
from restore.town import Town
from stories.txworld import TxWorld


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Transactions that interleave, conditions, operation ids; two full backups and an incremental one."""
    town = Town(TxWorld(5, transactions=40), tmp_path_factory.mktemp("town"))
    town.apply(halfway(town.ends, 2, 5))
    town.back_up()
    town.apply(halfway(town.ends, 3, 5))
    town.back_up()
    town.apply(halfway(town.ends, 4, 5))
    town.back_up("incr")
    town.archive_up_to(town.ends)
    yield town


def halfway(ends: Position, part: int, of: int) -> Position:
    return Position({tp: end * part // of for tp, end in ends.items()})
