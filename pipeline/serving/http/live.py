"""``/live``: what the page of a node shows, in one cheap answer, so that it may be asked each second."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from ....schemas.errors import UnknownTable
from ..monitoring.figures import Figures
from ..users.users import User
from .health import facts
from .problems import HttpError
from .reply import Reply

if TYPE_CHECKING:
    from .app import Desk


async def live(desk: Desk, request: Request, user: User) -> Response:
    """The status, the figures of each table, and the samples after ``since``. With ``table``, its partitions too."""
    since_s = _seconds(request.query_params.get("since", "0"))
    told = told_of(desk, user, await asyncio.to_thread(desk.counting.figures), since_s)
    table = request.query_params.get("table")
    if table is not None:
        told["partitions"] = _partitions(desk, table, user)
    return Reply(told)


def told_of(desk: Desk, user: User, figures: Figures, since_s: float) -> dict[str, Any]:
    told = facts(desk, user, figures)
    del told["position"], told["applied"]  # of all partitions: /position has them
    behind, counts = desk.lookout.behind(), desk.guard.counts()
    for table in told["tables"]:
        name = table["table"]
        table |= figures.tables.get(name, {})
        # At the last look, not as the position is now: a replica in a steady stream is behind by some.
        table["lag"] = None if behind is None else sum(n for tp, n in behind.items() if tp.topic == name)
    lags = [table["lag"] for table in told["tables"]]
    return {
        **told,
        "lag": None if None in lags else sum(lags),
        "began": f"{desk.began_s:.6f}",
        "now_s": round(time.monotonic(), 3),
        "figures_s": round(time.monotonic() - figures.at_s, 3) if figures.at_s else None,
        "pulse": desk.pulse.since(since_s, user.may_read),
        "queries": {name: getattr(counts, name) for name in ("answered", "running", "waiting")},
        "user": {"name": user.name, "role": user.role, "reads_all": user.tables is None},
    }


def _partitions(desk: Desk, table: str, user: User) -> list[dict[str, Any]]:
    read, applied, ends = desk.replica.read_position, desk.replica.position, desk.lookout.sight.ends
    held = sorted(tp for tp in read if tp.topic == table)
    if not held or not user.may_read(table):
        raise UnknownTable(table, hint="GET /tables lists those that you may read")
    return [
        {
            "partition": tp.partition,
            "read": read[tp],
            "applied": applied.get(tp, read[tp]),
            "end": max(ends[tp], read[tp]) if tp in ends else None,
        }
        for tp in held
    ]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HttpError(400, f"since is a number of seconds, not {text[:40]!r}", "as now_s of the answer before said")
    return value
