"""``python -m bench.serving``: answers over Flight SQL, as ratios of the same queries inside the node's process.

Needs no broker: a store of rows that are made up, held by a process that serves it; the client is another process.
Medians of the rounds. In-process means what ``Replica.query`` does: a read-only transaction, the position, the rows as
Arrow; and for the large answer DuckDB's own export of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
from pyarrow import flight

from merganser.consumers.dbfile import Limits
from merganser.consumers.reads import Goal, Reading, parse, positions, run
from merganser.consumers.replica import Replica
from merganser.consumers.statements import parsed
from merganser.consumers.store import Store
from merganser.pipeline.serving.flight import messages
from merganser.pipeline.serving.flight.server import FlightDoor
from merganser.pipeline.serving.guard.ask import Ask
from merganser.pipeline.serving.guard.guard import Guard
from merganser.schemas.kafka import Deadline
from merganser.schemas.position import Position

from .backup import make_store

TINY = "SELECT id, qty, price FROM orders WHERE id = 123456"
_MORE = ", ".join(f"{column} AS {column}_2" for column in ("id", "sku", "qty", "price", "_offset"))
LARGE = f"SELECT *, {_MORE} FROM orders"


class Still:
    """As much of a Replica as a guard needs, of a store that nobody writes."""

    def __init__(self, store: Store) -> None:
        self._store, self.path, self.limits = store, store.path, store.limits

    def goal(self, *args: object) -> Goal:
        return Goal("eventual", Position(), Position())

    def reach(self, goal: Goal, deadline: Deadline) -> None:
        pass

    @contextmanager
    def reading_at(self, goal: Goal, deadline: Deadline) -> Iterator[Reading]:
        with self._store.reading(10) as cursor:
            cursor.execute(parsed("BEGIN TRANSACTION READ ONLY")).fetchall()
            yield Reading(cursor, *positions(cursor))

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.reading_at(self.goal(), Deadline(1)) as reading:
            yield reading.cursor


def median_s(times: int, ask: Callable[[], Any]) -> float:
    ask()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def serve(path: Path, tiny: int, large: int) -> None:
    """The node: measures itself, prints that and its port, and serves until its input ends."""
    store = Store(path, "bench", "bench", Limits(memory=512 * 2**20))
    still = Still(store)

    def query(sql: str) -> None:
        with still.reading_at(still.goal(), Deadline(1)) as reading:
            run(reading, parse(sql), None)

    guard = Guard(cast(Replica, still))

    def guarded(sql: str) -> None:
        with guard.ask(Ask(sql)) as answer:
            answer.table()

    figures = {
        "tiny": median_s(tiny, lambda: query(TINY)),
        "tiny_guarded": median_s(tiny, lambda: guarded(TINY)),
        "large": median_s(large, lambda: query(LARGE)),
        "large_guarded": median_s(large, lambda: guarded(LARGE)),
    }
    with FlightDoor(guard, anonymous=SimpleNamespace(name="bench", tables=None)) as door:
        print(json.dumps(figures | {"url": door.url}), flush=True)
        sys.stdin.read()
        guard.close()
    store.close()


def measure(path: Path, tiny: int, large: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.serving", "--serve", str(path), "--tiny", str(tiny), "--large", str(large)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None and node.stdin is not None
        figures: dict[str, Any] = json.loads(node.stdout.readline())
        with flight.FlightClient(figures.pop("url")) as client:

            def ask(sql: str) -> None:
                command = messages.pack(messages.make("CommandStatementQuery", query=sql))
                info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
                client.do_get(info.endpoints[0].ticket).read_all()

            figures["tiny_flight"] = median_s(tiny, lambda: ask(TINY))
            figures["large_flight"] = median_s(large, lambda: ask(LARGE))
        node.stdin.close()
        node.wait(60)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tiny", type=int, default=200, help="how often the tiny query runs")
    parser.add_argument("--large", type=int, default=5, help="how often the large one does")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.serve is not None:
        return serve(args.serve, args.tiny, args.large)
    with tempfile.TemporaryDirectory(prefix="merganser-bench-") as scratch:
        path = Path(scratch) / "bench.duckdb"
        make_store(path, args.rows)
        figures = measure(path, args.tiny, args.large)
    ratios = {
        "tiny query, guard / in-process": figures["tiny_guarded"] / figures["tiny"],
        "tiny query, Flight / in-process": figures["tiny_flight"] / figures["tiny"],
        "large answer, in-process / guard": figures["large"] / figures["large_guarded"],
        "large answer, in-process / Flight": figures["large"] / figures["large_flight"],
    }
    if args.json:
        print(json.dumps({"seconds": figures, "ratios": ratios}))
        return None
    for name, seconds in figures.items():
        print(f"{name:>14}: {1000 * seconds:8.2f} ms")
    for name, ratio in ratios.items():
        print(f"{name:>34}: {ratio:.2f}")
    return None


if __name__ == "__main__":
    main()
