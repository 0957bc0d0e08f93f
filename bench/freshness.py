"""From put to visible: how old a row is when a query on the replica first sees it.

A writer process puts rows at a steady rate, each with the monotonic time of its put; this process has a
replica and queries it after each of its commits. Both are on one host, so one clock times both ends.

The floor is what DuckDB alone takes for the statements of one small apply and one query, with nothing else
running. A row waits for half of the apply before its own, for its own and for the query: freshness cannot
be better than about twice the floor, and is the worse the less of a core is left for it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

import merganser as mg

from .world import partitions

SCHEMA = {
    "type": "record",
    "name": "tick",
    "fields": [{"name": "id", "type": "long"}, {"name": "put_ns", "type": "long"}, {"name": "note", "type": "string"}],
}


def write(servers: str, table: str, rate: int, seconds: float) -> None:
    """Put rows at *rate* a second, in steps of a millisecond or one row, whichever is longer."""
    with mg.connect(servers) as log, log.producer() as producer:
        started = time.monotonic()
        sent = 0
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate)
            for n in range(sent, due):
                producer.put(table, {"id": n, "put_ns": time.monotonic_ns(), "note": f"some note {n}"})
            sent = max(sent, due)
            time.sleep(max(0.001, 1 / rate))
        producer.flush()


def ages_ms(replica: mg.Replica, table: str, until: float) -> list[float]:
    """The age of each row at the end of the first query that returned it."""
    ages: list[float] = []
    sql = f'SELECT put_ns FROM "{table}" WHERE _offset >= ?[_partition + 1]'
    seen = replica.query(f'SELECT 1 FROM "{table}" LIMIT 0').position
    while time.monotonic() < until:
        if replica.position == seen:
            time.sleep(0.001)
            continue
        result = replica.query(sql, [[seen[at] for at in partitions(table)]])
        now = time.monotonic_ns()
        ages += [(now - put_ns) / 1e6 for (put_ns,) in result.rows()]
        seen = result.position
    return ages


def measure(servers: str, rate: int, seconds: float) -> dict[str, float]:
    """Percentiles over all rows but those of the first seconds, in which everything is loaded."""
    table = f"bench-fresh-{rate}-{int(time.time())}"
    warm_s = 3.0
    with mg.connect(servers) as log, tempfile.TemporaryDirectory() as folder:
        log.create_table(table, schema=SCHEMA, key=["id"])
        with mg.Replica(Path(folder) / "fresh.duckdb", log, group=table, tables=[table]) as replica:
            replica.wait(log.ends(partitions(table)))
            arguments = [sys.executable, "-m", "bench.freshness", servers, table, str(rate), str(warm_s + seconds + 1)]
            writer = subprocess.Popen(arguments)
            try:
                while not replica.query(f'SELECT 1 FROM "{table}" LIMIT 1'):
                    time.sleep(0.01)
                ages_ms(replica, table, time.monotonic() + warm_s)
                ages = sorted(ages_ms(replica, table, time.monotonic() + seconds))
            finally:
                writer.wait()
    return {"rate": rate, "rows": len(ages), "p50_ms": ages[len(ages) // 2], "p99_ms": ages[len(ages) * 99 // 100]}


def floor(turns: int = 200, rows: int = 25) -> dict[str, float]:
    """Median time of one apply of *rows* to a keyed table, and of one query of it, by DuckDB's statements alone."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(str(Path(folder) / "floor.duckdb")) as con:
        con.execute("CREATE TABLE ticks (id BIGINT, put_ns BIGINT, note VARCHAR)").fetchall()
        con.execute("CREATE TABLE positions AS SELECT i AS partition, 0 AS next FROM range(4) AS r(i)").fetchall()
        applies, queries = [], []
        for turn in range(turns):
            ids = range(turn * rows, (turn + 1) * rows)
            batch = pa.table({"id": ids, "put_ns": ids, "note": [f"some note {n}" for n in ids]})
            began = time.perf_counter()
            con.begin()
            con.register("batch", batch)
            con.execute("DELETE FROM ticks AS t USING batch AS b WHERE t.id = b.id").fetchall()
            con.execute("INSERT INTO ticks SELECT * FROM batch").fetchall()
            con.unregister("batch")
            moved = "SELECT unnest(?::INTEGER[]) AS partition, unnest(?::BIGINT[]) AS next"
            sql = f"UPDATE positions AS p SET next = m.next FROM ({moved}) AS m WHERE p.partition = m.partition"
            con.execute(sql, [[0, 1, 2, 3], [turn] * 4]).fetchall()
            con.commit()
            applied = time.perf_counter()
            con.begin()
            con.execute("SELECT * FROM positions").fetchall()
            con.sql("SELECT put_ns FROM ticks WHERE id >= ?", params=[turn * rows]).to_arrow_table()
            con.rollback()
            applies.append(applied - began)
            queries.append(time.perf_counter() - applied)
    return {"apply_ms": 1e3 * statistics.median(applies), "query_ms": 1e3 * statistics.median(queries)}


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps(floor()))
    elif len(sys.argv) == 5:
        write(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))


if __name__ == "__main__":
    main()
