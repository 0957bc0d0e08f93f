"""A process with a replica and threads that read from it at every level, in every way (ways.py), and is killed now and
then.

It goes on until a line comes by stdin; then each thread ends. When stdin is closed, one last strong scan is made.
"""

from __future__ import annotations

import logging
import random
import select
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import merganser as mg
from history import faults
from history.journal import ENTRIES, EVENTS, LEFT, REGISTERS, RIGHT, Journal, Plan, publish, published
from history.ways import FAILED, Shown, Way, ways
from history.writer import place, write
from merganser.consumers.apply import BatchLimits

LEVELS = {"eventual": 4, "session": 2, "bounded": 3, "strong": 4, "after": 3}
TIMEOUT_S = 60


def scan_sql(plan: Plan) -> str:
    left, right, entries = plan.tables
    return f"""
        SELECT 0, id, n, _offset FROM {left} UNION ALL SELECT 1, id, n, _offset FROM {right}
        UNION ALL SELECT 2, 0, count(*), coalesce(sum(_offset), 0)::BIGINT FROM {entries}
        UNION ALL SELECT 3, id, sum(n)::BIGINT, count(*) FROM {entries} WHERE id < {EVENTS} GROUP BY id"""


class Clients:
    """The clients of one replica. Each of :meth:`client` is a thread."""

    def __init__(
        self,
        plan: Plan,
        index: int,
        journal: Journal,
        replica: mg.Replica,
        log: mg.Log,
        life: int,
        ways: Sequence[Way],
    ) -> None:
        self.plan, self.index, self.journal, self.replica = plan, index, journal, replica
        self.ways = {way.name: way for way in ways}
        self.folder = Path(plan.folder)
        self.log = log
        self.life = life
        self.scan_sql = scan_sql(plan)
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def client(self, thread: int) -> None:
        rng = random.Random(f"{self.plan.seed}/{self.index}/{self.life}/{thread}")
        try:
            with self.log.producer() as producer:
                journal = Journal(self.folder / f"client{self.index}.{thread}-{self.life}.journal")
                while not self.stopping.is_set():
                    self._turn(rng, thread, journal, producer)
        except BaseException as error:  # told by the process
            self.error = error

    def _turn(self, rng: random.Random, thread: int, journal: Journal, producer: mg.Producer) -> None:
        level = rng.choices(list(LEVELS), list(LEVELS.values()))[0]
        what = rng.random()
        after = self._token(rng) if level == "after" or (level == "session" and what < 0.3) else None
        way = rng.choice(list(self.ways))
        if thread == 0 and what < 0.2:  # what the writers go by
            self.scan("eventual", publish_it=True)
        elif self.plan.bank or what < 0.3:
            self.scan(level, after, rng, way)
        elif what < 0.75:
            self.get(rng.choice((LEFT, RIGHT)), rng.choice(REGISTERS), level, after, rng, way)
        elif what < 0.9:
            self.write_and_read(rng, journal, producer, way)
        else:
            self.outcome(rng)

    # -- reads -------------------------------------------------------------------------------

    def scan(
        self,
        level: str,
        after: list[int] | None = None,
        rng: random.Random | None = None,
        way: str = "inside",
        publish_it: bool = False,
    ) -> bool:
        shown = self._read("scan", self.scan_sql, [], level, after, rng, way)
        if publish_it and shown is not None:
            keyed = [row for row in shown.rows if row[0] < ENTRIES]
            publish(
                self.folder / f"shown{self.index}.json", {"applied": self.plan.vector(shown.applied), "rows": keyed}
            )
        return shown is not None

    def get(
        self,
        table: int,
        id_: int,
        level: str,
        after: list[int] | None = None,
        rng: random.Random | None = None,
        way: str = "inside",
    ) -> list[int] | None:
        sql = f"SELECT n, _offset FROM {self.plan.tables[table]} WHERE id = ?"
        shown = self._read("get", sql, [table, id_], level, after, rng, way)
        return shown.rows[0] if shown is not None and shown.rows else None

    def _read(
        self,
        kind: str,
        sql: str,
        of: list[int],
        level: str,
        after: list[int] | None,
        rng: random.Random | None,
        way: str,
    ) -> Shown | None:
        """One read, noted down with what it has shown; None if it failed."""
        asked, noted = self._asked(level, after, rng)
        if way != "inside":
            noted["way"] = way
        begun = time.monotonic()
        try:
            shown = self.ways[way].read(sql, of[1:], timeout=TIMEOUT_S, **asked)
        except FAILED as error:
            self._failed(kind, level, begun, error, noted)
            return None
        done = time.monotonic()
        if shown.replica is not None:
            noted["by"] = shown.replica
        value = shown.rows if kind == "scan" else shown.rows[0] if shown.rows else None
        position = self.plan.vector(shown.position)
        self.journal.note(k=kind, l=level, at=begun, to=done, pos=position, of=of, v=value, **noted)
        return shown

    def outcome(self, rng: random.Random) -> None:
        """What became of the last transaction of some writer."""
        told = published(self.folder / f"token{rng.randrange(self.plan.writers)}.json")
        if told is None or told["tx"] is None:
            return
        begun = time.monotonic()
        try:
            state = self.replica.outcome(told["tx"], timeout=TIMEOUT_S).state
        except FAILED as error:
            self._failed("outcome", "outcome", begun, error, {})
            return
        self.journal.note(k="outcome", l="outcome", at=begun, to=time.monotonic(), of=[told["tx"]], v=state)

    def _asked(
        self, level: str, after: list[int] | None, rng: random.Random | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of a read, and what the journal says of them."""
        if level == "bounded" and rng is not None:
            bound = rng.choice((0.5, 2.0, 10.0))
            return {"max_staleness": bound}, {"bound": bound}
        asked: dict[str, Any] = {} if level == "after" else {"level": level}
        if after is None:
            return asked, {}
        return {**asked, "after": self.plan.position(after)}, {"after": after}

    def _failed(self, kind: str, level: str, begun: float, error: Exception, noted: dict[str, Any]) -> None:
        why = f"{type(error).__name__}: {error}"
        self.journal.note(k=kind, l=level, at=begun, to=time.monotonic(), err=why, **noted)

    def _token(self, rng: random.Random) -> list[int] | None:
        told = published(self.folder / f"token{rng.randrange(self.plan.writers)}.json")
        return told["token"] if told else None

    # -- read, write, read -------------------------------------------------------------------

    def write_and_read(self, rng: random.Random, journal: Journal, producer: mg.Producer, way: str) -> None:
        """A client that sees what it wrote: it takes a row's version, writes on that condition, and reads again, by the
        token first."""
        table, id_ = rng.choice((LEFT, RIGHT)), rng.choice(REGISTERS)
        before = self.get(table, id_, "eventual", way=way)
        w, number = journal.number(), journal.number()
        condition = rng.choice((None, "absent" if before is None else f"version:{before[1]}"))
        row = [table, id_, w, condition]
        journal.begin(number, "conditional" if condition else "put", w=w, rows=[row], op=None)
        written = write(self.plan, producer, row, w, None)
        token = self.plan.vector(producer.flush())
        journal.end(number, "ok", tok=token, offs=[place(self.plan, written)])
        self.get(table, id_, "after", token, way=way)
        self.get(table, id_, "session", way=way)


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    plan, index, life = Plan.from_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if plan.naive:
        faults.install(plan.naive)
    folder = Path(plan.folder)
    log = mg.connect(plan.servers)
    batches = BatchLimits(records=plan.slow_records, poll_records=plan.slow_records) if index else BatchLimits()
    journal = Journal(folder / f"replica{index}-{life}.journal")
    with (
        mg.Replica(
            folder / f"replica{index}.duckdb", log, f"{plan.tag}-{index}", plan.tables, batches=batches
        ) as replica,
        ways(plan, index, replica, log) as opened,
    ):
        clients = Clients(plan, index, journal, replica, log, life, opened)
        threads = [threading.Thread(target=clients.client, args=(n,), daemon=True) for n in range(plan.readers)]
        for thread in threads:
            thread.start()
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            if replica.error is not None or clients.error is not None:
                raise replica.error or clients.error  # type: ignore[misc]
        sys.stdin.readline()
        clients.stopping.set()
        for thread in threads:
            thread.join()
        if clients.error is not None:
            raise clients.error
        publish(folder / f"quiet{index}.json", {"life": life})
        sys.stdin.read()  # until the clients of the other replica have written their last, too
        if not clients.scan("strong"):
            raise AssertionError("the last scan found no end of the log")
    log.close()


if __name__ == "__main__":
    main()
