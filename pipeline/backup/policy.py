"""Which backups are kept. Pure.

Invariants
- What a kept backup needs is kept: the full one that an incremental one was made after.
- The newest full backup of each group is kept, whatever the policy says.
- A file goes only if no backup that stays names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ...schemas.errors import UsageError
from .manifest import Backup


@dataclass(frozen=True)
class Policy:
    """Keep a backup if one of these says so: it is among the newest *full* full ones of its group, or an
    incremental one after such; it was made in the last *days*."""

    full: int | None = None
    days: float | None = None

    def __post_init__(self) -> None:
        if self.full is None and self.days is None:
            raise UsageError("nothing says what to keep: --keep-full N, --keep-days D, or both")
        if (self.full is not None and self.full < 1) or (self.days is not None and not self.days >= 0):
            raise UsageError("--keep-full is 1 or more, --keep-days 0 or more")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a backup, and why."""

    backup: Backup
    kept: bool
    why: str


def judge(backups: Collection[Backup], policy: Policy, now: datetime) -> list[Verdict]:
    """A verdict on each of *backups*, oldest first."""
    ordered = sorted(backups, key=lambda backup: backup.id)
    reasons: dict[str, str] = {}
    for group in {backup.group for backup in ordered}:
        fulls = [backup for backup in ordered if backup.group == group and backup.type == "full"]
        _keep(reasons, fulls[-1:], "the newest full one")
        _keep(reasons, fulls[-policy.full :] if policy.full else (), f"one of the newest {policy.full} full ones")
    if policy.days is not None:
        young = [b for b in ordered if (now - b.created_at) / timedelta(days=1) <= policy.days]
        _keep(reasons, young, f"made in the last {policy.days:g} days")
    _keep(reasons, [b for b in ordered if b.base in reasons], "the full one before it is kept")
    needed = {b.base for b in ordered if b.id in reasons}
    _keep(reasons, [b for b in ordered if b.id in needed], "a kept one was made after it")
    return [Verdict(b, b.id in reasons, reasons.get(b.id, "nothing keeps it")) for b in ordered]


def _keep(reasons: dict[str, str], backups: Iterable[Backup], why: str) -> None:
    for backup in backups:
        reasons.setdefault(backup.id, why)


def unreferenced(names: Iterable[str], kept: Sequence[Backup]) -> list[str]:
    """Those of the files *names* that none of *kept* has."""
    named = {listed.name for backup in kept for listed in backup.files}
    return sorted(name for name in names if name not in named)
