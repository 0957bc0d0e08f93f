"""When backups are due: cron lines, and what was made so far. Pure.

Invariants
- All times are UTC; a line is due at its latest time that has passed.
- What was missed, while nothing ran or a run failed, is made up once, however often it was missed, and says so.
- What was done is what the backups in the archive say. A node remembers nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .manifest import Backup, Type

#: A run that begins this long after its time was made up for.
LATE_AFTER = timedelta(minutes=2)


@dataclass(frozen=True)
class Line:
    """A backup of *type* at each time of *cron*."""

    cron: str
    type: Type

    @property
    def name(self) -> str:
        """How a backup tells which line asked for it."""
        return f"{self.type} {self.cron}"


@dataclass(frozen=True)
class Due:
    """A backup that is to be made now: it was due *at* then."""

    line: Line
    at: datetime
    late: bool


def due(lines: Sequence[Line], made: Iterable[Backup], group: str, now: datetime) -> Due | None:
    """What to make next, the full ones first; None if nothing is due. *made* are the backups that there are."""
    mine = [backup for backup in made if backup.group == group]
    waiting = [found for line in lines if (found := _due(line, mine, now)) is not None]
    return min(waiting, key=lambda found: (found.line.type != "full", found.at), default=None)


def upcoming(lines: Sequence[Line], now: datetime) -> tuple[datetime, Line] | None:
    """The next time after *now* at which a line is due."""
    times = [(at, line) for line in lines if (at := _next(line.cron, now)) is not None]
    return min(times, key=lambda found: found[0], default=None)


def check(cron: str) -> str | None:
    """Why *cron* is no cron line; None if it is one."""
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        return str(error)
    except StopIteration:
        return "it never comes"
    return None if len(cron.split()) == 5 else "it has not five fields: minute, hour, day, month, weekday"


def _due(line: Line, mine: Sequence[Backup], now: datetime) -> Due | None:
    at = _latest(line.cron, now)
    if not mine:
        # The very first one is not waited for: there is nothing to restore from yet.
        return Due(line, at or now, late=False)
    done = [datetime.fromisoformat(backup.due) for backup in mine if backup.schedule == line.name and backup.due]
    # Of a new line, what lies before it is covered by what was made before.
    since = max(done) if done else max(backup.created_at for backup in mine)
    if at is None or at <= since:
        return None
    return Due(line, at, now - at > LATE_AFTER)


def _latest(cron: str, now: datetime) -> datetime | None:
    """The latest time of *cron* that is not after *now*."""
    from cronsim import CronSim

    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    return next(CronSim(cron, minute + timedelta(minutes=1), reverse=True), None)


def _next(cron: str, now: datetime) -> datetime | None:
    from cronsim import CronSim

    return next(CronSim(cron, now.astimezone(UTC)), None)
