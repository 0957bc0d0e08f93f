"""The apply loop up to a position, and no further: what a restore and a replay are made of.

The same :class:`Applier` takes the same steps as in a replica; only this drives it by hand. Invariant: when
:func:`apply_until` returns, the store's read position is the target; killed or failed before, the store is whole
at an earlier one, and the next call goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import duckdb

from ..schemas.position import Position
from .apply import Applier, BatchLimits, Settled
from .collect import MustStop
from .follow import Follow
from .log import Log
from .progress import Progress
from .store import Store
from .walk import stuck

#: How long nothing may come of a log that has more.
PATIENCE_S = 120.0


def apply_until(
    log: Log,
    store: Store,
    tables: Sequence[str],
    target: Position,
    told: Callable[[Position], None] = lambda read: None,
    batches: BatchLimits | None = None,
    patience_s: float = PATIENCE_S,
    work: str = "restore",
    settled: Settled = lambda lacking: set(),
) -> None:
    """Apply *log*, which ends at *target*, to *store*. *told* hears of each position; *settled* says what waits for
    nothing beyond.

    TableStopped if a table cannot go on; NotFreshEnough if the log brings nothing for *patience_s* seconds:
    an open transaction, mostly.
    """
    progress = Progress()
    reader = log.reader(store.group)
    follow = Follow(log, store, tables, accept_partial=False)
    applier = Applier(log, store, follow, reader, progress, batches or BatchLimits())
    try:
        applier.begin()
        moved_s, before, rested = time.monotonic(), Position(), False
        while not rested:
            read = progress.read
            if read != before:
                moved_s, before = time.monotonic(), read
                told(read)
            if time.monotonic() - moved_s > patience_s:
                raise stuck(log, work, read, target, patience_s)
            rested = _step(applier, target if read.reaches(target) else None, settled)
            for stopped in progress.stopped.values():
                raise stopped
    finally:
        applier.stop()
        reader.close()


def _step(applier: Applier, target: Position | None, settled: Settled) -> bool:
    """One turn; or, if all is read up to *target*, the last step. True if it was that, and held."""
    try:
        if target is None:
            applier.turn()
        else:
            applier.rest(target, settled)
    except duckdb.Error as error:
        applier.recover(error)  # the file may have gone back: whether all is read has to be seen again
        return False
    except MustStop as why:
        raise why.stopped[0] from why
    return target is not None
