"""What cannot be a store, or name one, is refused before there is a file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import merganser as mg
from merganser.consumers.kafka import KafkaReader
from merganser.consumers.store import Store
from merganser.schemas.errors import StoreFailed, StoreFormat, StoreFull, UsageError
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import Table
from support.fakelog import FakeLog


@pytest.mark.parametrize("group", ["", " ", None, 5])
def test_a_group_without_a_name(tmp_path: Path, group: Any) -> None:
    """confluent-kafka ends the whole process over an empty one, by an assertion in C."""
    with pytest.raises(UsageError, match="a group is a name"):
        mg.Replica(tmp_path / "r.duckdb", FakeLog(), group, ["t"])
    with pytest.raises(UsageError, match="a group is a name"):
        KafkaReader({}, group)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "_merganser.duckdb", "_merganser"])
def test_a_path_that_cannot_be_a_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreFormat):
        Store(tmp_path / name, "cluster", "g")
    assert not list(tmp_path.iterdir())


def test_no_store_is_begun_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended with DuckDB's own error, and what there was of the file was refused when there was room again."""
    usage = shutil.disk_usage(tmp_path)
    path = tmp_path / "s.duckdb"
    with monkeypatch.context() as patched:
        patched.setattr("merganser.consumers.dbfile.shutil.disk_usage", lambda _: usage._replace(free=0))
        with pytest.raises(StoreFull):
            Store(path, "cluster", "g")
    assert not list(tmp_path.iterdir())
    Store(path, "cluster", "g").close()


def test_what_a_failed_beginning_leaves_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "blocks" / "s.duckdb"  # the words of a message have the path in them
    path.parent.mkdir()

    def half(name: str, **options: Any) -> None:
        Path(name).write_bytes(b"\0" * 4096)
        raise duckdb.IOException(f'IO Error: Could not write file "{name}": No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr("merganser.consumers.dbfile.duckdb.connect", half)
        with pytest.raises(StoreFormat, match="No space left") as refused:
            Store(path, "cluster", "g")
        assert "make room" in refused.value.hint and not path.exists()
        path.write_bytes(b"")
        with pytest.raises(StoreFormat):
            Store(path, "cluster", "g")
        assert path.exists(), "what was there before is not taken away"


def test_no_store_is_begun_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def refused_by_duckdb(name: str, **options: Any) -> None:
        raise duckdb.IOException(f'IO Error: Cannot open file "{name}": Read-only file system')

    monkeypatch.setattr("merganser.consumers.dbfile.duckdb.connect", refused_by_duckdb)
    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(StoreFormat, match="Read-only") as refused:
        Store(tmp_path / "s.duckdb", "cluster", "g")
    assert "check who may" in refused.value.hint


def test_the_way_out_names_what_the_store_is_of(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    Store(path, "cluster", "mine").close()
    with pytest.raises(UsageError, match="belongs to group 'mine'") as refused:
        Store(path, "cluster", "yours")
    assert refused.value.hint.startswith("--group mine")
    plain = tmp_path / "plain.duckdb"
    with duckdb.connect(str(plain)) as con:
        con.execute("CREATE TABLE t (i INTEGER)").fetchall()
    with pytest.raises(StoreFormat, match="not a Merganser store") as other:
        Store(plain, "cluster", "g")
    assert "--store" in other.value.hint and "version" not in other.value.hint


def test_an_empty_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    path.touch()
    with pytest.raises(StoreFormat, match="the file is empty") as refused:
        Store(path, "cluster", "g")
    assert refused.value.hint.startswith(f"rm {path}")


def test_a_disk_that_fails_while_a_store_is_begun_ends_in_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Store, cluster_id: str, group: str) -> None:
        raise duckdb.FatalException("Failed to commit: No space left on device")

    monkeypatch.setattr(Store, "_prepare", fails)
    with pytest.raises(StoreFailed, match="No space left") as failed:
        Store(tmp_path / "s.duckdb", "cluster", "g")
    assert "make room" in failed.value.hint


def test_a_full_disk_ends_what_is_written_beside_the_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "s.duckdb", "cluster", "g")
    usage = shutil.disk_usage(tmp_path)
    table = Table("t", "id", 1, ())
    steps: dict[str, Callable[[], object]] = {
        "add_table": lambda: store.add_table(table, [("id", "BIGINT")], 1),
        "add_partitions": lambda: store.add_partitions(table, Position({TopicPartition("t", 0): 0}), Position()),
        "mark_stopped": lambda: store.mark_stopped("t", "why"),
        "rejoin": lambda: store.rejoin(Position({TopicPartition("t", 0): 0})),
    }
    for step in steps.values():
        with monkeypatch.context() as patched:
            patched.setattr("merganser.consumers.dbfile.shutil.disk_usage", lambda _: usage._replace(free=0))
            with pytest.raises(StoreFull):
                step()
        step()
    assert store.tables()["t"].stopped == "why"
    store.close()


def test_that_nothing_was_missed_is_noted_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "s.duckdb", "cluster", "g")
    usage, place = shutil.disk_usage(tmp_path), TopicPartition("t", 0)
    table = Table("t", "id", 1, ())
    store.add_table(table, [("id", "BIGINT")], 1)
    store.add_partitions(table, Position({place: 0}), Position())

    def noted() -> int:
        with store.reading(10) as cursor:
            [(at_ms,)] = cursor.execute("SELECT caught_up_ms FROM _merganser.positions").fetchall()
        return int(at_ms)

    store.caught_up_at({place: 7})
    with monkeypatch.context() as patched:
        patched.setattr("merganser.consumers.dbfile.shutil.disk_usage", lambda _: usage._replace(free=0))
        store.caught_up([place])
    assert noted() == 7
    store.caught_up([place])
    assert noted() > 7
    store.close()


def test_limits_that_nothing_can_work_with() -> None:
    with pytest.raises(UsageError, match="threads"):
        mg.Limits(threads=0)
