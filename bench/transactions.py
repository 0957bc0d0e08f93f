"""Transactions: how many a producer commits in a second, how long until a replica shows them, and how
fast a new replica reads them all back.

A writer process commits one transaction after another, each over both tables, and notes when each commit
returned; this process has a replica and queries it after each of its commits. Both are on one host, so
one clock times both ends. Transactions write keys of their own, or all of them the same: then each has to
wait for the one before, and a replica decides on each record by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import merganser as mg

SCHEMA = {
    "type": "record",
    "name": "entry",
    "fields": [{"name": "id", "type": "long"}, {"name": "tx", "type": "long"}, {"name": "note", "type": "string"}],
}


def write(servers: str, tables: list[str], rows: int, seconds: float, same: bool) -> None:
    """Commit for *seconds*; prints the monotonic time at which each commit returned, as JSON."""
    committed: list[int] = []
    with mg.connect(servers) as log, log.producer() as producer:
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            first = 0 if same else rows * len(committed)
            with producer.transaction() as tx:
                for n in range(first, first + rows):
                    tx.put(tables[n % 2], {"id": n, "tx": len(committed), "note": f"some note {n}"})
            committed.append(time.monotonic_ns())
    print(json.dumps({"committed": committed, "seconds": time.monotonic() - started}))


def first_seen(replica: mg.Replica, tables: list[str], writer: subprocess.Popen[str]) -> dict[int, int]:
    """For the last transaction that each query shows, when it was shown first."""
    sql = " UNION ALL ".join(f'SELECT max(tx) AS tx FROM "{table}"' for table in tables)
    seen: dict[int, int] = {}
    position = replica.position
    while writer.poll() is None:
        if replica.position == position:
            time.sleep(0.0005)
            continue
        result = replica.query(f"SELECT max(tx) FROM ({sql})")
        [(last,)] = result.rows()
        if last is not None:
            seen.setdefault(last, time.monotonic_ns())
        position = result.applied
    return seen


def measure(servers: str, rows: int, seconds: float, same: bool) -> dict[str, Any]:
    """Figures of transactions of *rows* rows, all on the *same* keys or each on its own."""
    tables = [f"bench-tx-{rows}-{side}-{int(time.time())}" for side in "ab"]
    with mg.connect(servers) as log, tempfile.TemporaryDirectory() as folder:
        for table in tables:
            log.create_table(table, schema=SCHEMA, key=["id"])
        with mg.Replica(Path(folder) / "live.duckdb", log, group=tables[0], tables=tables) as replica:
            arguments = [sys.executable, "-m", "bench.transactions", servers, ",".join(tables), str(rows), str(seconds)]
            arguments += ["same"] if same else []
            writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
            seen = first_seen(replica, tables, writer)
            output, _ = writer.communicate()
        done = json.loads(output.splitlines()[-1])
        committed: list[int] = done["committed"]
        # A query that shows several at once for the first time counts for the last of them.
        ages = sorted((at - committed[tx]) / 1e6 for tx, at in seen.items() if tx < len(committed))
        began = time.monotonic()
        with mg.Replica(Path(folder) / "again.duckdb", log, group=tables[1], tables=tables) as replica:
            replica.query("SELECT 1", level="strong", timeout=600)
        again_s = time.monotonic() - began
    return {
        "rows": rows,
        "keys": "same" if same else "own",
        "transactions_s": len(committed) / done["seconds"],
        "rows_s": rows * len(committed) / done["seconds"],
        "p50_ms": ages[len(ages) // 2],
        "p99_ms": ages[len(ages) * 99 // 100],
        "catch_up_rows_s": rows * len(committed) / again_s,
    }


def main() -> None:
    same = sys.argv[-1] == "same"
    servers, *what, rows, seconds = sys.argv[1:-1] if same else sys.argv[1:]
    if what:
        write(servers, what[0].split(","), int(rows), float(seconds), same)
    else:
        print(json.dumps(measure(servers, int(rows), float(seconds), same)))


if __name__ == "__main__":
    main()
