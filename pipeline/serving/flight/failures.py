"""What a Flight client hears of an error: one line, a hint, and a status that its own language knows.

Only pyarrow's FlightErrors are raised from here to gRPC: of any other exception it sends the traceback along.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from pyarrow import flight

from ....schemas.errors import (
    MerganserError,
    NotAllowed,
    NotFreshEnough,
    QueryTimeout,
    StoreError,
    TooBusy,
)
from .messages import BadMessage

_log = logging.getLogger("merganser.serving")

F = TypeVar("F", bound=Callable[..., Any])


def flight_error(error: MerganserError) -> Any:
    """The error of pyarrow's that says the same."""
    line = " ".join(str(error).split())
    text = f"{line} (hint: {error.hint})" if error.hint else line
    match error:
        case NotAllowed():
            return flight.FlightUnauthorizedError(text)
        case NotFreshEnough() | QueryTimeout():
            return flight.FlightTimedOutError(text)
        case TooBusy() | StoreError():
            return flight.FlightUnavailableError(text)
        case _:  # a cancelled query too: of that status pyarrow's client makes a KeyboardInterrupt
            return flight.FlightServerError(text)


def answered(handler: F) -> F:
    """Whatever *handler* raises, a client gets an error that is meant for it, and the log what is not."""

    @wraps(handler)
    def call(*args: Any) -> Any:
        try:
            return handler(*args)
        except flight.FlightError:
            raise
        except MerganserError as error:
            raise flight_error(error) from None
        except BadMessage as error:
            raise flight.FlightServerError(str(error)) from None
        except Exception as error:  # noqa: BLE001  # a client gets an answer, the log the rest
            _log.error("a Flight call failed in an unforeseen way", exc_info=error)
            raise flight.FlightInternalError("the node failed on this call; its log says how") from None

    return call  # type: ignore[return-value]
