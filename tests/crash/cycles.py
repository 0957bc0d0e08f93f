"""Start a replica, kill it, start it again; then let the oracle judge."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import merganser as mg
from crash.oracle import Findings, check
from crash.writer import Writer
from merganser.consumers.apply import BatchLimits
from merganser.consumers.store import STEPS

TESTS = Path(__file__).resolve().parents[1]

#: How long a replica may take to the moment of its death. A hang is a failure, not a wait.
_PATIENCE_S = 90


@dataclass(frozen=True)
class Plan:
    cycles: int
    seed: int
    naive: str | None = None
    rows_per_s: int = 1500
    steps: Sequence[str] = STEPS
    broker_every: int = 0
    """In every so many-th cycle the broker is killed as well; 0: never."""
    deaths: Sequence[Literal["start", "step", "work"]] = ("start", "step", "work", "step", "step")
    """How one life after another ends, again and again: while it starts, at the next step, at work."""


@dataclass
class Report:
    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    restarts_s: list[float] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    written: int = 0
    changes: int = 0
    seconds: float = 0

    def text(self) -> str:
        ordered = sorted(self.restarts_s) or [0.0]
        where = ", ".join(f"{kind} {n}" for kind, n in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills in {self.seconds:.0f} s ({where})\n"
            f"{self.written} writes, {self.changes} schema changes\n"
            f"from SIGKILL to the next commit, interpreter start included: median {statistics.median(ordered):.2f} s,"
            f" worst {ordered[-1]:.2f} s\n{self.findings}"
        )


class Child:
    """One life of the replica. ``seen`` has the time of the first of each word that it said."""

    def __init__(self, order: dict[str, object], errors: Path) -> None:
        self._errors = errors
        self._changed = threading.Condition()
        self.seen: dict[str, float] = {}
        self.commits = 0
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crash.child", json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )
        self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.seen.setdefault(line.strip(), time.monotonic())
                self.commits += line.strip() == "committed"
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Until *condition* holds or the process has ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or condition(), _PATIENCE_S):
                raise AssertionError(f"after {_PATIENCE_S} s still not: {what}\n{self._errors.read_text()[-3000:]}")

    def dies_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()

    def buried(self) -> float:
        """Wait for its end, which must be by SIGKILL; the time of it."""
        if not self.dies_within(_PATIENCE_S):
            raise AssertionError(
                f"it lives on: the step that was to kill it never came\n{self._errors.read_text()[-3000:]}"
            )
        now = time.monotonic()
        self._listener.join()
        self._close()
        if self.process.returncode != -signal.SIGKILL:
            raise AssertionError(f"it ended by itself\n{self._errors.read_text()[-3000:]}")
        return now

    def end(self) -> None:
        """Whatever it does."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        self._close()

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Cycles:
    """The lives and deaths of one store."""

    def __init__(self, servers: str, folder: Path, plan: Plan, kill_broker: Callable[[], None] | None) -> None:
        tag = uuid.uuid4().hex[:8]
        self._servers, self._folder, self._plan, self._kill_broker = servers, folder, plan, kill_broker
        self._random = random.Random(plan.seed)
        self._names = (f"crash-append-{tag}", f"crash-keyed-{tag}")
        self._tag = tag
        self._steps_taken = 0
        self._killed_at: float | None = None
        self._child: Child | None = None
        self.store = folder / "crash.duckdb"
        self.report = Report(plan)

    def run(self, say: Callable[[str], None]) -> Report:
        began = time.monotonic()
        writer = self._writer = Writer(self._servers, self._names, self._plan.rows_per_s, self._plan.seed)
        writer.start()
        try:
            for number in range(self._plan.cycles):
                self._cycle(number)
                if number % 10 == 9:
                    say(f"{number + 1} cycles, {writer.written} writes, {time.monotonic() - began:.0f} s")
        finally:
            if self._child is not None:
                self._child.end()
            writer.stop()
        stores = [self._at_rest(self.store, BatchLimits())]
        if not self._plan.naive:  # one that is never killed, in batches of another size
            stores.append(self._at_rest(self._folder / "whole.duckdb", BatchLimits(records=7_001, poll_records=997)))
        self.report.findings = check(self._servers, writer.books, stores)
        self.report.written = writer.written
        self.report.changes = sum(book.changes for book in writer.books.values())
        self.report.seconds = time.monotonic() - began
        return self.report

    def _cycle(self, number: int) -> None:
        """One life."""
        death = self._plan.deaths[number % len(self._plan.deaths)]
        if self._plan.broker_every and self._kill_broker and number % self._plan.broker_every == 7:
            self._live("broker", None, self._with_the_broker)
        elif not self._plan.naive and death != "step":
            self._live(death, None, self._soon if death == "start" else self._at_work)
        else:
            step = self._plan.steps[self._steps_taken % len(self._plan.steps)]
            self._steps_taken += 1
            self._live(step, step, self._change_schema if step.startswith("alter") else lambda child: None)

    def _live(self, kind: str, step: str | None, until: Callable[[Child], None]) -> None:
        order: dict[str, object] = {
            "bootstrap_servers": self._servers,
            "store": str(self.store),
            "group": f"crash-{self._tag}",
            "tables": self._names,
            "naive": self._plan.naive,
            "step": step,
            "nth": 1 if (step or "").startswith("alter") else self._random.randint(1, 8),
            "records": self._random.choice([200, 1_500, 200_000]),
        }
        child = self._child = Child(order, self._folder / "child.log")
        until(child)
        now = child.buried()
        if self._killed_at is not None and "committed" in child.seen:
            self.report.restarts_s.append(child.seen["committed"] - self._killed_at)
        self._killed_at = None if kind == "broker" else now
        self.report.kills[kind] += 1

    # -- how a life ends ---------------------------------------------------------------------

    def _soon(self, child: Child) -> None:
        """While it starts, opens the file, replays the WAL, reads the registry."""
        child.dies_within(self._random.uniform(0, 1.5))
        child.kill()

    def _at_work(self, child: Child) -> None:
        child.wait_until("its first commit", lambda: child.commits > 0)
        child.dies_within(self._random.uniform(0, 0.4))
        child.kill()

    def _change_schema(self, child: Child) -> None:
        child.wait_until("its first commit", lambda: child.commits > 0)
        if child.process.poll() is None:
            self._writer.change_schema(self._random.choice(self._names))

    def _with_the_broker(self, child: Child) -> None:
        """The broker dies under it; it goes on when the broker is back, and dies then."""
        child.wait_until("its first commit", lambda: child.commits > 0)
        assert self._kill_broker is not None
        self._kill_broker()
        commits = child.commits
        child.wait_until("a commit after the broker came back", lambda: child.commits > commits)
        child.kill()

    def _at_rest(self, store: Path, batches: BatchLimits) -> Path:
        """*store* at the end of the log, and closed."""
        with mg.connect(self._servers) as log:
            group = f"crash-{self._tag}" if store == self.store else f"whole-{self._tag}"
            with mg.Replica(store, log, group, self._names, batches=batches) as replica:
                replica.query("SELECT 1", level="strong", timeout=120)
        return store


def run(
    servers: str,
    folder: Path,
    plan: Plan,
    kill_broker: Callable[[], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Kill a replica *plan.cycles* times, and check what it holds in the end."""
    return Cycles(servers, folder, plan, kill_broker).run(say)
