"""A real replica on a scripted log, to serve: two keyed tables, ``orders`` and ``hidden``. No broker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import merganser as mg
from merganser.consumers.chunk import Chunk
from merganser.consumers.digest import table_digest
from merganser.consumers.log import Poll
from merganser.consumers.statements import run
from merganser.schemas.table import SchemaVersion, Table, value_subject
from support.fakelog import FakeLog, FakeReader
from support.frames import framed

ORDERS, HIDDEN = "orders", "hidden"
TABLES = (ORDERS, HIDDEN)
SYSTEM = ("store", "tables", "quarantine", "pending", "rejections", "operations")
_KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}
_ROW = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "qty", "type": "int"},
        {"name": "sku", "type": ["null", "string"], "default": None},
    ],
}


class PatientLog(FakeLog):
    """Its readers wait when there is nothing, as Kafka's do."""

    def __init__(self) -> None:
        super().__init__(0)
        self.written = threading.Condition()

    def reader(self, group: str, kind: type[Chunk] | None = None) -> FakeReader:
        return _PatientReader(self, kind or Chunk)


class _PatientReader(FakeReader):
    def poll(self, max_records: int, timeout_s: float, gather_s: float = 0.0) -> Poll:
        poll = super().poll(max_records, timeout_s, gather_s)
        if not poll.chunks and isinstance(self._log, PatientLog):
            with self._log.written:
                self._log.written.wait(min(timeout_s, 0.02))
        return poll


#: What is in the file that nobody may read, and in the table that not everybody may.
MARKER = "s3cr3t-m4rk3r"


class Canary:
    """A server on loopback that counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.visits = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


class World:
    """A served replica, and all that hostile SQL could want: a secret, a folder, a server."""

    def __init__(self, folder: Path, rows: int, limits: mg.Limits | None) -> None:
        self.log = PatientLog()
        self._version = {name: SchemaVersion(value_subject(name), 1, 101 + n, _ROW) for n, name in enumerate(TABLES)}
        for name in TABLES:
            key = SchemaVersion(f"{name}-key", 1, 99, _KEY)
            self.log.add(Table(name, f"id-{name}", 1, (self._version[name],), ("id",), "avro", key))
        self.secret = folder / "secret.csv"
        self.secret.write_text(f"a,b\n1,{MARKER}\n")
        self.folder = folder / "folder"
        self.folder.mkdir()
        self.canary = Canary()
        self.put(HIDDEN, 1, sku=MARKER)
        for n in range(rows):
            self.put(ORDERS, n, qty=n)
        self.path = folder / "shop.duckdb"
        self.replica = mg.Replica(self.path, self.log, "shop", list(TABLES), limits=limits)
        self.replica.wait(self.end)

    def put(self, table: str, id_: int, qty: int = 1, sku: str | None = None) -> None:
        row = {"id": id_, "qty": qty, "sku": sku}
        with self.log.written:
            key, value = framed(99, _KEY, {"id": id_}), framed(self._version[table].id, _ROW, row)
            self.log.put(table, 0, key, value)
            self.log.written.notify_all()

    @property
    def end(self) -> mg.Position:
        return self.log.ends(list(self.log.partitions))

    def says(self) -> dict[str, str]:
        """The names that :mod:`escapes` leaves open."""
        return {
            "t": ORDERS,
            "hidden": HIDDEN,
            "secret": str(self.secret),
            "store": str(self.path),
            "folder": str(self.folder),
            "url": self.canary.url,
            "db": "shop",
        }

    def state(self) -> tuple[object, ...]:
        """Everything that hostile SQL must leave as it is."""
        with self.replica.reading() as cursor:
            tables = run(cursor, "SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL")
            others = "SELECT count(*) FROM duckdb_{}() WHERE NOT internal"
            made = [run(cursor, others.format(kind)) for kind in ("views", "functions", "schemas", "types")]
            made += [run(cursor, "SELECT count(*) FROM duckdb_sequences()")]
            digests = [str(table_digest(cursor, name)) for name in TABLES]
            ours = [run(cursor, f"SELECT * FROM _merganser.{name} ORDER BY ALL") for name in SYSTEM]
            settings = run(cursor, "SELECT name, value FROM duckdb_settings() ORDER BY name")
        files = sorted(path.name for path in self.folder.iterdir())
        return tables, made, digests, ours, settings, files, self.secret.read_text(), self.canary.visits

    def goes_on(self, id_: int) -> None:
        """A row that is put now arrives, and is taken away again."""
        self.put(ORDERS, id_, qty=id_)
        self.replica.wait(self.end, timeout=20)
        assert self.replica.error is None
        row = self.replica.get(ORDERS, {"id": id_}, after=self.end)
        assert row is not None and row["qty"] == id_

    def close(self) -> None:
        self.replica.close()
        self.canary.close()


@contextmanager
def world(folder: Path, rows: int = 100, limits: mg.Limits | None = None) -> Iterator[World]:
    opened = World(folder, rows, limits)
    try:
        yield opened
    finally:
        opened.close()
