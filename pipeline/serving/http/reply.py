"""What the door says of itself: JSON that ends its line, for who reads it in a terminal."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class Reply(JSONResponse):
    def render(self, content: Any) -> bytes:
        return super().render(content) + b"\n"
