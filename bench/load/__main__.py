"""``python -m bench.load``: many clients at both doors of a node that is written all the time; some hang up.

On the local broker: a process that writes, a ``merganser replica run`` with both doors, and clients that ask for
points, joins and whole tables at mixed levels, and judge every answer exactly (``rows.py``). Then, with the same
writer, the same clients ask cursors of the process that has the store, without a door: the base of the ratios.

Exit 1 if a promise was broken: a wrong answer, a node that ended or took more memory than it may, an apply loop that
was left behind, a WAL beyond its bound, an account that does not add up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import merganser as mg
from merganser.consumers.dbfile import Limits
from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.schemas.position import Position, TopicPartition

from .askers import Flight, Http, Inside, hang_up_flight, hang_up_http
from .clients import MIX, Client, Tally, run_all
from .node import Node, Sample, Watch, audit, until
from .rows import KEYED, TABLES, Names, schema_of

#: What the node's settings let it have beyond what it had before anybody asked.
ALLOWANCE = Limits().memory + ServingLimits().growth

#: A WAL grows beyond its limit by what is written until the queries that run have ended.
WAL = ServingLimits().wal * 3 // 2

#: Seconds of writing that the node may be behind, and until it has caught up afterwards.
LAG_S, AFTER_S = 10.0, 30.0

_BASE_SHARE = 4

console = Console(stderr=True)


@dataclass(frozen=True)
class Run:
    """What came out. Pure from here on."""

    doors: Tally
    base: Tally
    seconds: float
    base_s: float
    samples: Sequence[Sample]
    missed: Sequence[str]
    idle: int
    peak: int
    rate: float
    written: float
    caught_up_s: float | None
    ended: str
    audit: str

    @property
    def lags(self) -> list[int]:
        return [sample.lag for sample in self.samples] or [0]

    @property
    def wals(self) -> list[int]:
        return [sample.wal for sample in self.samples] or [0]

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = [f"wrong answer: {each}" for each in [*self.doors.wrong, *self.base.wrong][:10]]
        found += [f"not to happen: {each}" for each in [*self.doors.broken, *self.base.broken][:10]]
        if not self.doors.right:
            found.append("no answer at all")
        lag, wal = max(self.lags), max(self.wals)
        if lag > LAG_S * self.rate:
            found.append(f"the node was {lag:,} records behind, more than {LAG_S:g} s of writing")
        if self.caught_up_s is None:
            found.append(f"the node had not caught up {AFTER_S:g} s after the last write")
        if wal > WAL:
            found.append(f"the WAL had {wal / 2**20:.0f} MiB, more than {WAL / 2**20:.0f}")
        if self.peak > self.idle + ALLOWANCE:
            found.append(
                f"the node took {self.peak / 2**20:.0f} MiB, {(self.idle + ALLOWANCE) / 2**20:.0f} are its bound"
            )
        if len(self.missed) > len(self.samples) // 10:
            found.append(f"{len(self.missed)} looks at /metrics failed: {self.missed[0]}")
        return found + [each for each in (self.ended, self.audit) if each]


# -- the run ---------------------------------------------------------------------------------------


class Scene:
    """Log, tables and folder of one run."""

    def __init__(self, log: mg.Log, folder: Path, options: argparse.Namespace) -> None:
        self.log, self.folder, self.options = log, folder, options
        self.names = Names(uuid.uuid4().hex[:6])
        for table in TABLES:
            key = ["id"] if table in KEYED else []
            log.create_table(self.names[table], schema_of(table), key, partitions=KEYED.get(table, 1))
        self.partitions = [TopicPartition(self.names[table], p) for table in TABLES for p in range(KEYED.get(table, 1))]

    def ends(self) -> Position:
        return self.log.ends(self.partitions)

    @contextmanager
    def written(self) -> Iterator[dict[str, float]]:
        """A process writes meanwhile; at the end it is told how many rows a second."""
        state, told = self.folder / "writer.json", dict[str, float]()
        command = [sys.executable, "-m", "bench.load.writer", self.log.bootstrap_servers, self.names.tag]
        command += [str(state), str(self.options.rate)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdin is not None and writer.stdout is not None
            try:
                if not writer.stdout.readline():
                    raise SystemExit("the writer ended before its first row")
                yield told
            finally:
                writer.stdin.close()
                said = writer.stdout.read()
        if writer.returncode:
            raise SystemExit("the writer failed")
        told |= json.loads(said)

    def load(self, node: Node, producer: mg.Producer) -> Tally:
        share, clients = self.options.hang_up, []
        for number in range(self.options.clients):
            if number % 2:
                asker: Http | Flight = Flight(node.flight)
                hang_up = partial(hang_up_flight, node.flight)
            else:
                asker, hang_up = Http(node.http), partial(hang_up_http, node.http)
            clients.append(Client(number, self.names, asker, producer, hang_up, share))
        return run_all(clients, self.options.seconds, lambda: node.alive)

    def base(self, replica: mg.Replica, producer: mg.Producer, seconds: float) -> Tally:
        places, first = threading.Semaphore(ServingLimits().running), self.options.clients  # notes of their own
        numbers = range(first, 2 * first)
        clients = [Client(n, self.names, Inside(replica, places), producer, None, 0.0) for n in numbers]
        return run_all(clients, seconds)


def run(scene: Scene) -> Run:
    options = scene.options
    with scene.log.producer() as producer:
        with scene.written() as told:
            console.print("[dim]the node reads the tables")
            node = Node(scene.folder, scene.log.bootstrap_servers, scene.names.tag, scene.names.all)
            try:
                until("the node is ready", node.ready, 120)
                idle = node.sample(scene.ends).resident
                watch = Watch(node, scene.ends)
                console.print(f"[dim]{options.clients} clients, {options.seconds:g} s")
                doors = scene.load(node, producer)
            except BaseException:
                node.stop()
                raise
        caught_up_s = _caught_up(node, scene)
        watch.stop()
        peak = node.peak() or max((sample.resident for sample in watch.samples), default=idle)
        ended = _ended(node)
        console.print("[dim]the account, and the base")
        found = audit(node.store, scene.log.bootstrap_servers)
        base_s = max(2.0, options.seconds / _BASE_SHARE)
        with scene.written(), mg.Replica(node.store, scene.log, scene.names.tag, scene.names.all) as replica:
            base = scene.base(replica, producer, base_s)
    return Run(
        doors, base, options.seconds, base_s, watch.samples, watch.missed, idle, peak, options.rate,
        told["rows_s"], caught_up_s, ended, found,
    )  # fmt: skip


def _caught_up(node: Node, scene: Scene) -> float | None:
    """How long the node takes until it has all that there is."""
    began_s = time.monotonic()
    try:
        until("the node has caught up", lambda: node.sample(scene.ends).lag == 0, AFTER_S)
    except (TimeoutError, OSError):
        return None
    return time.monotonic() - began_s


def _ended(node: Node) -> str:
    """Empty if the node was alive, and ends as it should."""
    alive = node.alive
    code, said = node.stop()
    if not alive:
        return f"the node had ended: {said[-2000:]}"
    return "" if code == 0 and "Traceback" not in said else f"the node ended with {code}: {said[-2000:]}"


# -- telling ---------------------------------------------------------------------------------------


def figures(run: Run) -> dict[str, Any]:
    """All numbers, for people and programs."""
    base = {kind: _times(run.base.seconds.get(("in-process", kind), [])) for kind in MIX}
    kinds = []
    for door in ("HTTP", "Flight"):
        for kind in MIX:
            times = _times(run.doors.seconds.get((door, kind), []))
            ratio = times["p50_ms"] / base[kind]["p50_ms"] if times["answers"] and base[kind]["answers"] else None
            kinds.append({"door": door, "kind": kind, **times, "p50_to_base": ratio})
    kinds += [{"door": "in-process", "kind": kind, **times, "p50_to_base": 1.0} for kind, times in base.items()]
    per_s, base_per_s = run.doors.right / run.seconds, run.base.right / run.base_s
    return {
        "queries_s": per_s,
        "base_queries_s": base_per_s,
        "queries_to_base": per_s / base_per_s if base_per_s else None,
        "kinds": kinds,
        "wrong": len(run.doors.wrong) + len(run.base.wrong),
        "refused": run.doors.counts["refused"],
        "hung_up": run.doors.counts["hung up"],
        "failed": dict(run.doors.failed),
        "base_failed": dict(run.base.failed),
        "written_s": run.written,
        "lag_records": {"most": max(run.lags), "median": statistics.median(run.lags)},
        "caught_up_s": run.caught_up_s,
        "wal_mib": {"most": max(run.wals) / 2**20, "bound": WAL / 2**20},
        "pauses": max((sample.pauses for sample in run.samples), default=0),
        "memory_mib": {"idle": run.idle / 2**20, "most": run.peak / 2**20, "bound": (run.idle + ALLOWANCE) / 2**20},
        "broken": run.broken(),
    }


def _times(seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    if not ordered:
        return {"answers": 0, "p50_ms": None, "p99_ms": None}
    at = [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)]
    return {"answers": len(ordered), "p50_ms": at[0], "p99_ms": at[1]}


def show(told: dict[str, Any], options: argparse.Namespace) -> None:
    out = Console()
    table = Table(title=f"{options.clients} clients, {options.seconds:g} s, {told['written_s']:,.0f} rows/s written")
    for column in ("door", "query", "answers", "p50 ms", "p99 ms", "p50 x in-process"):
        table.add_column(column, justify="left" if column in ("door", "query") else "right")
    for each in told["kinds"]:
        if each["answers"]:
            ratio = "" if each["p50_to_base"] is None else f"{each['p50_to_base']:.2f}"
            table.add_row(
                each["door"],
                each["kind"],
                f"{each['answers']:,}",
                f"{each['p50_ms']:.1f}",
                f"{each['p99_ms']:.1f}",
                ratio,
            )
    out.print(table)
    lag, wal, memory = told["lag_records"], told["wal_mib"], told["memory_mib"]
    caught = (
        "never caught up" if told["caught_up_s"] is None else f"all applied {told['caught_up_s']:.1f} s after the last"
    )
    ratio = "" if told["queries_to_base"] is None else f", {told['queries_to_base']:.2f} x in-process"
    out.print(f"{told['queries_s']:,.1f} queries/s through the doors{ratio}")
    out.print(
        f"wrong {told['wrong']}, refused {told['refused']}, hung up {told['hung_up']}, failed {told['failed'] or 0}"
    )
    out.print(f"lag: median {lag['median']:,.0f} records, most {lag['most']:,}; {caught}")
    out.print(f"WAL: most {wal['most']:.0f} MiB (bound {wal['bound']:.0f}), {told['pauses']:.0f} pauses")
    out.print(f"memory: idle {memory['idle']:.0f} MiB, most {memory['most']:.0f} (bound {memory['bound']:.0f})")
    for line in told["broken"]:
        out.print(f"[red]broken: {line}", markup=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=3_000, help="rows/s that are written")
    parser.add_argument(
        "--hang-up", type=float, default=0.05, help="share of questions whose client goes in the middle"
    )
    parser.add_argument("--bootstrap-servers", help="without it: the local broker")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="merganser-load-") as folder, mg.connect(options.bootstrap_servers) as log:
        told = figures(run(Scene(log, Path(folder), options)))
    if options.json:
        print(json.dumps(told))
    else:
        show(told, options)
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
