"""What a browser gets: the page of the node, and the description of this door. Nothing comes from elsewhere.

The files of ``pipeline/serving/page`` are served at ``/`` as they are. They hold no data: what they show they ask for
as any client does, so who may come in is decided there.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .openapi import document
from .reply import Reply

if TYPE_CHECKING:
    from .app import Desk

FOLDER = Path(__file__).parent.parent / "page"

#: Scripts and styles of the node itself; no frame around it, nothing from elsewhere.
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

_PAGE_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


class Guarded:
    """An application whose answers have the headers of a page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_PAGE_HEADERS]
            await send(message)

        await self._app(scope, receive, sending)


async def openapi(desk: Desk, request: Request) -> Response:
    return Reply(document())


async def docs(desk: Desk, request: Request) -> Response:
    headers = {name.decode(): value.decode() for name, value in _PAGE_HEADERS}
    return HTMLResponse(page_of(document()), headers=headers)


def page_of(api: dict[str, Any]) -> str:
    """An OpenAPI document as a page."""
    parts = [f"<h1>{escape(api['info']['title'])}</h1>", _text(api["info"]["description"])]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation, api["components"]["parameters"]))
    return _PAGE.format(title=escape(api["info"]["title"]), body="\n".join(parts))


def _operation(method: str, path: str, operation: dict[str, Any], known: dict[str, Any]) -> str:
    parts = [f"<section><h2><code>{method} {escape(path)}</code> {escape(operation['summary'])}</h2>"]
    parts.append(_text(operation.get("description", "")))
    given = [known[p["$ref"].rpartition("/")[2]] if "$ref" in p else p for p in operation.get("parameters", ())]
    if given:
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code></td><td>{p['in']}</td><td>{escape(p['description'])}</td></tr>"
            for p in given
        )
        parts.append(f"<table><tr><th>name</th><th>in</th><th></th></tr>{rows}</table>")
    if "requestBody" in operation:
        types = ", ".join(f"<code>{escape(t)}</code>" for t in operation["requestBody"]["content"])
        parts.append(f"<p>Body: {types}</p>")
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    parts.append(f"<table><tr><th>status</th><th></th></tr>{rows}</table></section>")
    return "\n".join(parts)


def _text(text: str) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/style.css">
<main>
{body}
</main>
</html>
"""
