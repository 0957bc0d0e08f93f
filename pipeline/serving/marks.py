"""What the schema of an answer in Arrow says beside its columns, as metadata: over HTTP and over Flight SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from ...schemas.position import Position

#: A JSON array: what SQL calls the types of the columns.
TYPES = b"merganser:types"

#: Where the rows were read, and which tokens they include.
POSITION, APPLIED = b"merganser:position", b"merganser:applied"


def marked(schema: pa.Schema, types: Sequence[str], position: Position, applied: Position) -> pa.Schema:
    """*schema*, which says all of this."""
    about = {
        TYPES: json.dumps(list(types)).encode(),
        POSITION: str(position).encode(),
        APPLIED: str(applied).encode(),
    }
    return schema.with_metadata({**(schema.metadata or {}), **about})
