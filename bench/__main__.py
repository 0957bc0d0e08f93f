"""``python -m bench``: all figures in one run, as a table and as JSON.

A machine is never quiet, so figures are ratios to the raw consumer of the same round, and medians of
the rounds; compare them, do not quote the rows/s.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import merganser as mg

from . import throughput
from .world import Topics, fill

#: Figure → the topic that it reads; each is compared with the raw consumer of that topic.
ORDER = [("raw", "append"), ("decode", "append"), ("append", "append"), ("raw", "upsert"), ("upsert", "upsert")]

console = Console()


def child(module: str, *arguments: object) -> dict[str, Any]:
    """One figure, by a process of its own."""
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rates(servers: str, topics: Topics, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """The figures of each round; round by round, so that a slow minute touches all alike."""
    found: dict[str, list[dict[str, Any]]] = {}
    for round_ in range(rounds):
        for figure, kind in ORDER:
            console.print(f"[dim]round {round_ + 1} of {rounds}: {figure} ({kind})")
            result = child("throughput", figure, servers, topics.names[kind], topics.rows)
            found.setdefault(figure if figure == kind or figure == "decode" else f"raw/{kind}", []).append(result)
    console.print(f"[dim]naive, {throughput.NAIVE_ROWS} rows")
    found["naive"] = [child("throughput", "naive", servers, topics.append, topics.rows)]
    return found


def rate(result: dict[str, Any]) -> float:
    return float(result["rows"] / result["seconds"])


def ratio(found: dict[str, list[dict[str, Any]]], figure: str) -> float:
    floor = found["raw/upsert" if figure == "upsert" else "raw/append"]
    return statistics.median(rate(f) / rate(r) for f, r in zip(found[figure], floor, strict=False))


def show(found: dict[str, list[dict[str, Any]]], rows: int) -> None:
    table = Table(title=f"{rows:,} rows from offset 0, durable and exactly once where it says replica")
    for column in ("", "rows/s", "x raw", "CPU s per 1 M", "peak MiB"):
        table.add_column(column, justify="left" if not column else "right")
    labels = {
        "raw/append": "raw consume (append topic)",
        "decode": "consume and decode",
        "append": "replica, append",
        "raw/upsert": "raw consume (keyed topic)",
        "upsert": "replica, upsert",
        "naive": "naive loop",
    }
    for figure, label in labels.items():
        results = found[figure]
        cpu = statistics.median(r["cpu_s"] / r["rows"] * 1e6 for r in results)
        peak = max(r["peak_mib"] for r in results)
        speed = statistics.median(map(rate, results))
        table.add_row(label, f"{speed:,.0f}", f"{ratio(found, figure):.3f}", f"{cpu:.2f}", f"{peak:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows in each topic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each freshness measurement; 0 leaves them out")
    parser.add_argument("--rates", type=int, nargs="*", default=[50, 1_000, 10_000], help="rows/s for freshness")
    parser.add_argument("--transactions", type=int, nargs="*", default=[1, 10, 1_000], help="rows a transaction")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    with mg.connect() as log:
        console.print(f"[dim]writing 2 x {given.rows:,} rows")
        topics = fill(log, given.rows)
        found: dict[str, Any] = {"rates": rates(log.bootstrap_servers, topics, given.rounds)}
        show(found["rates"], given.rows)
        found["freshness"] = []
        if given.seconds:
            found["floor"] = low = child("freshness")
            console.print(
                f"DuckDB alone: {low['apply_ms']:.1f} ms for the statements of a small apply, {low['query_ms']:.1f} ms"
                " for those of a query"
            )
        for per_s in given.rates if given.seconds else []:
            fresh = child("freshness", log.bootstrap_servers, per_s, given.seconds)
            found["freshness"].append(fresh)
            console.print(
                f"{per_s:,} rows/s: put to visible p50 {fresh['p50_ms']:.1f} ms, p99 {fresh['p99_ms']:.1f} ms"
                f" ({fresh['rows']:,} rows)"
            )
        found["transactions"] = []
        for size, *same in [(n, *keys) for n in given.transactions if given.seconds for keys in ([], ["same"])]:
            result = child("transactions", log.bootstrap_servers, size, given.seconds, *same)
            found["transactions"].append(result)
            console.print(
                f"{size:,} rows a transaction, {result['keys']} keys: {result['transactions_s']:,.0f} transactions/s,"
                f" {result['rows_s']:,.0f} rows/s, commit to visible p50 {result['p50_ms']:.1f} ms,"
                f" p99 {result['p99_ms']:.1f} ms; read back at {result['catch_up_rows_s']:,.0f} rows/s"
            )
    found |= {"rows": given.rows, "machine": platform.machine(), "python": platform.python_version(), "at": time.time()}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
