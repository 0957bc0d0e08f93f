"""A snapshot holds all of a store, and what it wrote once is not written again."""

from __future__ import annotations

import math
import struct
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from backup.restored import dump, load
from merganser.consumers.contents import Loading, Stretch, chunks, columns_of, stretches
from merganser.consumers.digest import table_digest
from merganser.consumers.reads import positions
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.key import Key
from merganser.pipeline.backup import files
from merganser.pipeline.backup.snapshot import ChunkLimits, Snapshotter
from merganser.schemas.errors import ArchiveDamaged
from merganser.schemas.position import TopicPartition
from support.memory import MemoryObjects

SMALL = ChunkLimits(rows=16)
KEY = Key(bytes(range(32)))
STRETCH = Stretch("t", False, TopicPartition("t", 0))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("name", ["store", "tx_store"])
def test_what_is_loaded_is_what_the_store_held(
    name: str, key: Key | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, objects = request.getfixturevalue(name), MemoryObjects()
    with StoreFile(path) as source:
        snapshot = Snapshotter(objects, key, SMALL).take(source, {})
        with source.reading() as cursor:
            expected = dump(cursor)
    assert load(snapshot, objects, key, tmp_path / "new.duckdb") == expected
    assert expected["_merganser.pending"] or name == "store"
    assert len(snapshot.files) > 20


def test_a_second_snapshot_of_the_same_store_writes_nothing(store: Path) -> None:
    objects = MemoryObjects()
    with StoreFile(store) as source:
        first = Snapshotter(objects, None, SMALL).take(source, {})
        objects.written.clear()
        second = Snapshotter(objects, None, SMALL).take(source, {})
    assert (second.files, second.new_bytes, objects.written) == (first.files, 0, [])


def test_an_encrypted_file_that_a_killed_process_left_is_named_by_its_hash(store: Path) -> None:
    objects = MemoryObjects()
    with StoreFile(store) as source:
        first = Snapshotter(objects, KEY, SMALL).take(source, {})
        second = Snapshotter(objects, KEY, SMALL).take(source, {})
    assert second.files == first.files and second.new_bytes == 0


def test_a_damaged_file_is_not_named_again(store: Path) -> None:
    objects = MemoryObjects()
    with StoreFile(store) as source:
        first = Snapshotter(objects, None, SMALL).take(source, {})
        name = first.files[0].name
        objects.files[name] = objects.files[name][:-1]
        second = Snapshotter(objects, None, SMALL).take(source, {})
    assert second.files == first.files and len(objects.files[name]) == first.files[0].size


def cut(offsets: list[int], rows: int = 64, nbytes: int = 2**25) -> list[list[int]]:
    """The offsets of each chunk."""
    con = duckdb.connect()
    con.register("numbers", pa.table({"n": pa.array(offsets, pa.int64())}))
    con.sql("CREATE TABLE t AS SELECT n, 0::INTEGER AS _partition, n AS _offset FROM numbers")
    found = chunks(con, STRETCH, rows, nbytes)
    return [chunk.rows.column("_offset").to_pylist() for chunk in found]


def test_a_change_in_one_place_leaves_the_other_chunks_as_they_are() -> None:
    before = cut(list(range(10_000)))
    after = cut([n for n in range(10_000) if n not in (3_000, 3_001, 5_555)] + [10_001])
    assert [n for chunk in before for n in chunk] == list(range(10_000))
    assert 100 < len(before) < 250 and max(map(len, before)) < 256
    new = [chunk for chunk in after if chunk not in before]
    assert len(new) <= 5


def test_a_chunk_is_cut_when_it_is_full() -> None:
    assert [len(chunk) for chunk in cut(list(range(5_000)), rows=2**20, nbytes=1)] == [2048, 2048, 904]


def test_values_come_back_to_the_bit(tmp_path: Path) -> None:
    nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000123))[0]
    con = duckdb.connect()
    con.sql(
        'CREATE TABLE t (d DOUBLE, f FLOAT, l DOUBLE[], s STRUCT(x DOUBLE, "y y" VARCHAR), m MAP(VARCHAR, FLOAT),'
        " u UUID, ns TIMESTAMP_NS, ts TIMESTAMP, tz TIMESTAMPTZ, t TIME, da DATE, dec DECIMAL(38, 3), b BLOB,"
        " _partition INTEGER, _offset BIGINT)"
    )
    values = [nan, math.nan, -0.0, 0.0, math.inf, None]
    for i, value in enumerate(values):
        con.execute(
            "INSERT INTO t SELECT ?, ?, [?, NULL], {'x': ?, 'y y': NULL}, MAP {'k': ?}, uuid(),"
            " '2262-04-11 23:47:16.854775806', '0001-01-01', '9999-12-31 23:59:59.999999+00', '23:59:59.999999',"
            " '0001-01-01', 99999999999999999999999999999999999.999, '\\x00\\xFF', 0, ?",
            [value, value, value, value, value, i],
        )
    con.execute("INSERT INTO t (_partition, _offset) VALUES (0, 6)")
    objects = MemoryObjects()
    with Loading(tmp_path / "new.duckdb", "c", "g") as loading:
        [columns] = columns_of(con, ["t"])
        loading.add_table(columns)
        for chunk in chunks(con, STRETCH, 1024):
            encoded = files.encode(chunk.rows, None)
            entry = files.entry(chunk, encoded.address, len(encoded.plain), encoded.address)
            objects.put(entry.name, encoded.plain)
            loading.add(entry.stretch, files.read(objects, entry, None))
        assert table_digest(loading.cursor(), "t") == table_digest(con, "t")


@pytest.mark.parametrize(
    "type_",
    [
        "VARCHAR",
        "BOOLEAN",
        "DOUBLE",
        "BLOB",
        "DECIMAL(4,2)",
        "UUID",
        "BIGINT",
        "INTEGER",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP_NS",
        "BIGINT[]",
        "STRUCT(a BIGINT)",
        "MAP(VARCHAR, BIGINT)",
    ],
)
def test_a_users_column_may_be_called_offset(tmp_path: Path, type_: str) -> None:
    """As one of ours is, which is numbers."""
    values = {"BOOLEAN": "true", "UUID": f"'{uuid.UUID(int=5)}'", "DATE": "'2026-01-31'", "TIME": "'12:34:56'"}
    values |= dict.fromkeys(["TIMESTAMP", "TIMESTAMP_NS"], "'2026-01-31 12:34:56'") | {"BIGINT[]": "[1, NULL]"}
    values |= {"BLOB": "'x'", "STRUCT(a BIGINT)": "{'a': 1}", "MAP(VARCHAR, BIGINT)": "MAP {'a': 1}"}
    con = duckdb.connect()
    con.execute(f'CREATE TABLE t ("offset" {type_}, _partition INTEGER, _offset BIGINT)')
    con.execute(f"INSERT INTO t VALUES ({values.get(type_, 7)}, 0, 0), (NULL, 0, 1)")
    [chunk] = chunks(con, STRETCH, 1024)
    encoded = files.encode(chunk.rows, None)
    objects, listed = MemoryObjects(), files.entry(chunk, encoded.address, len(encoded.plain), encoded.address)
    objects.put(listed.name, encoded.plain)
    assert files.read(objects, listed, None).cast(chunk.rows.schema).equals(chunk.rows)


def test_every_table_of_a_store_is_in_a_stretch(tx_store: Path) -> None:
    with StoreFile(tx_store) as source, source.reading() as cursor:
        covered = {stretch.sql.replace('"', "") for stretch in stretches(cursor, positions(cursor)[0])}
        sql = "SELECT schema_name || '.' || table_name FROM duckdb_tables()"
        there = {name.removeprefix("main.") for (name,) in cursor.execute(sql).fetchall()}
    assert there - covered == {"_merganser.store"}, "a new table has to be backed up too"


def test_wrong_key_is_told_plainly(store: Path) -> None:
    objects = MemoryObjects()
    with StoreFile(store) as source:
        snapshot = Snapshotter(objects, KEY, SMALL).take(source, {})
    with pytest.raises(ArchiveDamaged, match="cannot be read"):
        files.read(objects, snapshot.files[0], Key(bytes(32)))
