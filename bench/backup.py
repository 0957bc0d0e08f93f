"""``python -m bench.backup``: taking and loading snapshots, against DuckDB's own Parquet COPY of the same tables.

Needs no broker: a store at rest is made of rows that are made up. Each figure is by a process of its own, with the
store in DuckDB's default memory limit for replicas; ratios are to COPY in the same round, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from merganser.consumers.contents import Columns, Loading
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.key import Key
from merganser.pipeline.backup import files
from merganser.pipeline.backup.catalog import all_whole
from merganser.pipeline.backup.create import Backups, Request
from merganser.pipeline.backup.verify import verify

from .throughput import peak_mib

console = Console()

PARTITIONS = 4
_COLUMNS = (
    ("id", "BIGINT"), ("sku", "VARCHAR"), ("qty", "INTEGER"), ("price", "DOUBLE"),
    ("_partition", "INTEGER"), ("_offset", "BIGINT"), ("_timestamp", "TIMESTAMP WITH TIME ZONE"),
)  # fmt: skip
_ROWS = """
INSERT INTO orders SELECT i, 'sku-' || md5(i::VARCHAR)[:12], i % 100, (hash(i) % 100000) / 100,
    i % {parts}, i // {parts}, make_timestamptz(1700000000000000 + i * 1000) FROM range({rows}) AS r (i)
"""


def make_store(path: Path, rows: int) -> None:
    with Loading(path, "bench", "bench") as loading:
        loading.add_table(Columns("orders", _COLUMNS))
        con = loading.cursor()
        con.execute(_ROWS.format(rows=rows, parts=PARTITIONS)).fetchall()
        con.execute(
            "INSERT INTO _merganser.tables VALUES ('orders', 'id', ?, ['id'], 'avro', 1, 0, NULL)", [PARTITIONS]
        )
        con.execute(
            "INSERT INTO _merganser.positions SELECT 'orders', p, 'id', 0, ?, ?, 0, NULL, ?, 0, 0, 0, ?, 0, 0, 0, 0"
            " FROM range(?) AS r (p)",
            [rows // PARTITIONS, rows // PARTITIONS - 1, rows // PARTITIONS, rows // PARTITIONS, PARTITIONS],
        ).fetchall()


def copy(folder: Path, store: Path) -> None:
    """DuckDB alone: COPY TO, zstd."""
    con = duckdb.connect(str(store), read_only=True, config={"threads": 2, "memory_limit": "160MiB"})
    con.execute(f"COPY orders TO '{folder / 'copy.parquet'}' (FORMAT parquet, COMPRESSION zstd)").fetchall()


def uncopy(folder: Path, store: Path) -> None:
    """DuckDB alone: the same file into a new table, checkpointed."""
    con = duckdb.connect(str(folder / "copied.duckdb"), config={"threads": 2, "memory_limit": "160MiB"})
    con.execute(f"CREATE TABLE orders AS FROM '{folder / 'copy.parquet'}'").fetchall()
    con.execute("CHECKPOINT").fetchall()


def snapshot(folder: Path, store: Path, key: Key | None = None, name: str = "archive") -> None:
    """A full backup: digests, files, fsync."""
    with StoreFile(store) as source:
        Backups(Archive(folder / name).objects, key).create(source, Request(), lambda position: None)


def again(folder: Path, store: Path) -> None:
    """The same once more: nothing has changed."""
    snapshot(folder, store)


def encrypted(folder: Path, store: Path) -> None:
    """The first, encrypted."""
    snapshot(folder, store, Key(bytes(32)), "encrypted")


def prove(folder: Path, store: Path) -> None:
    """``backup verify``, without the archive of a log."""
    from merganser.pipeline.backup.catalog import catalog

    archive = Archive(folder / "archive")
    verify(archive, catalog(archive.objects), everything=False)


def load(folder: Path, store: Path) -> None:
    """What a restore does with its base, but for the digests."""
    objects = Archive(folder / "archive").objects
    newest = all_whole(objects)[-1]
    with Loading(folder / "loaded.duckdb", "bench", "bench") as loading:
        for table in newest.tables:
            loading.add_table(table.as_columns)
        for entry in newest.files:
            loading.add(entry.stretch, files.read(objects, entry, None))


FIGURES: dict[str, Callable[[Path, Path], None]] = {
    "COPY TO": copy, "COPY FROM": uncopy, "snapshot": snapshot, "unchanged": again, "encrypted": encrypted,
    "verify": prove, "load": load,
}  # fmt: skip
_OF = {"COPY TO": "COPY TO", "snapshot": "COPY TO", "unchanged": "COPY TO", "encrypted": "COPY TO"}


def figure(name: str, folder: Path, store: Path) -> None:
    """One figure, printed as a JSON line."""
    started, cpu = time.monotonic(), time.process_time()
    FIGURES[name](folder, store)
    found = {"seconds": time.monotonic() - started, "cpu_s": time.process_time() - cpu, "peak_mib": peak_mib()}
    print(json.dumps(found))


def measured(name: str, folder: Path, store: Path) -> dict[str, Any]:
    line = [sys.executable, "-m", "bench.backup", "--figure", name, str(folder), str(store)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.backup", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FIGURES}
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store.duckdb"
        make_store(store, given.rows)
        for number in range(given.rounds):
            console.print(f"[dim]round {number + 1} of {given.rounds}")
            with tempfile.TemporaryDirectory() as folder:
                for name in FIGURES:
                    found[name].append(measured(name, Path(folder), store))
                size = sum(path.stat().st_size for path in (Path(folder) / "archive" / "files").iterdir())
                copied = (Path(folder) / "copy.parquet").stat().st_size
    show(found, given.rows)
    console.print(f"{size / given.rows:.1f} bytes a row in the snapshot, {copied / given.rows:.1f} in DuckDB's file")
    if given.json:
        given.json.write_text(json.dumps({**found, "rows": given.rows, "bytes": size, "copied": copied}, indent=2))


def show(found: dict[str, list[dict[str, Any]]], rows: int) -> None:
    table = Table(title=f"{rows:,} rows of one table")
    for column in ("", "rows/s", "x COPY", "CPU s per 1 M", "peak MiB"):
        table.add_column(column, justify="left" if not column else "right")
    for name, results in found.items():
        base = found[_OF.get(name, "COPY FROM")]
        ratio = statistics.median(b["seconds"] / r["seconds"] for r, b in zip(results, base, strict=True))
        speed = rows / statistics.median(r["seconds"] for r in results)
        cpu, peak = statistics.median(r["cpu_s"] for r in results), max(r["peak_mib"] for r in results)
        table.add_row(name, f"{speed:,.0f}", f"{ratio:.2f}", f"{cpu / rows * 1e6:.2f}", f"{peak:.0f}")
    console.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--figure"]:
        figure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
