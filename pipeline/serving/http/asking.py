"""A request as what it asks for. Pure.

Invariant: what is not understood is refused by name (400, 406, 413, 415), never passed over: a level that was
spelled wrong would otherwise be answered with older rows than were asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....consumers.asked import level_named
from ....schemas.errors import UsageError
from ..guard.ask import Ask, seconds
from ..params import params_of
from .accept import MEDIA_TYPES, encoding_of, format_of
from .problems import HttpError

#: What a query may say of itself: as a header, in a query string, or beside ``sql`` in a JSON body.
LEVEL, AFTER, MAX_STALENESS, TIMEOUT = (
    "Merganser-Level",
    "Merganser-After",
    "Merganser-Max-Staleness",
    "Merganser-Timeout",
)
POSITION, APPLIED = "Merganser-Position", "Merganser-Applied"

_HEADERS = {"level": LEVEL, "after": AFTER, "max_staleness": MAX_STALENESS, "timeout": TIMEOUT}
_KNOWN = {"sql", "params", *_HEADERS}

#: A body beyond this holds no question: it is ten times the longest SQL, and JSON is read in one step.
LARGEST_BODY = 2 * 2**20

_HINT = "docs/http.md shows what a query may say"


@dataclass(frozen=True)
class Request:
    """What came in. Names of headers are lower case."""

    method: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Asked:
    """What is to be answered, and in which form."""

    ask: Ask
    format: str
    encoding: str | None


def asked(request: Request) -> Asked:
    """What *request* to ``/query`` asks for. HttpError, UsageError."""
    said = _query_string(request.query)
    form = said.pop("format", None)
    if request.method == "POST":
        _merge(said, _body(request), "in the query string and in the body")
    known = {header.lower() for header in _HEADERS.values()}
    for header in request.headers:
        if header.startswith("merganser-") and header not in known:
            raise HttpError(400, f"unknown header {header[:40]!r}", _HINT)
    for name, header in _HEADERS.items():
        if header.lower() in request.headers:
            _merge(said, {name: request.headers[header.lower()]}, "as a header and otherwise")
    if not isinstance(said.get("sql"), str) or not said["sql"].strip():
        raise HttpError(400, "there is no SQL", "GET /query?sql=…, or POST it")
    ask = Ask(
        said["sql"],
        params_of(said.get("params")),
        level_named(said.get("level", "eventual")),
        _text("after", said.get("after")),
        seconds("max_staleness", said.get("max_staleness")),
        seconds("timeout", said.get("timeout")) or Ask.timeout,
    )
    return Asked(ask, _format(form, request.headers), encoding_of(request.headers.get("accept-encoding")))


def once(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """*headers* by name. HttpError if one of ours comes twice."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("merganser-") and name in found:
            raise HttpError(400, f"the header {name[:40]!r} comes twice", "say it once")
        found.setdefault(name, value)
    return found


# -- where it is said ------------------------------------------------------------------------


def _query_string(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _KNOWN | {"format"}:
            raise HttpError(400, f"unknown parameter {name[:40]!r} in the query string", _HINT)
        _merge(said, {name: value}, "twice in the query string")
    if "params" in said:
        said["params"] = loads(said["params"], "params")
    return said


def _body(request: Request) -> dict[str, Any]:
    kind, _, _ = request.headers.get("content-type", "").lower().partition(";")
    match kind.strip():
        case "application/json":
            found = loads(request.body, "the body")
            if not isinstance(found, dict):
                raise HttpError(400, "the body is not a JSON object", '{"sql": "select 1"}')
            for name in found:
                if name not in _KNOWN:
                    raise HttpError(400, f"unknown key {name[:40]!r} in the body", _HINT)
            return found
        case "application/sql" | "text/plain":
            try:
                return {"sql": request.body.decode()} if request.body else {}
            except UnicodeDecodeError:
                raise HttpError(400, "the body is not UTF-8", _HINT) from None
        case "" if not request.body:
            return {}
    hint = "application/json, application/sql or text/plain"
    raise HttpError(415, f"a body of type {kind[:60] or 'nothing'!r} is not read", hint)


def _merge(said: dict[str, Any], more: Mapping[str, Any], how: str) -> None:
    for name, value in more.items():
        if name in said:
            raise HttpError(400, f"{name!r} is said {how}", "say it once")
        said[name] = value


def loads(text: str | bytes, what: str) -> Any:
    """JSON. HttpError if it is none, or says a name twice, or a number that is none."""
    try:
        return json.loads(text, object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
    except RecursionError:
        why = "nested too deeply"
    except ValueError as error:
        why = str(error)
    raise HttpError(400, f"{what}: no JSON: {why}", _HINT)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is no JSON: {{"type": "DOUBLE", "value": "{name}"}}')


# -- what is said ----------------------------------------------------------------------------


def _format(named: Any, headers: Mapping[str, str]) -> str:
    if named is not None:
        if named not in MEDIA_TYPES:
            raise HttpError(400, f"unknown format {str(named)[:40]!r}", f"one of {', '.join(MEDIA_TYPES)}")
        return str(named)
    found = format_of(headers.get("accept"))
    if found is None:
        raise HttpError(
            406, "none of the accepted media types is offered", ", ".join(t[0] for t in MEDIA_TYPES.values())
        )
    return found


def _text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise UsageError(f"{name} is text, not {str(value)[:40]!r}")
