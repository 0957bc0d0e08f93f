"""``/tables``: what may be read here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from ....schemas.errors import UnknownTable
from ..users.users import User
from .reply import Reply

if TYPE_CHECKING:
    from .app import Desk


async def all_tables(desk: Desk, request: Request, user: User) -> Response:
    return Reply({"tables": await asyncio.to_thread(_tables, desk, user)})


async def one_table(desk: Desk, request: Request, user: User) -> Response:
    name = request.path_params["table"]
    for table in await asyncio.to_thread(_tables, desk, user):
        if table["table"] == name:
            return Reply(table)
    raise UnknownTable(name, hint="GET /tables lists those that you may read")


def _tables(desk: Desk, user: User) -> list[dict[str, Any]]:
    return [
        {
            "table": table.full_name,
            "key": list(table.key),
            "columns": [{"name": name, "type": type_} for name, type_ in table.columns],
        }
        for table in desk.guard.tables(user.tables)
    ]
