"""``python -m bench.archive``: copying the log to an archive, and reading it back, against a raw consumer.

Each figure is by a process of its own; ratios are to the raw consumer of the same round, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import merganser as mg
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check

from .__main__ import child, rate
from .throughput import peak_mib
from .world import beginning, fill, partitions

console = Console()


def write(log: mg.Log, table: str, folder: str) -> dict[str, Any]:
    """All of *table*, exactly once and fsynced, into *folder*."""
    ends = log.ends(partitions(table))
    with Archiver(log, Archive(folder), [table], until=ends) as archiver:
        archiver.wait(ends, 3600)
    return {"rows": sum(ends.values())}


def read(log: mg.Log, table: str, folder: str) -> dict[str, Any]:
    """All of it back through a Reader, every byte proved."""
    archived = Archive(folder).log()
    ends = archived.ends(partitions(table))
    reader = archived.reader("bench")
    reader.assign(beginning(table))
    count, ended = 0, 0
    while ended < len(ends):
        poll = reader.poll(10_000, 1.0)
        count += sum(map(len, poll.chunks.values()))
        ended += len(poll.ends)
    return {"rows": count}


def look(log: mg.Log, table: str, folder: str) -> dict[str, Any]:
    """``archive check``; and how large the archive is."""
    report = check(Archive(folder))
    if report.findings:
        raise SystemExit(str(report.findings[0]))
    raw = sum(len(line) for line in _as_json(table, folder))
    return {"rows": sum(each.rows for each in report.coverage), "bytes": report.read_bytes, "json_bytes": raw}


def _as_json(table: str, folder: str) -> list[str]:
    """The first rows as JSON lines, as many as tell their size."""
    from merganser.consumers.decode import TableDecoder

    archived = Archive(folder).log()
    declared = archived.table(table)
    decoder = TableDecoder(declared, declared.latest.version, archived.versions)
    reader = archived.reader("bench")
    reader.assign(beginning(table))
    chunk = reader.poll(10_000, 1.0).chunks[table]
    rows = [row for piece in decoder.decode(chunk, 0).puts for row in piece.rows.to_pylist()]
    names = declared.latest.schema["fields"] if not isinstance(declared.latest.schema, str) else []
    return [json.dumps({field["name"]: row[field["name"]] for field in names}, default=str) + "\n" for row in rows]


FIGURES = {"write": write, "read": read, "check": look}


def figure(name: str, servers: str, table: str, folder: str) -> None:
    """One figure, printed as a JSON line."""
    with mg.connect(servers) as log:
        log.table(table)
        started, cpu = time.monotonic(), time.process_time()
        found = FIGURES[name](log, table, folder)
        found |= {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - cpu, "peak_mib": peak_mib()}
    print(json.dumps(found))


def rounds(servers: str, table: str, rows: int, count: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"raw": [], **{name: [] for name in FIGURES}}
    for number in range(count):
        console.print(f"[dim]round {number + 1} of {count}")
        found["raw"].append(child("throughput", "raw", servers, table, rows))
        with tempfile.TemporaryDirectory() as folder:
            for name in FIGURES:
                found[name].append(child("archive", "--figure", name, servers, table, folder))
    return found


def show(found: dict[str, list[dict[str, Any]]], rows: int) -> None:
    table = Table(title=f"{rows:,} rows from offset 0")
    for column in ("", "rows/s", "x raw", "CPU s per 1 M", "peak MiB"):
        table.add_column(column, justify="left" if not column else "right")
    for name, results in found.items():
        ratio = statistics.median(rate(f) / rate(r) for f, r in zip(results, found["raw"], strict=True))
        cpu = statistics.median(r["cpu_s"] / r["rows"] * 1e6 for r in results)
        speed, peak = statistics.median(map(rate, results)), max(r["peak_mib"] for r in results)
        table.add_row(name, f"{speed:,.0f}", f"{ratio:.3f}", f"{cpu:.2f}", f"{peak:.0f}")
    console.print(table)
    size = found["check"][-1]
    console.print(
        f"{size['bytes'] / size['rows']:.1f} bytes a row in the archive; as JSON {size['json_bytes'] / 1e4:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.archive", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    with mg.connect() as log:
        console.print(f"[dim]writing 2 x {given.rows:,} rows")
        topics = fill(log, given.rows)
        found = rounds(log.bootstrap_servers, topics.upsert, given.rows, given.rounds)
        show(found, given.rows)
    if given.json:
        facts = {"rows": given.rows, "machine": platform.machine(), "python": platform.python_version()}
        given.json.write_text(json.dumps({**found, **facts, "at": time.time()}, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--figure"]:
        figure(*sys.argv[2:6])
    else:
        main()
