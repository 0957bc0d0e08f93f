"""Runs :mod:`escapes` through a door, whichever it is, and looks that nothing came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from merganser.pipeline.serving.guard.ask import ServingLimits
from serving.escapes import BOUNDED, REFUSED, UNGRANTED, Escape
from serving.world import MARKER, World

#: Small, so that what is endless ends soon.
LIMITS = ServingLimits(query_s=0.5, growth=400 * 2**20, answer_bytes=8 * 2**20, answer_rows=300_000)

#: The same for what has to be answered, however busy the machine is.
PATIENT = replace(LIMITS, query_s=60)

GROUPS = {name: list(found) for name, found in groupby([*REFUSED, *BOUNDED, *UNGRANTED], lambda e: e.group)}

#: One query: its rows, or whatever the door raises.
Door = Callable[[str], pa.Table]


def assault(
    world: World, door: Door, escapes: Iterable[Escape], *, refused: bool, more: dict[str, str] | None = None
) -> int:
    """Send each of *escapes*; how many were refused. The store, the files and the network are as before, no answer
    and no error has the secret in it, and the replica goes on."""
    names = {**world.says(), **(more or {})}
    before, count = world.state(), 0
    for escape in escapes:
        sql = escape.sql.format(**names)
        said = attempt(door, sql)
        assert MARKER not in str(said), f"{escape.group}: {sql[:200]!r} has shown the secret"
        if isinstance(said, Exception):
            assert not isinstance(said, (ValueError, TypeError, KeyError, RecursionError)), f"{sql[:200]!r}: {said!r}"
            assert "its log says how" not in str(said), f"{sql[:200]!r} was not foreseen"
            assert "Traceback" not in str(said) and "\n" not in str(said).strip(), f"{sql[:200]!r}: {said}"
            assert str(world.path.parent) not in _unsaid(str(said), sql), f"{sql[:200]!r} has shown a path: {said}"
            count += 1
        else:
            assert not refused, f"{escape.group}: {sql[:200]!r} gave {str(said)[:200]}"
            assert str(world.path.parent) not in _unsaid(str(said), sql), f"{sql[:200]!r} has shown a path"
    assert world.state() == before
    world.goes_on(10_000_001)
    return count


def _unsaid(text: str, sql: str) -> str:
    """*text* without the paths that the statement brought along itself."""
    for word in sql.replace("'", " ").replace('"', " ").split():
        if "/" in word:
            text = text.replace(word, "")
    return text


def attempt(door: Door, sql: str) -> Any:
    try:
        return door(sql).to_pylist()
    except Exception as error:
        return error
