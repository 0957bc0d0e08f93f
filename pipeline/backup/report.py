"""A backup for programs and people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import Found
    from .manifest import Backup


def facts(backup: Backup, found: Found | None = None) -> dict[str, Any]:
    """A backup for a program to read."""
    return {
        "id": backup.id,
        "type": backup.type,
        "base": backup.base or None,
        "created": backup.created,
        "group": backup.group,
        "cluster": backup.cluster_id,
        "position": backup.position,
        "applied": backup.applied,
        "tables": {table.topic: table.digest for table in backup.tables},
        "rows": backup.rows,
        "files": len(backup.files),
        "bytes": backup.size,
        "new_bytes": backup.new_bytes,
        "seconds": backup.seconds,
        "encrypted": bool(backup.key),
        "schedule": backup.schedule or None,
        "due": backup.due or None,
        "late": backup.late,
        "annotations": dict(backup.annotations),
        "erased": [each._asdict() for each in backup.erased],
        "wrong": found.wrong if found and found.wrong else None,
    }
