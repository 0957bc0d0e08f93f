"""Hostile SQL through the guard itself: it gets nowhere, whichever layer is to stop it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from merganser.pipeline.serving.guard.ask import Ask
from merganser.pipeline.serving.guard.guard import Guard
from serving.escapes import BOUNDED, REFUSED, UNGRANTED, Escape
from serving.hostile import GROUPS, Door, assault
from serving.world import MARKER, ORDERS, World


def through(guard: Guard, tables: frozenset[str] | None = None) -> Door:
    def door(sql: str) -> pa.Table:
        some_udf = local_rows = secret_rows = pa.table({"a": [MARKER]})  # noqa: F841  # not to be found by SQL
        with guard.ask(Ask(sql), tables=tables) as answer:
            return answer.table()

    return door


def _of(escapes: list[Escape]) -> list[str]:
    return list(dict.fromkeys(escape.group for escape in escapes))


def test_there_are_enough_of_them() -> None:
    assert len({escape.sql for escape in REFUSED}) >= 300
    assert len({escape.sql for escape in UNGRANTED}) >= 70


@pytest.mark.parametrize("group", _of(REFUSED))
def test_hostile_sql_is_refused(group: str, served: World, hasty: Guard) -> None:
    assault(served, through(hasty), GROUPS[group], refused=True)


@pytest.mark.parametrize("group", _of(BOUNDED))
def test_what_only_looks_hostile_changes_nothing(group: str, served: World, guard: Guard) -> None:
    refused = assault(served, through(guard), GROUPS[group], refused=False)
    assert refused <= 2  # error() and what DuckDB itself does not like


@pytest.mark.parametrize("group", _of(UNGRANTED))
def test_a_table_without_a_grant_is_not_read_in_any_way(group: str, served: World, hasty: Guard) -> None:
    assault(served, through(hasty, frozenset({ORDERS})), GROUPS[group], refused=True)
