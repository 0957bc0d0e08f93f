"""Clients as people have them: each reads one row, as fresh as a token, and says what it saw beside it.

All ask the same: the row, and in the same statement how many rows and how many offsets the table has that is being
written meanwhile. They differ by how a client takes SQL, parameters, and a header.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import adbc_driver_flightsql.dbapi as adbc
import pandas as pd
import polars as pl

import merganser as mg
from clients.versions import SPARK
from clients.writer import HOLDS
from support.jdbc import OPENS, driver
from support.nodes import Node
from support.venvs import venv

HERE = Path(__file__).parent
#: What JDBC says of the table: java.sql.Types, and the key.
CATALOG = "sale_id:-5 sku:12 qty:4 price:3 sold_at:2014 _partition:4 _offset:-5 _timestamp:2014 key:sale_id"
_AFTER = "adbc.flight.sql.rpc.call_header.merganser-after"


class Seen(NamedTuple):
    """The row, and what the other table had in the same state: *ticks* rows, *wrong* ones of them, *offsets*."""

    sku: str
    qty: int
    price: Decimal
    sold_at: datetime
    ticks: int
    wrong: int
    offsets: int


@dataclass(frozen=True)
class Place:
    """What is read, and where."""

    node: Node
    folder: Path
    sales: str
    ticks: str

    def sql(self, sold_at: str = "s.sold_at", sale: str = "") -> str:
        """Ends with where the sale's number belongs."""
        offsets = f"SELECT sum(next_offset)::BIGINT FROM _merganser.positions WHERE topic = '{self.ticks}'"
        wrong = f'SELECT count(*) FROM "{self.ticks}" WHERE NOT ({HOLDS})'
        return (
            f'SELECT s.sku, s.qty, s.price, {sold_at} AS sold_at, (SELECT count(*) FROM "{self.ticks}") AS ticks,'
            f' ({wrong}) AS wrong, ({offsets}) AS offsets FROM "{self.sales}" AS s WHERE s.sale_id = {sale}'
        )

    @property
    def jdbc(self) -> str:
        return f"jdbc:arrow-flight-sql://{self.node.flight}?useEncryption=false"


@dataclass(frozen=True)
class Reader:
    """A client that is ready: *read* takes a token and a sale's number."""

    version: str
    read: Callable[[str, int], Seen]


class Missing(Exception):
    """A client that cannot be had here; str() says why."""


@contextmanager
def curl(place: Place) -> Iterator[Reader]:
    def read(token: str, sale: int) -> Seen:
        body = json.dumps({"sql": place.sql(sale="?"), "params": [sale]})
        line = ["curl", "--fail-with-body", "-sS", f"{place.node.url}/query", "-H", f"Merganser-After: {token}"]
        done = subprocess.run(
            [*line, "-H", "Content-Type: application/json", "-d", body], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done
        [(sku, qty, price, sold_at, *counts)] = json.loads(done.stdout)["rows"]
        return Seen(sku, qty, Decimal(price), datetime.fromisoformat(sold_at), *counts)

    said = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    yield Reader(said.split()[1], read)


@contextmanager
def ours(place: Place) -> Iterator[Reader]:
    with mg.Client(place.node.url) as client:

        def read(token: str, sale: int) -> Seen:
            [row] = client.query(place.sql(sale="?"), [sale], after=token or None).rows()
            return Seen(*row)

        yield Reader(version("merganser"), read)


@contextmanager
def _adbc(place: Place, read: Callable[[Any, int], Seen]) -> Iterator[Callable[[str, int], Seen]]:
    """*read* with a connection whose header is set anew each time."""
    with adbc.connect(f"grpc://{place.node.flight}", autocommit=True) as connection:

        def fresh(token: str, sale: int) -> Seen:
            connection.adbc_connection.set_options(**{_AFTER: token})
            return read(connection, sale)

        yield fresh


@contextmanager
def arrow(place: Place) -> Iterator[Reader]:
    def read(connection: Any, sale: int) -> Seen:
        with connection.cursor() as cursor:
            cursor.execute(place.sql(sale="?"), [sale])
            [row] = cursor.fetchall()
            return Seen(*row)

    with _adbc(place, read) as fresh:
        yield Reader(version("adbc-driver-flightsql"), fresh)


@contextmanager
def pandas(place: Place) -> Iterator[Reader]:
    def read(connection: Any, sale: int) -> Seen:
        found = pd.read_sql(f"{place.sql()}{sale}", connection, dtype_backend="pyarrow")
        [row] = found.itertuples(index=False)
        return Seen(row.sku, row.qty, row.price, row.sold_at.to_pydatetime(), row.ticks, row.wrong, row.offsets)

    with _adbc(place, read) as fresh:
        yield Reader(version("pandas"), fresh)


@contextmanager
def polars(place: Place) -> Iterator[Reader]:
    def read(connection: Any, sale: int) -> Seen:
        options: dict[str, Any] = {"parameters": [sale]}
        [row] = pl.read_database(place.sql(sale="?"), connection, execute_options=options).rows()
        return Seen(*row)

    with _adbc(place, read) as fresh:
        yield Reader(version("polars"), fresh)


@contextmanager
def jdbc(place: Place) -> Iterator[Reader]:
    if shutil.which("javac") is None:
        raise Missing("no JDK, which compiles the program that reads")
    line = ["java", OPENS, "-Dfile.encoding=UTF-8", "-cp", str(driver()), str(HERE / "ReadOwnWrites.java")]
    with _child(place, [*line, place.jdbc, place.sales, place.sql(sale="?")]) as (said, answer):

        def read(token: str, sale: int) -> Seen:
            *row, catalog = answer(f"{token} {sale}").split("\t")
            assert catalog == f"{place.sales} {CATALOG}"
            return _seen(row)

        yield Reader(said, read)


@contextmanager
def spark(place: Place) -> Iterator[Reader]:
    if shutil.which("java") is None:
        raise Missing("no Java, which Spark runs on")
    bin_, why = venv(place.folder / "spark", SPARK)
    if bin_ is None:
        raise Missing(why)
    line = [str(bin_ / "python"), str(HERE / "spark_reader.py"), str(driver()), place.jdbc]
    env = {"SPARK_LOCAL_IP": "127.0.0.1"}
    with _child(place, [*line, place.sql("s.sold_at::TIMESTAMP")], env) as (said, answer):
        yield Reader(said, lambda token, sale: _seen(answer(f"{token} {sale}").split("\t")))


def _seen(row: list[str]) -> Seen:
    sku, qty, price, sold_at, *counts = row
    return Seen(sku, int(qty), Decimal(price), datetime.fromisoformat(sold_at), *map(int, counts))


@contextmanager
def _child(
    place: Place, line: list[str], env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Callable[[str], str]]]:
    """A process that says something first, and then a line to each line. What it complains of goes to a file."""
    log = place.folder / f"{Path(line[0]).name}.err"
    with log.open("w") as err:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": err, "text": True}
        process = subprocess.Popen(line, env={**os.environ, **(env or {})}, **pipes)
    asked, told = process.stdin, process.stdout
    assert asked is not None and told is not None

    def heard() -> str:
        said = told.readline()
        assert said, log.read_text()[-3000:]
        return said.rstrip("\n")

    def answer(question: str) -> str:
        asked.write(question + "\n")
        asked.flush()
        return heard()

    try:
        yield heard(), answer
        asked.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


#: By name; those of the long form come after.
READERS = {"curl": curl, "mg.Client": ours, "ADBC": arrow, "pandas": pandas, "Polars": polars}
LARGE = {"JDBC": jdbc, "Spark": spark}
