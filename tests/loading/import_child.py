"""The process that is killed: an import in small chunks. It kills itself at the nth time of a step, or waits there."""

from __future__ import annotations

import json
import os
import signal
import sys

import merganser as mg
from merganser.pipeline.loading.inputs import open_input
from merganser.pipeline.loading.load import ImportOptions, import_file
from merganser.producers.bulk import BulkOptions


class Death:
    """An ``on_step`` that ends the process at the *nth* time of *step*, or stops there until a line comes on stdin."""

    def __init__(self, step: str, nth: int, waits: bool) -> None:
        self._step, self._left, self._waits = step, nth, waits

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.write(1, b"there\n")
                if self._waits:
                    sys.stdin.readline()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    plan = json.loads(sys.argv[1])
    options = ImportOptions(bulk=BulkOptions(rows=plan["rows"]), sort=plan["sort"], max_bad=plan["max_bad"])
    death = Death(plan["step"], plan["nth"], plan["waits"])
    with mg.connect(plan["bootstrap_servers"]) as log, open_input(plan["file"]) as file:
        try:
            done = import_file(log, log.table(plan["table"]), file, options, on_step=death)
        except mg.MerganserError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        else:
            print(f"{done.state} {done.written}", flush=True)


if __name__ == "__main__":
    main()
