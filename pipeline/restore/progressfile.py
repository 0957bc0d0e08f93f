"""How far a restore into a file has come: a small file beside it, for the run after a kill."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from ..files import sync_folder
from .plan import RestorePlan


@dataclass(frozen=True)
class Mark:
    """*stage* is ``loaded`` (the base is in the new file) or ``verified`` (at *target*, it may take its place);
    *aside* is where the old file goes."""

    plan: str
    stage: str
    target: str
    aside: str = ""


def fingerprint(plan: RestorePlan, cluster_id: str, group: str) -> str:
    """Equal for plans of which one may go on with what another has begun. The target is none of it: the new
    file's position tells."""
    base = plan.base.hash if plan.base is not None else ""
    return sha256(json.dumps([cluster_id, group, plan.tables, plan.topic_ids, base]).encode()).hexdigest()


def read_mark(path: Path) -> Mark | None:
    try:
        facts = json.loads(path.read_bytes())
        return Mark(**facts)
    except (FileNotFoundError, ValueError, TypeError):
        return None  # none, or one cut off by a crash: begin again


def write_mark(path: Path, mark: Mark) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        json.dump(asdict(mark), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
