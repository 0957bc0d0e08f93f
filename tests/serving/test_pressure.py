"""Greedy readers and the writer: it goes on, whatever they take."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

import merganser as mg
from merganser.consumers import dbfile
from merganser.consumers import store as stores
from merganser.consumers.store import Store
from merganser.pipeline.serving.guard.ask import Ask, ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.schemas.errors import MerganserError, ReadError
from serving.world import ORDERS, world
from support.naive import both_ways, caught
from support.waiting import wait_for

#: Sorts and counts more than fits.
GREEDY = "SELECT count(DISTINCT md5((r.i * 7919)::VARCHAR)) FROM range(30000000) AS r(i)"


@both_ways
def test_readers_who_have_all_the_memory_are_interrupted_for_a_batch(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive: a batch that finds no memory fails, and the file is opened anew, up to three times."""
    if naive:
        monkeypatch.setattr(Store, "apply", lambda self, batch, confirm=lambda: None: self._write(batch, confirm))
    with world(tmp_path, rows=5) as served:
        store, write, tried = served.replica._store, stores.write_rows, threading.Event()
        first = store._con

        def scarce(*args: Any) -> None:
            if store._gate._inside:
                tried.set()
                raise duckdb.OutOfMemoryException("the readers have it all")
            write(*args)

        monkeypatch.setattr(stores, "write_rows", scarce)
        stopping = threading.Event()

        def read_on() -> None:
            while not stopping.is_set():
                try:
                    served.replica.query("SELECT count(*) FROM range(1000000000000)")
                except (ReadError, MerganserError, duckdb.Error):
                    continue

        readers = [threading.Thread(target=read_on) for _ in range(3)]
        for reader in readers:
            reader.start()
        with caught(naive):
            for n in range(4):
                tried.clear()
                wait_for("a reader is inside", lambda: store._gate._inside > 0)
                served.put(ORDERS, 100 + n)
                served.replica.wait(served.end, timeout=60)
                assert tried.is_set()
            assert store._con is first
        stopping.set()
        served.replica.close()
        for reader in readers:
            reader.join()


def test_what_readers_have_spilled_is_taken_back_before_the_disk_is_said_to_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path, rows=5) as served:
        gate = served.replica._store._gate
        monkeypatch.setattr(dbfile.shutil, "disk_usage", lambda path: Disk(0 if gate._inside else 2**40))
        guard = Guard(served.replica)
        greedy = threading.Thread(target=lambda: refused(guard, "SELECT count(*) FROM range(1000000000000)"))
        greedy.start()
        wait_for("the reader is inside", lambda: gate._inside == 1)
        served.put(ORDERS, 100)
        served.replica.wait(served.end, timeout=20)
        greedy.join()
        guard.close()


class Disk(NamedTuple):
    free: int


def refused(guard: Guard, sql: str) -> None:
    with pytest.raises(ReadError):
        guard.ask(Ask(sql)).table()


def test_rows_arrive_while_clients_ask_for_more_than_there_is(tmp_path: Path) -> None:
    limits = mg.Limits(memory=64 * 2**20, spill=64 * 2**20)
    with world(tmp_path, rows=2_000, limits=limits) as served:
        guard = Guard(served.replica, ServingLimits(running=4, query_s=20))
        said: list[str] = []

        def ask() -> None:
            for _ in range(2):
                try:
                    guard.ask(Ask(GREEDY)).table()
                except MerganserError as error:
                    said.append(type(error).__name__)

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        for n in range(8):
            for m in range(200):
                served.put(ORDERS, 10_000 + n * 200 + m)
            served.replica.wait(served.end, timeout=30)
        guard.close()
        for client in clients:
            client.join()
        assert served.replica.error is None and said
        assert served.replica.query(f"SELECT count(*) FROM {ORDERS}").rows() == [(3_600,)]
