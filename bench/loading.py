"""``python -m bench.loading``: imports against `Producer.put` row by row, and what memory they take.

Each figure is of a process of its own, and a ratio to the loop that a newcomer writes first: `csv.DictReader`, types
by hand, `put`. "put alone" has its rows in memory already: that is the producer's own pace.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import merganser as mg
from merganser.pipeline.loading.inputs import open_input
from merganser.pipeline.loading.load import ImportOptions, import_file

SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "qty", "type": "int"},
        {"name": "price", "type": "double"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
FORMATS = ("csv", "csv.gz", "parquet", "json")
_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row(i: int) -> dict[str, Any]:
    note = None if i % 3 else f"note {i}"
    at = _EPOCH + dt.timedelta(milliseconds=i)
    return {"order_id": i, "sku": f"sku-{i % 997}", "qty": i % 12, "price": i % 1000 / 4, "note": note, "at": at}


def make_files(folder: Path, rows: int) -> None:
    names = list(row(0))
    with (folder / "a.csv").open("w", newline="") as out, (folder / "a.json").open("w") as lines:
        writer = csv.writer(out)
        writer.writerow(names)
        for i in range(rows):
            values = row(i)
            values["at"] = values["at"].isoformat().replace("+00:00", "Z")
            writer.writerow(values.values())
            lines.write(json.dumps(values) + "\n")
    subprocess.run(["gzip", "-k", "-1", folder / "a.csv"], check=True)
    schema = pa.schema([("order_id", pa.int64()), ("sku", pa.string()), ("qty", pa.int32()), ("price", pa.float64())])
    schema = schema.append(pa.field("note", pa.string())).append(pa.field("at", pa.timestamp("us", "UTC")))
    with pq.ParquetWriter(folder / "a.parquet", schema) as out:
        for start in range(0, rows, 100_000):
            part = [row(i) for i in range(start, min(rows, start + 100_000))]
            out.write_table(pa.Table.from_pylist(part, schema))


def one(figure: str, servers: str, table: str, folder: Path, rows: int) -> dict[str, Any]:
    """One figure, in this process. Rows are acknowledged when the clock stops."""
    with mg.connect(servers) as log:
        if figure == "put":
            given = [row(i) for i in range(rows)]
        began = time.monotonic()
        if figure == "put":
            with log.producer() as producer:
                for each in given:
                    producer.put(table, each)
        elif figure == "loop":
            with log.producer() as producer, (folder / "a.csv").open(newline="") as lines:
                for text in csv.DictReader(lines):
                    producer.put(table, typed(text))
        else:
            with open_input(str(folder / f"a.{figure}")) as file:
                import_file(log, log.table(table), file, ImportOptions(again=True))
        seconds = time.monotonic() - began
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's peak, at the fork
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    return {"figure": figure, "rows": rows, "seconds": seconds, "peak_mib": peak}


def typed(text: dict[str, str]) -> dict[str, Any]:
    return {
        "order_id": int(text["order_id"]),
        "sku": text["sku"],
        "qty": int(text["qty"]),
        "price": float(text["price"]),
        "note": text["note"] or None,
        "at": dt.datetime.fromisoformat(text["at"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        figure, servers, table, folder = given.one
        print(json.dumps(one(figure, servers, table, Path(folder), given.rows)))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, mg.connect() as log:
        make_files(Path(folder), given.rows)
        for round_ in range(given.rounds):
            for figure in ("loop", "put", *FORMATS):
                table = f"bench-load-{round_}-{figure}-{int(time.time())}"
                log.create_table(table, SCHEMA, ["order_id"])
                command = [sys.executable, "-m", "bench.loading", "--rows", str(given.rows), "--one"]
                done = subprocess.run(
                    [*command, figure, log.bootstrap_servers, table, folder], capture_output=True, text=True, check=True
                )
                found.setdefault(figure, []).append(json.loads(done.stdout))
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    for figure, results in found.items():
        speed = statistics.median(r["rows"] / r["seconds"] for r in results)
        ratio = statistics.median(
            first["seconds"] / r["seconds"] for first, r in zip(found["loop"], results, strict=True)
        )
        peak = max(r["peak_mib"] for r in results)
        print(f"{figure:>8}: {speed:>9,.0f} rows/s, {ratio:5.2f} x the loop, peak {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
