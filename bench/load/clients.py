"""Clients, each a thread that asks without a pause, judges every answer, and now and then hangs up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import merganser as mg

from . import rows
from .askers import Asker, Broken, Failed, Freshness, Refused
from .rows import Memory, Names, Question

#: What is asked, and how often.
MIX = {"point": 50, "own write": 15, "join": 20, "full, sums": 8, "full, rows": 7}

#: At which level, unless what is asked decides that.
LEVELS = {"eventual": 40, "session": 20, "bounded": 15, "strong": 15, "after": 10}

STALENESS_S = 2.0

#: A node that is busy says so: ask again in a second.
_RETRY_S = 1.0

#: Leaves in the middle of an answer of *sql*; says what happened.
HangUp = Callable[[str, random.Random], str]


@dataclass
class Tally:
    """What became of the questions. Safe across threads once they have ended; each client has one."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By door and kind, of each answer that was right."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        for key, taken in other.seconds.items():
            self.seconds[key] += taken
        self.counts += other.counts
        self.failed += other.failed
        self.wrong += other.wrong
        self.broken += other.broken

    @property
    def right(self) -> int:
        return sum(map(len, self.seconds.values()))


class Client:
    def __init__(
        self, number: int, names: Names, asker: Asker, producer: mg.Producer, hang_up: HangUp | None, share: float
    ) -> None:
        self._names, self._asker, self._producer = names, asker, producer
        self._hang_up, self._share = hang_up, share
        self._random = random.Random(number)
        self._memory = Memory(number)
        self.tally = Tally()

    def run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                self._turn(stopping)
        except Exception as error:  # noqa: BLE001  # whatever it is: a run without this client proves less
            self.tally.broken.append(f"a client ended: {error!r}")
        finally:
            self._asker.close()

    def _turn(self, stopping: threading.Event) -> None:
        tally, rng = self.tally, self._random
        try:
            if self._hang_up is not None and rng.random() < self._share:
                tally.counts[self._hang_up(f"SELECT * FROM {self._names['orders']}", rng)] += 1
                return
            self._ask(*self._question())
        except Refused:
            tally.counts["refused"] += 1
            stopping.wait(_RETRY_S)
        except Failed as error:
            tally.failed[f"{self._asker.door}: {str(error)[:120]}"] += 1
        except Broken as error:
            tally.broken.append(f"{self._asker.door}: {error}")

    def _ask(self, question: Question, fresh: Freshness) -> None:
        began_s = time.monotonic()
        table, position = self._asker.ask(question, fresh)
        taken_s = time.monotonic() - began_s
        wrong = question.judge(table)
        if position is not None:
            if not wrong and not position.reaches(self._memory.position):
                wrong = f"read at {position} after {self._memory.position}"
            self._memory.position = self._memory.position | position
        if wrong:
            self.tally.wrong.append(f"{self._asker.door}, {question.kind}, {fresh}: {wrong}")
        else:
            self.tally.seconds[self._asker.door, question.kind].append(taken_s)

    def _question(self) -> tuple[Question, Freshness]:
        rng, names, memory = self._random, self._names, self._memory
        match rng.choices(list(MIX), list(MIX.values()))[0]:
            case "point":
                question = rows.point(names, memory, rng.randrange(rows.ORDERS))
            case "own write":
                return self._own()
            case "join":
                question = rows.join(names, memory, rng.randrange(rows.ACCOUNTS - rows.JOINED))
            case "full, sums":
                question = rows.count(names, memory)
            case _:
                question = rows.export(names, memory)
        return question, self._freshness(rng.choices(list(LEVELS), list(LEVELS.values()))[0])

    def _freshness(self, level: str) -> Freshness:
        match level:
            case "bounded":
                return Freshness("bounded", max_staleness=STALENESS_S)
            case "after":
                return Freshness(after=self._memory.token)
            case "session":
                return Freshness("session")
            case "strong":
                return Freshness("strong")
            case _:
                return Freshness()

    def _own(self) -> tuple[Question, Freshness]:
        """Read what the client itself has written: by its token, at a level that has it, or as it comes."""
        memory, what = self._memory, self._random.random()
        if what < 0.7:
            memory.written += 1
            n = memory.written
            row = {"id": memory.client, "n": n, "mark": rows.mark(memory.client, n, 0)}
            self._producer.put(self._names["notes"], row)
            token = memory.token = self._producer.flush()
            memory.acknowledged = (n, time.monotonic())
            fresh = Freshness(after=token) if what < 0.4 else Freshness("strong")
            return rows.own(self._names, memory, n), fresh
        n, at_s = memory.acknowledged
        if what < 0.85:
            at_least = n if time.monotonic() - at_s >= STALENESS_S else 0
            return rows.own(self._names, memory, at_least), self._freshness("bounded")
        return rows.own(self._names, memory, 0), Freshness()


def run_all(clients: Sequence[Client], seconds: float, look: Callable[[], bool] = lambda: True) -> Tally:
    """All clients at once, for *seconds*, or until *look* says that there is no use in going on."""
    stopping = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stopping,), daemon=True) for client in clients]
    until_s = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    while time.monotonic() < until_s and look():
        time.sleep(0.2)
    stopping.set()
    for thread in threads:
        thread.join(90)
    total = Tally()
    for client, thread in zip(clients, threads, strict=True):
        total.add(client.tally)
        if thread.is_alive():
            total.broken.append("a client hangs: its query neither ended nor was cut off")
    return total
