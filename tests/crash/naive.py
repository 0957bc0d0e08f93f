"""Stores that are wrong on purpose, as first versions are: the check has to catch each."""

from __future__ import annotations

from merganser.consumers import ledger
from merganser.consumers.batch import Batch
from merganser.consumers.rows import write_rows
from merganser.consumers.store import Store


def _rows_first(self: Store, batch: Batch, confirm: object = None) -> None:
    """The rows in one transaction, the offsets in the next: a crash in between applies twice."""
    _rows(self, batch)
    _offsets(self, batch)
    self._step("committed")


def _offsets_first(self: Store, batch: Batch, confirm: object = None) -> None:
    """The other way round: a crash in between loses rows."""
    _offsets(self, batch)
    _rows(self, batch)
    self._step("committed")


def _rows(store: Store, batch: Batch) -> None:
    for change in batch.changes:
        store._change_schema(change)
    tables = [part.rows() for stage in batch.stages for part in stage.tables]
    with store._transaction():
        store._step("begun")
        for rows in tables:
            write_rows(store._con, rows, store._step)
        ledger.quarantine(store._con, batch.poison)
        store._step("quarantined")


def _offsets(store: Store, batch: Batch) -> None:
    with store._transaction():
        store._move(batch)
        store._step("moved")


_APPLY = {"rows-first": _rows_first, "offsets-first": _offsets_first}

VARIANTS = tuple(_APPLY)


def install(variant: str) -> None:
    """Make every Store of this process the naive one."""
    Store.apply = _APPLY[variant]  # type: ignore[method-assign]
