"""An archiver in a process of its own, which stops itself at a step: killed, or frozen until it is woken.

``python -m tests.archive.child FOLDER ROWS STEP NTH SIGNAL`` archives the scripted history of so many rows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def start(folder: Path, rows: int, step: str, nth: int, how: signal.Signals) -> subprocess.Popen[bytes]:
    """A child that archives *rows* rows into *folder*, and meets *how* when it comes to *step* for the *nth* time."""
    command = [sys.executable, str(HERE / "child.py"), str(folder), str(rows), step, str(nth), str(how.value)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def main(folder: str, rows: str, step: str, nth: str, how: str) -> None:
    sys.path[:0] = [str(HERE.parent), str(HERE)]
    from archives import copy, history

    from merganser.pipeline.archive.archive import Archive

    left = int(nth)

    def on_step(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), int(how))

    copy(history(int(rows)), Archive(folder), on_step=on_step)


if __name__ == "__main__":
    main(*sys.argv[1:])
