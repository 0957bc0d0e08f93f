"""How long may be waited is one rule, whichever door it is said at, and however."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from merganser.pipeline.serving.flight.server import fresh
from merganser.pipeline.serving.guard.ask import Ask
from merganser.pipeline.serving.http.asking import Request, asked
from merganser.schemas.errors import UsageError

SQL = ("sql", "select 1")

WAYS: dict[str, Callable[[str, str], Ask]] = {
    "a header of Flight": lambda name, text: fresh(Ask("select 1"), {f"merganser-{name}": text, **_level(name)}),
    "a header of HTTP": lambda name, text: (
        asked(Request("GET", [SQL], {f"merganser-{name}": text, **_level(name)})).ask
    ),
    "a query string": lambda name, text: asked(Request("GET", [SQL, (name.replace("-", "_"), text)], _level(name))).ask,
}


def _level(name: str) -> dict[str, str]:
    return {"merganser-level": "bounded"} if name == "max-staleness" else {}


@pytest.mark.parametrize("name", ["timeout", "max-staleness"])
@pytest.mark.parametrize("way", WAYS)
def test_seconds_are_read_alike(way: str, name: str) -> None:
    for text in ("0.001", "1", "30.5", "1e3", "86400"):
        assert getattr(WAYS[way](name, text), name.replace("-", "_")) == float(text)
    for text in ("0", "-1", "86400.1", "1e8", "1e999", "nan", "inf", "soon", "1 s"):
        with pytest.raises(UsageError, match="up to a day"):
            WAYS[way](name, text)
