"""Arrow's own JDBC driver reads a served replica: metadata, rows, typed parameters, errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from merganser.pipeline.serving.flight.server import FlightDoor
from merganser.pipeline.serving.guard.guard import Guard
from serving.test_flight import Book
from serving.world import world
from support.jdbc import OPENS, driver

PROGRAM = Path(__file__).parent / "java" / "ReadThroughJdbc.java"

SAYS = """
product Merganser, read-only true
catalog shop
schema _merganser
schema main
table hidden
table orders
column id -5
column qty 4
column sku 12
column _partition 4
column _offset -5
column _timestamp 2014
key id
shape id BIGINT
row 0 0 null
row 1 1 null
row 2 2 null
bound 4 12.50 ü4 2024-02-29 2026-02-01T10:00:00.125Z 2026-02-01T10:00:00.125Z 12:34:56
bound 5 12.50 ü5 2024-02-29 2026-02-01T10:00:00.125Z 2026-02-01T10:00:00.125Z 12:34:56
sum 19999900000
""".strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK compiles the program that reads")
def test_a_java_program_reads_through_the_jdbc_driver(tmp_path: Path) -> None:
    with world(tmp_path) as served:
        guard = Guard(served.replica)
        with FlightDoor(guard, logins=Book()) as door:
            url = f"jdbc:arrow-flight-sql://127.0.0.1:{door.port}?useEncryption=false&user=all&password=pw"
            java = ["java", OPENS, "-Dfile.encoding=UTF-8", "-Duser.timezone=UTC"]
            done = subprocess.run(
                [*java, "-cp", str(driver()), str(PROGRAM), url], capture_output=True, text=True, timeout=120
            )
        guard.close()
    lines = done.stdout.splitlines()
    assert lines[:-2] == SAYS.splitlines(), done.stderr
    assert lines[-2].startswith("error 1 ") and "nowhere" in lines[-2] and "hint: " in lines[-2]
    assert lines[-1].startswith("error 1 ") and "DELETE is not a query" in lines[-1]
