"""A process that backs up, expires or restores, and kills itself at a step of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.backup.expire import expire
from merganser.pipeline.backup.policy import Policy
from merganser.pipeline.backup.snapshot import ChunkLimits
from merganser.pipeline.restore.restore import Restorer
from merganser.pipeline.restore.sources import Origin, Wish


class Death:
    """An ``on_step`` that ends the process at the *nth* time of *step*."""

    def __init__(self, step: str, nth: int) -> None:
        self._step, self._left = step, nth

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    plan = json.loads(sys.argv[1])
    death = Death(plan.get("step", ""), plan.get("nth", 1))
    archive = Archive(plan["archive"])
    match plan["do"]:
        case "backup":
            with StoreFile(plan["store"]) as source:
                maker = Backups(archive.objects, limits=ChunkLimits(rows=64), step=death)
                maker.create(source, Request(), lambda position: None)
        case "expire":
            expire(archive.objects, Policy(full=1), datetime.now(UTC), death)
        case "restore":
            origin = Origin(archive, None)
            restorer = Restorer(origin, Path(plan["store"]), "g", force=True, step=death)
            restorer.run(origin.plan(Wish(plan["to"])))


if __name__ == "__main__":
    main()
