"""What is exported and imported again is the same, for every type that the format can carry."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_tables import bad, encoded, record, scanned, table, values

from merganser.consumers.storefile import StoreFile
from merganser.pipeline.loading import export
from merganser.pipeline.loading.export import MANIFEST, export_table
from merganser.pipeline.loading.inputs import open_input
from merganser.schemas.avro import row_type
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import NotFreshEnough, UnknownTable, UsageError
from merganser.schemas.position import Position
from merganser.schemas.table import Table
from merganser.schemas.types import Type, quote
from restore.town import Town
from stories.world import World
from support.avro_strategies import patient, rows_of, schemas_and_rows


class MemoryStore:
    """A store as far as an export looks at one."""

    def __init__(self, declared: Table, rows: pa.Table) -> None:
        self._con = duckdb.connect()
        self._con.execute("SET TimeZone = 'UTC'")
        self._con.execute("CREATE SCHEMA _merganser")
        self._con.execute("CREATE TABLE _merganser.tables AS SELECT ? AS topic", [declared.name])
        self._con.execute(
            "CREATE TABLE _merganser.positions AS"
            " SELECT ? AS topic, 0 AS partition, ?::BIGINT AS next_offset, ?::BIGINT AS applied_offset",
            [declared.name, rows.num_rows, rows.num_rows],
        )
        fields = row_type(declared.name, declared.latest.schema).fields
        columns = ", ".join(f"{quote(f.name)} {f.type.sql}" for f in fields)
        self._con.execute(
            f"CREATE TABLE {declared.name} ({columns}, _partition INTEGER, _offset BIGINT, _timestamp TIMESTAMPTZ)"
        )
        place = {"_partition": pa.repeat(0, rows.num_rows), "_offset": pa.array(range(rows.num_rows))}
        for column, numbers in place.items():
            rows = rows.append_column(column, numbers)
        self._con.register("given", rows)
        self._con.execute(f"INSERT INTO {declared.name} BY NAME SELECT * FROM given")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        yield self._con.cursor()


def kinds(type_: Type) -> Iterator[str]:
    yield type_.kind
    if type_.item is not None:
        yield from kinds(type_.item)
    for f in type_.fields:
        yield from kinds(f.type)


@given(schemas_and_rows(), st.sampled_from(["parquet", "csv", "json"]))
@settings(patient, max_examples=25)
def test_what_is_exported_is_imported_as_it_was(drawn: tuple[Any, list[dict[str, Any]]], format_: Any) -> None:
    check_round_trip(*drawn, format_)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(schemas_and_rows(), st.sampled_from(["parquet", "csv", "json"]))
@settings(patient, max_examples=1500)
def test_what_is_exported_is_imported_as_it_was_many_times(drawn: tuple[Any, list[Any]], format_: Any) -> None:
    check_round_trip(*drawn, format_)


def check_round_trip(schema: Any, rows: list[dict[str, Any]], format_: Any) -> None:
    declared = table(schema)
    before = [RowEncoder(declared).value(row) for row in rows]
    decoder = Decoder(declared.latest, declared.name)
    store = MemoryStore(declared, decoder.decode(before).rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{format_}"
        if format_ != "parquet" and any("nanos" in kind for kind in kinds(row_type("t", schema))):
            with pytest.raises(UsageError, match="cannot carry"):
                export_table(store, "t", str(path), format_)
            assert not list(Path(folder).iterdir())
            return
        done = export_table(store, "t", str(path), format_)
        assert (done.rows, done.size, done.sha256) == (len(rows), path.stat().st_size, scanned(path).sha256)
        parts = encoded(path.read_bytes(), declared, format_)
        assert bad(parts) == []
        assert rows_of(decoder.decode(values(parts)).rows) == rows_of(decoder.decode(before).rows)


@pytest.mark.parametrize("format_", ["csv", "json", "parquet"])
def test_floats_keep_each_bit(format_: Any) -> None:
    awkward = [1e20, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 * 4, 123456789012345680.0, float("nan"), 1e16, 0.1]
    rows = [
        {"d": d, "f": f}
        for d, f in zip(awkward, [33554432.0, 1.5, -0.0, 2.0**100, 0.5, 1e9, 0.1, 3.0, 7e-46], strict=True)
    ]
    check_round_trip(record(("d", "double"), ("f", "float")), rows, format_)


ROWS = pa.table({"id": pa.array([2, 1], pa.int64()), "name": ["b", None]})
DECLARED = table(record(("id", "long"), ("name", ["null", "string"])), ["id"])


def test_a_file_comes_whole_with_a_manifest_after_it(tmp_path: Path) -> None:
    store, to = MemoryStore(DECLARED, ROWS), tmp_path / "t.csv"
    seen: dict[str, list[str]] = {}

    def look(step: str) -> None:
        seen[step] = sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".part"))

    done = export_table(store, "t", str(to), "csv", on_step=look)
    assert seen == {"written": [], "placed": ["t.csv"], "published": ["t.csv", "t.csv" + MANIFEST]}
    assert to.read_bytes() == b'"id","name"\n2,"b"\n1,\n'
    assert (tmp_path / ("t.csv" + MANIFEST)).read_bytes() == done.manifest()
    assert (done.position, done.rows) == ("t/0:2", 2) and done.columns_digest.startswith("2-")
    again = export_table(store, "t", str(tmp_path / "u.csv"), "csv")
    assert (again.sha256, again.digest) == (done.sha256, done.digest)


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    store, to = MemoryStore(DECLARED, ROWS), tmp_path / "t.csv"
    to.write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        export_table(store, "t", str(to), "csv")
    assert to.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    export_table(store, "t", str(to), "csv", force=True)
    assert to.read_text() != "mine"


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = MemoryStore(DECLARED, ROWS)

    def fail(step: str) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        export_table(store, "t", str(tmp_path / "t.csv"), "csv", on_step=fail)
    with pytest.raises(UnknownTable):
        export_table(store, "u", str(tmp_path / "t.csv"), "csv")
    with pytest.raises(NotFreshEnough, match="t/0:2, not t/0:3"):
        export_table(store, "t", str(tmp_path / "t.csv"), "csv", at_least=Position.parse("t/0:3"))
    with pytest.raises(UsageError, match="--to names a file"):
        export_table(store, "t", str(tmp_path), "csv", force=True)
    with pytest.raises(UsageError, match="folder does not exist"):
        export_table(store, "t", str(tmp_path / "no" / "t.csv"), "csv")
    assert not list(tmp_path.iterdir())


def test_an_empty_table_is_a_file_without_rows(tmp_path: Path) -> None:
    store = MemoryStore(DECLARED, ROWS.slice(0, 0))
    for format_ in ("csv", "parquet", "json"):
        path = tmp_path / f"t.{format_}"
        assert export_table(store, "t", str(path), format_).rows == 0  # type: ignore[arg-type]
        assert values(encoded(path.read_bytes(), DECLARED, format_)) == []
        with open_input(str(path)) as file:
            assert file.format == format_


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("format_", ["csv", "json"])
def test_a_file_is_packed_as_its_name_says(format_: Any, ending: str, tmp_path: Path) -> None:
    plain, path = tmp_path / f"t.{format_}", tmp_path / f"t.{format_}{ending}"
    export_table(MemoryStore(DECLARED, ROWS), "t", str(plain), format_)
    done = export_table(MemoryStore(DECLARED, ROWS), "t", str(path), format_)
    assert path.read_bytes()[:2] == {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5"}[ending]
    with open_input(str(path)) as file, file.open() as stream:
        assert file.sha256 == done.sha256 and stream.read() == plain.read_bytes()
    again = export_table(MemoryStore(DECLARED, ROWS), "t", str(path), format_, force=True)
    assert again.sha256 == done.sha256


def test_parquet_in_a_packed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compress themselves"):
        export_table(MemoryStore(DECLARED, ROWS), "t", str(tmp_path / "t.parquet.gz"), "parquet")


def test_an_object_that_is_there_is_not_replaced_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by force its manifest goes first: killed in between, it would speak of another file."""
    objects = {"s3://b/t.csv": b"mine", "s3://b/t.csv" + MANIFEST: b"of mine"}
    seen: list[set[str]] = []
    monkeypatch.setattr(export, "exists", lambda url: url in objects)
    monkeypatch.setattr(export, "remove", lambda url: objects.pop(url, None))
    monkeypatch.setattr(export, "upload", lambda path, url: objects.update({url: path.read_bytes()}))
    with pytest.raises(UsageError, match="there already"):
        export_table(MemoryStore(DECLARED, ROWS), "t", "s3://b/t.csv", "csv")
    assert objects["s3://b/t.csv"] == b"mine"
    look = lambda step: seen.append({*objects})  # noqa: E731
    export_table(MemoryStore(DECLARED, ROWS), "t", "s3://b/t.csv", "csv", force=True, on_step=look)
    assert seen[1] == {"s3://b/t.csv"} and seen[2] == {*objects} and len(objects) == 2


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
import test_round_trip as t
store = t.MemoryStore(t.DECLARED, t.ROWS)
def die(step):
    if step == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
t.export_table(store, "t", sys.argv[3], "csv", on_step=die, force=True)
"""


def test_a_kill_at_each_step_leaves_no_manifest_without_its_file(tmp_path: Path) -> None:
    to = tmp_path / "t.csv"
    here = Path(__file__).parent
    for step, there in (("written", []), ("placed", ["t.csv"]), ("published", ["t.csv", "t.csv" + MANIFEST])):
        command = [sys.executable, "-c", KILLED, str(here.parent), str(here), str(to), step]
        assert subprocess.run(command, timeout=300).returncode == -9
        assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".part")) == there
    done = export_table(MemoryStore(DECLARED, ROWS), "t", str(to), "csv", force=True)
    assert (tmp_path / ("t.csv" + MANIFEST)).read_bytes() == done.manifest()


def test_a_token_of_a_transaction_over_other_tables_is_asked_of_the_whole_store(tmp_path: Path) -> None:
    world = World(1)
    world.write(60)
    town = Town(world, tmp_path)
    town.apply(town.ends)
    with StoreFile(town.store) as store:
        done = export_table(store, "plain", str(tmp_path / "t.json"), "json", at_least=town.ends)
        assert Position.parse(done.position) == town.ends.of({"plain"})
        beyond = Position({tp: end + (tp.topic == "keyed") for tp, end in town.ends.items()})
        with pytest.raises(NotFreshEnough, match="not keyed/0"):
            export_table(store, "plain", str(tmp_path / "u.json"), "json", at_least=beyond)
