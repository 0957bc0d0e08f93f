"""Parameters of a query as JSON, both ways.

Numbers, text, booleans, null and arrays are what they are; any other type is spelled
``{"type": "DATE", "value": "2026-01-31"}``. Needs neither DuckDB nor Arrow: clients have this too.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ...schemas.errors import UsageError

#: A query's parameters, at most.
MOST = 10_000

#: Python's times end at microseconds, and drop what is beyond.
_NANOSECONDS = re.compile(r"[.,]\d{6}\d*[1-9]")


def params_of(given: Any) -> Sequence[Any] | Mapping[str, Any] | None:
    """The parameters that *given*, as JSON has them, are: an array for ``?`` and ``$1``, an object for ``$name``.
    UsageError."""
    if given is None:
        return None
    if isinstance(given, (list, dict)) and len(given) > MOST:
        raise UsageError(f"{len(given)} parameters, {MOST} at most")
    try:
        if isinstance(given, list):
            return [_param(f"parameter {number}", value) for number, value in enumerate(given, 1)]
        if isinstance(given, dict):
            return {name: _param(f"parameter ${name}", value) for name, value in given.items()}
    except RecursionError:
        raise UsageError("a parameter is nested too deeply") from None
    raise UsageError("params are an array, or an object of names")


def _param(what: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_param(what, item) for item in value]
    if isinstance(value, float) and math.isinf(value):  # JSON has no infinity: it was a number
        raise UsageError(f"{what} is a number beyond those of DOUBLE")
    if not isinstance(value, dict):
        return value
    kind, text = value.get("type"), value.get("value")
    if set(value) != {"type", "value"} or kind not in _TYPED:
        raise UsageError(f'{what}: an object is {{"type": T, "value": V}}, T one of {", ".join(_TYPED)}')
    if text is None:
        return None
    if kind in ("TIME", "TIMESTAMP") and isinstance(text, str) and _NANOSECONDS.search(text):
        raise UsageError(f"{what}: a {kind} ends at microseconds; send it as text, and CAST(? AS {kind}_NS)")
    try:
        if kind == "STRUCT":
            return {str(name): _param(what, item) for name, item in text.items()}
        return _TYPED[kind](text)
    except (ValueError, TypeError, ArithmeticError, AttributeError, binascii.Error):
        raise UsageError(f"{what}: {str(text)[:40]!r} is no {kind}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or len(str(value)) > 40:
        raise ValueError
    return int(value)


def _decimal(value: Any) -> Decimal:
    if not isinstance(value, str) or len(value) > 80:
        raise ValueError
    found = Decimal(value)
    if not found.is_finite() or abs(found.adjusted()) > 76:  # written out it might fill the memory
        raise ValueError
    _, digits, exponent = found.as_tuple()
    places = -int(exponent)
    if (places + 1 if places > len(digits) else len(digits) - min(0, places)) > 38:  # DuckDB would make it a DOUBLE
        raise ValueError
    return found


def _blob(value: Any) -> bytes:
    return base64.b64decode(value, validate=True)


_TYPED: dict[str, Callable[[Any], Any]] = {
    "BIGINT": _whole,
    "HUGEINT": _whole,
    "DOUBLE": float,
    "DECIMAL": _decimal,
    "BLOB": _blob,
    "UUID": uuid.UUID,
    "DATE": dt.date.fromisoformat,
    "TIME": dt.time.fromisoformat,
    "TIMESTAMP": dt.datetime.fromisoformat,
    "STRUCT": dict,
}


def spelled(value: Any) -> Any:
    """The way back: a parameter of Python as JSON. UsageError."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else {"type": "HUGEINT", "value": str(value)}
        case float():
            return value if math.isfinite(value) else {"type": "DOUBLE", "value": str(value)}
        case Decimal():
            return {"type": "DECIMAL", "value": f"{value:f}"}
        case bytes() | bytearray() | memoryview():
            return {"type": "BLOB", "value": base64.b64encode(value).decode()}
        case uuid.UUID():
            return {"type": "UUID", "value": str(value)}
        case dt.datetime():
            return {"type": "TIMESTAMP", "value": value.isoformat()}
        case dt.date():
            return {"type": "DATE", "value": value.isoformat()}
        case dt.time():
            return {"type": "TIME", "value": value.isoformat()}
        case Mapping():
            return {"type": "STRUCT", "value": {str(name): spelled(item) for name, item in value.items()}}
        case list() | tuple():
            return [spelled(item) for item in value]
    error = UsageError(f"a parameter of type {type(value).__name__} cannot be sent")
    if isinstance(value, dt.timedelta):
        error.hinted("send text, and CAST(? AS INTERVAL); or seconds, and to_seconds(?)")
    raise error
