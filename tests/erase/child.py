"""``python tests/erase/child.py FOLDER STEP``: forgets ada, and kills itself at the first STEP."""

from __future__ import annotations

import os
import signal
import sys

from erase.erased import forget_ada
from merganser.pipeline.archive.archive import Archive


def main(folder: str, step: str) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    forget_ada(Archive(folder), on_step)


if __name__ == "__main__":
    main(*sys.argv[1:])
