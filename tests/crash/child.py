"""The process that is killed: a replica, until its parent closes stdin or SIGKILL comes.

Prints ``open`` once it is there, then ``committed`` after each batch. Given a step and a number, it kills
itself at that occurrence of the step.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys

import merganser as mg
from crash import naive
from merganser.consumers.apply import BatchLimits


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


class Death:
    """An ``on_step`` that ends the process at the *nth* time of *step*."""

    def __init__(self, step: str | None, nth: int) -> None:
        self._step = step
        self._left = nth

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if step == "committed":
            say(step)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    plan = json.loads(sys.argv[1])
    if plan["naive"]:
        naive.install(plan["naive"])
    log = mg.connect(plan["bootstrap_servers"])
    batches = BatchLimits(records=plan["records"], poll_records=min(plan["records"], 5_000))
    death = Death(plan["step"], plan["nth"])
    with mg.Replica(plan["store"], log, plan["group"], plan["tables"], batches=batches, on_step=death) as replica:
        say("open")
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            if replica.error is not None:
                raise replica.error


if __name__ == "__main__":
    main()
