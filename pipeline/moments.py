"""Times, as options spell them."""

from __future__ import annotations

import re
from datetime import datetime

from ..schemas.errors import UsageError

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}")


def is_time(text: str) -> bool:
    """True if *text* is meant as a time."""
    return _TIME.match(text) is not None


def time_ms(text: str) -> int:
    """The time that *text* spells, in milliseconds since 1970; UsageError if it spells none, or one of no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"not a time: {text!r}; it reads like 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise UsageError(f"time {text!r} has no zone: end it with Z for UTC, or with an offset like +01:00")
    # Up: a record counts from the first whole millisecond at or after the time.
    return -int(-time.timestamp() * 1000 // 1)
