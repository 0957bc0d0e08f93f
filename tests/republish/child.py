"""A process that republishes an archive, and kills itself at a step of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent


def run(archive: Path, servers: str, scratch: Path, tables: list[str], step: str = "", nth: int = 1) -> int:
    """How it ended: 0, or by SIGKILL when it came to *step* for the *nth* time."""
    plan = {"archive": str(archive), "servers": servers, "scratch": str(scratch), "tables": tables}
    line = [sys.executable, str(Path(__file__)), json.dumps({**plan, "step": step, "nth": nth})]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def main() -> None:
    import merganser as mg
    from merganser.pipeline.republish.republish import Republisher
    from merganser.pipeline.restore.sources import Wish
    from merganser.producers.bulk import BulkOptions
    from restore.child import Death

    plan = json.loads(sys.argv[1])
    death = Death(plan["step"], plan["nth"])
    with mg.connect(plan["servers"]) as log:
        scratch = Path(plan["scratch"])
        republisher = Republisher(mg.Archive(plan["archive"]), log, scratch, chunks=BulkOptions(rows=40), step=death)
        republisher.run(republisher.plan(Wish(tables=tuple(plan["tables"]))))


if __name__ == "__main__":
    main()
