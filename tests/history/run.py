"""Start writers and replicas, kill them now and then, end them, and let the checkers judge."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import merganser as mg
from history.checker import Findings, check
from history.fold import read_log
from history.journal import History, Plan, load
from history.ways import ports
from history.writer import open_accounts
from merganser.consumers.audit import audit_log, audit_store
from merganser.consumers.digest import table_digest
from merganser.consumers.storefile import StoreFile
from support.waiting import wait_for

TESTS = Path(__file__).resolve().parents[1]
_PATIENCE_S = 120


@dataclass
class Report:
    findings: Findings = field(default_factory=Findings)
    history: History | None = None
    kills: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    records: int = 0
    run_s: float = 0
    check_s: float = 0

    @property
    def failed_reads(self) -> int:
        return sum(n for kind, n in self.findings.counts.items() if " failed: " in kind)

    def text(self) -> str:
        kills = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kills.items()))
        return (
            f"{self.operations:,} operations, {self.records:,} committed records, in {self.run_s:.0f} s;"
            f" killed: {kills or 'nobody'}; checked in {self.check_s:.0f} s\n{self.findings.text()}"
        )


class Child:
    """A writer or a replica through its lives; each has a journal of its own."""

    def __init__(self, plan: Plan, module: str, index: int) -> None:
        self._plan, self._module, self._index = plan, module, index
        self.kind = module.rpartition(".")[2]
        self._lives = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self._index}"

    @property
    def errors(self) -> Path:
        return Path(self._plan.folder) / f"{self.kind}{self._index}.stderr"

    def start(self) -> None:
        self._lives += 1
        order = [self._plan.to_json(), str(self._index), str(self._lives)]
        with self.errors.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, *order],
                stdin=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )

    @property
    def noted(self) -> int:
        """Bytes that this life has written into its journal."""
        stem = {"writer": f"writer{self._index}", "reader": f"replica{self._index}"}[self.kind]
        path = Path(self._plan.folder) / f"{stem}-{self._lives}.journal"
        return path.stat().st_size if path.exists() else 0

    def check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended by itself\n{self.errors.read_text()[-4000:]}")

    def kill(self) -> None:
        self.check_alive()
        self.end()

    def tell(self, word: str) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        """Ask it to end, and wait."""
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.close()
        try:
            status = self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"{self.name} does not end\n{self.errors.read_text()[-4000:]}") from None
        if status:
            raise AssertionError(f"{self.name} failed\n{self.errors.read_text()[-4000:]}")
        self.process = None

    def end(self) -> None:
        """Whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process = None


class Counted:
    """How many operations the journals of a run have by now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at: dict[Path, int] = {}
        self.operations = 0

    def __call__(self) -> int:
        for path in self._folder.glob("*.journal"):
            with path.open("rb") as file:
                file.seek(self._at.get(path, 0))
                new = file.read()
            self._at[path] = self._at.get(path, 0) + len(new)
            self.operations += new.count(b'{"i":') + new.count(b'{"k":')
        return self.operations


def run(
    plan: Plan,
    operations: int,
    kills: int,
    say: Callable[[str], None] = lambda line: None,
    deadline_s: float = 3600,
) -> Report:
    """Until *operations* are done, killing *kills* processes on the way; then check everything."""
    with ports(2 if plan.doors else 0) as opened:
        return _run(replace(plan, ports=opened), operations, kills, say, deadline_s)


def _run(plan: Plan, operations: int, kills: int, say: Callable[[str], None], deadline_s: float) -> Report:
    report, begun = Report(), time.monotonic()
    open_accounts(plan)
    readers = [Child(plan, "history.reader", index) for index in range(2)]
    writers = [Child(plan, "history.writer", index) for index in range(plan.writers)]
    counted = Counted(Path(plan.folder))
    try:
        for child in (*readers, *writers):
            child.start()
        _live(plan, operations, kills, readers, writers, counted, report, say, begun + deadline_s)
        _end(plan, readers, writers)
    finally:
        for child in (*readers, *writers):
            child.end()
    report.run_s = time.monotonic() - begun
    judge(plan, report)
    return report


def _live(
    plan: Plan,
    operations: int,
    kills: int,
    readers: list[Child],
    writers: list[Child],
    counted: Counted,
    report: Report,
    say: Callable[[str], None],
    deadline: float,
) -> None:
    rng, told = random.Random(plan.seed), time.monotonic()
    for number in range(kills + 1):
        goal = operations * (number + 1) // (kills + 1)

        def reached(goal: int = goal) -> bool:
            nonlocal told
            for child in (*readers, *writers):
                child.check_alive()
            now = counted()
            if time.monotonic() - told > 10:
                told = time.monotonic()
                say(f"{now:,} operations, {sum(report.kills.values())} kills")
            return now >= goal

        wait_for(f"{goal} operations", reached, timeout_s=deadline - time.monotonic())
        if number < kills:
            victims = readers if number % 2 else writers
            victim = rng.choice(victims)
            least = rng.randrange(1, 20_000)  # bytes
            wait_for(f"{victim.name} to be at work", lambda v=victim, n=least: v.noted > n, timeout_s=_PATIENCE_S)
            victim.kill()
            report.kills[victim.kind] += 1
            victim.start()


def _end(plan: Plan, readers: list[Child], writers: list[Child]) -> None:
    """First nobody writes any more, then the last scans are made: they are of all that was written."""
    for child in writers:
        child.finish()
    for child in readers:
        child.tell("stop")
    quiet = [Path(plan.folder) / f"quiet{index}.json" for index in range(len(readers))]

    def all_quiet() -> bool:
        for child in readers:
            child.check_alive()
        return all(path.exists() for path in quiet)

    wait_for("the readers' clients to end", all_quiet, timeout_s=_PATIENCE_S)
    for child in readers:
        child.finish()


def judge(plan: Plan, report: Report) -> None:
    """The history, and the stores at rest."""
    begun = time.monotonic()
    history = report.history = load(plan)
    log, ends = read_log(plan)
    report.operations, report.records = history.operations, sum(map(len, log))
    report.findings = check(history, log, ends)
    check_stores(plan, report.findings, ends)
    report.check_s = time.monotonic() - begun


def check_stores(plan: Plan, findings: Findings, ends: list[int]) -> None:
    """Both at the log's end, with equal digests and accounts that add up."""
    digests = []
    for index in range(2):
        with StoreFile(Path(plan.folder) / f"replica{index}.duckdb") as store, mg.connect(plan.servers) as log:
            with store.reading() as cursor:
                accounts = audit_store(cursor)
                digests.append({table: table_digest(cursor, table) for table in plan.tables})
            for account in audit_log(accounts, log):
                for wrong in (*account.wrong, *account.unproven):
                    findings.add("account", f"{account.table}: {wrong}", f"replica {index}")
            if plan.vector(store.position) != ends:
                findings.add("not at the end", f"{plan.vector(store.position)}, not {ends}", f"replica {index}")
    if digests[0] != digests[1]:
        findings.add("digests", f"they differ: {digests}", "both replicas")


def new_plan(servers: str, folder: Path, **choices: object) -> Plan:
    return Plan(servers, str(folder), uuid.uuid4().hex[:8], **choices)  # type: ignore[arg-type]
