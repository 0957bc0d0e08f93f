"""Writers of a drill: transactions over three tables, some rolled back, some with conditions or operation ids."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import merganser as mg
from history.journal import ENTRIES, EVENTS, LEFT, RIGHT, Plan
from merganser.schemas.errors import CommitInDoubt, RolledBack

KEYS = 40


class RollBack(Exception):
    """What ends the block of a transaction that is to be rolled back."""


class Writers:
    """Threads that write until the block ends; what one raises ends the block too."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.rows = 0
        self._plan = plan
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        if self._errors:
            raise self._errors[0]

    def check(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _run(self, number: int) -> None:
        rng = random.Random(f"{self._plan.seed}/{number}")
        try:
            with mg.connect(self._plan.servers) as log, log.producer() as producer:
                while not self._stopping.is_set():
                    if rng.random() < 0.3:
                        self._alone(producer, rng)
                    else:
                        self._together(producer, rng, number)
                    self._stopping.wait(rng.choice([0, 0, 0.005, 0.02]))
        except BaseException as error:
            self._errors.append(error)

    def _alone(self, producer: mg.Producer, rng: random.Random) -> None:
        for _ in range(rng.choice([1, 3, 20])):
            self._write(producer, rng, rng.choice([LEFT, RIGHT]))
        producer.flush()

    def _together(self, producer: mg.Producer, rng: random.Random, number: int) -> None:
        op = f"op-{number}-{rng.randrange(500)}" if rng.random() < 0.2 else None
        with suppress(RollBack, RolledBack, CommitInDoubt):  # of what is in doubt the log tells
            with producer.transaction(op=op) as tx:
                for table in rng.choices([LEFT, RIGHT, ENTRIES], k=rng.choice([2, 3, 5, 12])):
                    self._write(tx, rng, table)
                if rng.random() < 0.1:
                    raise RollBack

    def _write(self, to: mg.Producer | mg.Transaction, rng: random.Random, table: int) -> None:
        name, self.rows = self._plan.tables[table], self.rows + 1
        if table == ENTRIES:
            to.put(name, {"id": EVENTS + rng.randrange(1000), "n": rng.randrange(1000), "w": 0})
            return
        id_ = rng.randrange(KEYS)
        if rng.random() < 0.15:
            to.delete(name, {"id": id_})
            return
        guard = rng.choice([{}, {}, {}, {}, {"if_present": True}, {"if_absent": True}])
        to.put(name, {"id": id_, "n": rng.randrange(1000), "w": 0}, **guard)
