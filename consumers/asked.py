"""How a query may be asked: its level and its parameters. Needs neither DuckDB nor Arrow: clients have this too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

from ..schemas.errors import UsageError

Level = Literal["eventual", "session", "bounded", "strong"]
Params = Sequence[Any] | Mapping[str, Any] | None


def level_named(name: object) -> Level:
    """The level of that *name*. UsageError."""
    if name not in get_args(Level):
        raise UsageError(f"unknown level {str(name)[:40]!r}: one of {', '.join(get_args(Level))}")
    return cast(Level, name)


def check_level(level: Level, max_staleness: float | None) -> Level:
    """The level that is asked for: a *max_staleness* alone asks for ``bounded``. UsageError."""
    level = level_named(level)
    if level == "eventual" and max_staleness is not None:
        level = "bounded"
    if level == "bounded" and (max_staleness is None or not max_staleness > 0):
        raise UsageError(f"level 'bounded' needs max_staleness, in seconds above 0; got {max_staleness!r}")
    if level != "bounded" and max_staleness is not None:
        raise UsageError(f"max_staleness is of level 'bounded', not {level!r}")
    return level


def check_params(params: object) -> None:
    """UsageError if *params* are a value by itself: text and bytes would be taken for a list of their characters."""
    if params is None or (isinstance(params, Iterable) and not isinstance(params, (str, bytes, bytearray))):
        return
    raise UsageError(
        f"params are a list of values for `?`, or a mapping of names for `$name`; got {str(params)[:40]!r}"
    )
