"""Small facts as files that any changed bit betrays.

One canonical JSON form: sorted names, no blanks, ASCII, a line feed at the end, and ``seal``, the SHA-256
of the rest in this form. Invariant: what :func:`unseal` takes is byte for byte what :func:`seal` makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

_SEAL = "seal"


class BrokenSeal(ValueError):
    """Bytes that :func:`seal` did not make; ``str`` says why."""


def canonical(facts: Mapping[str, Any]) -> bytes:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii") + b"\n"


def seal(facts: Mapping[str, Any]) -> bytes:
    """*facts* as bytes that say so themselves if they are changed."""
    return canonical({**facts, _SEAL: sha256(canonical(facts)).hexdigest()})


def unseal(data: bytes) -> dict[str, Any]:
    """The facts in *data*; BrokenSeal if they are not as they were written."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenSeal("it is no JSON, or was cut off") from None
    if not isinstance(facts, dict) or _SEAL not in facts:
        raise BrokenSeal("it has no seal")
    if canonical(facts) != data:
        raise BrokenSeal("it was changed, or is not canonical")
    if facts.pop(_SEAL) != sha256(canonical(facts)).hexdigest():
        raise BrokenSeal("it was changed")
    return facts
