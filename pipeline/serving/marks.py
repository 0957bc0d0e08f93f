"""What the schema of an answer in Arrow says beside its columns, as metadata."""

from __future__ import annotations

#: A JSON array: what SQL calls the types of the columns.
TYPES = b"merganser:types"

#: Where the rows were read, and which tokens they include.
POSITION, APPLIED = b"merganser:position", b"merganser:applied"
