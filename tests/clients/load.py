"""Clients that each read their own writes, while another process appends rows at a rate.

A round: a sale is put, its token goes to the client, and the client's one query has to show that very row (its values
tell one round from the next), and of the other table as many rows as offsets, none of them wrong, and never fewer than
before. How long it took, and which rate was reached, is told and not judged: two cores have a broker to run as well.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import merganser as mg
from clients.readers import Missing, Place, Reader, Seen
from clients.writer import SCHEMA as TICK
from support.nodes import node
from support.waiting import wait_for

TESTS = Path(__file__).resolve().parents[1]

SALE = {
    "type": "record",
    "name": "sale",
    "fields": [
        {"name": "sale_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "qty", "type": "int"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "sold_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}

Make = Callable[[Place], AbstractContextManager[Reader]]


@dataclass
class Figures:
    """Of one client."""

    name: str
    version: str
    ms: list[float] = field(default_factory=list)
    applied_s: float = 0.0
    """Rows of the other table that became visible meanwhile, a second."""


@dataclass
class Report:
    rate: int
    clients: list[Figures] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    written: int = 0
    written_s: float = 0.0

    def text(self) -> str:
        lines = [f"{self.written:,} rows written, {self.written_s:,.0f}/s of {self.rate:,}/s that were wanted"]
        for one in self.clients:
            lines.append(
                f"{one.name:>10} {one.version}: {len(one.ms)} own writes read, from put to answer p50"
                f" {statistics.median(one.ms):.0f} ms, most {max(one.ms):.0f} ms; {one.applied_s:,.0f} rows/s applied"
            )
        lines += [f"{name:>10}: not run, {why}" for name, why in self.missing.items()]
        return "\n".join([*lines, *(self.wrong or ["every read was its own write, of one state, with right values"])])


def load(
    servers: str, folder: Path, makes: Mapping[str, Make], rate: int, rounds: int, *, by_token: bool = True
) -> Report:
    """Each of *makes* reads *rounds* own writes while *rate* rows/s are written. *by_token*: False is the naive
    way, in which only the first read of each client has one."""
    report, tag = Report(rate), uuid.uuid4().hex[:8]
    sales, ticks = f"sales-{tag}", f"ticks-{tag}"
    with mg.connect(servers) as log, log.producer() as producer:
        log.create_table(sales, SALE, ["sale_id"], partitions=2)
        log.create_table(ticks, TICK, partitions=4)
        with node(folder, servers, [sales, ticks], f"clients-{tag}", 'flight = "127.0.0.1:0"\n') as serving:
            place = Place(serving, folder, sales, ticks)
            with _writing(servers, ticks, rate, report):
                _wait_until_applied(place, rate)
                each = Rounds(report, producer, sales, rounds, by_token)
                for number, (name, make) in enumerate(makes.items()):
                    try:
                        with make(place) as reader:
                            each.read(name, reader, number)
                    except Missing as why:
                        report.missing[name] = str(why)
    return report


@contextmanager
def _writing(servers: str, ticks: str, rate: int, report: Report) -> Iterator[None]:
    line = [sys.executable, "-m", "clients.writer", servers, ticks, str(rate)]
    process = subprocess.Popen(line, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
        said, _ = process.communicate("\n", timeout=90)
        figures = json.loads(said)
        report.written, report.written_s = figures["rows"], figures["rows"] / figures["seconds"]
    finally:
        process.kill()
        process.wait()


def _wait_until_applied(place: Place, rate: int) -> None:
    with mg.Client(place.node.url) as client:
        sql = f'SELECT count(*) FROM "{place.ticks}"'
        wait_for("the writer's rows to be applied", lambda: client.query(sql).rows()[0][0] > rate // 2, timeout_s=60)


#: So long something has to be written for once.
_BURST_S = 30.0


@dataclass(frozen=True)
class Rounds:
    """What it takes to let one client after the other read its own writes."""

    report: Report
    producer: mg.Producer
    sales: str
    count: int
    by_token: bool

    def read(self, name: str, reader: Reader, sale: int) -> None:
        """*reader*'s rounds, with the row of *sale*."""
        figures, seen, began = Figures(name, reader.version), [0], time.monotonic()
        for round_ in count():
            # Rows come in bursts, and a quick client may be done between two of them.
            if round_ >= self.count and (seen[-1] > seen[1] or time.monotonic() - began > _BURST_S):
                break
            row, put_at = _row(sale, round_), time.monotonic()
            self.producer.put(self.sales, row)
            token = str(self.producer.flush())
            found = reader.read(token if self.by_token or not round_ else "", sale)
            figures.ms.append(1e3 * (time.monotonic() - put_at))
            self.report.wrong += [f"{name}, round {round_}: {what}" for what in wrong(found, row, seen[-1])]
            seen.append(found.ticks)
        if seen[-1] == seen[1]:
            self.report.wrong.append(f"{name}: nothing was written meanwhile")
        figures.applied_s = (seen[-1] - seen[1]) / (time.monotonic() - began)
        self.report.clients.append(figures)


def wrong(found: Seen, row: Mapping[str, Any], before: int) -> Iterator[str]:
    """What a client should not have seen after it put *row*, having seen *before* ticks."""
    wanted = (row["sku"], row["qty"], row["price"], row["sold_at"])
    if found[:4] != wanted:
        yield f"{found[:4]} instead of {wanted}"
    if found.ticks != found.offsets:
        yield f"{found.ticks:,} rows at offset {found.offsets:,}"
    if found.wrong:
        yield f"{found.wrong:,} rows with other values than were written"
    if found.ticks < before:
        yield f"{found.ticks:,} rows after {before:,}"


def _row(sale: int, round_: int) -> dict[str, Any]:
    """A row whose every value tells the round."""
    when = datetime(2026, 1, 30, 12, tzinfo=UTC) + timedelta(days=sale, microseconds=1 + round_)
    return {"sale_id": sale, "sku": f"ü-{round_}", "qty": round_, "price": Decimal(1 + round_) / 100, "sold_at": when}
