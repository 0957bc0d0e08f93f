"""What becomes of an error: a status, and one JSON object that says what failed and what to do.

    {"error": "...", "hint": "...", "code": "NotFreshEnough", "fields": {...}}

*code* is the error's name in ``merganser.errors`` and *fields* are its facts, so that a client can raise the same.
What is no error of ours is told without its text: that may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....schemas import errors
from ....schemas.errors import MerganserError

#: The first class that an error is of says its status.
_STATUS: tuple[tuple[type[MerganserError], int], ...] = (
    (errors.LoginFailed, 401),
    (errors.TooManyLogins, 429),
    (errors.Forbidden, 403),
    (errors.NotAllowed, 403),
    (errors.UnknownTable, 404),
    (errors.NotHeld, 421),
    (errors.NotFreshEnough, 504),
    (errors.QueryTimeout, 504),
    (errors.TooBusy, 503),
    (errors.TooLarge, 413),
    (errors.QueryCancelled, 503),
    (errors.UsageError, 400),
    (errors.ReadInterrupted, 503),
    (errors.LogUnavailable, 503),
    (errors.BackupBusy, 409),
    (errors.TableStopped, 503),
    (errors.StoreError, 503),
)

_SCALARS = (str, int, float, bool)


class HttpError(MerganserError):
    """What only HTTP can have wrong: *status*."""

    def __init__(self, status: int, why: str, hint: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.hint, self.headers = status, hint, dict(headers or {})


def status_of(error: BaseException) -> int:
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(error: BaseException) -> dict[str, Any]:
    """The object that tells of *error*."""
    if not isinstance(error, MerganserError):
        hint = "ask again; the node's own log says more"
        return {"error": "the node failed at this request", "hint": hint, "code": "Failed", "fields": {}}
    told = {
        "error": " ".join(str(error).split()),
        "hint": error.hint or "docs/http.md lists what may be asked",
        "code": type(error).__name__,
    }
    return {**told, "fields": _fields(error)}


def headers_of(error: BaseException) -> dict[str, str]:
    """What goes with the status."""
    if isinstance(error, HttpError):
        return error.headers
    if isinstance(error, errors.LoginFailed):
        return {"WWW-Authenticate": 'Basic realm="merganser", charset="UTF-8"'}
    if isinstance(error, errors.TooManyLogins):
        return {"Retry-After": str(max(1, round(error.retry_s)))}
    return {"Retry-After": "1"} if status_of(error) == 503 else {}


def _fields(error: MerganserError) -> dict[str, Any]:
    names = getattr(error, "__dataclass_fields__", {})
    values = {name: getattr(error, name) for name in names if name != "hint"}
    return {name: value for name, value in values.items() if isinstance(value, _SCALARS)}
