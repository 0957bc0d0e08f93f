"""The write side of the crash test: a thread that never stops writing, and the journal of what it wrote."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import Producer as RawProducer

import merganser as mg
from merganser.schemas.table import Table

PARTITIONS = 3
HOT_KEYS = 5
KEYS = 3_000

#: Values that are no row of any table.
POISON = (b"", b"\x00", b"\x00\x00\x00\x00\x7f\x02", b"\x01\x00\x00\x00\x01\x02", b"not Avro at all")


@dataclass
class Column:
    """A column through all its names; *ident* stays."""

    ident: str
    name: str
    type: str
    former: str | None = None

    def avro(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.ident not in ("id", "n"):
            found["default"] = 0
        if self.former:
            found["aliases"] = [self.former]
        return found


@dataclass
class Book:
    """What the writer knows of one table. *schemas*: schema id → (schema, name → ident)."""

    table: str
    keyed: bool
    columns: list[Column] = field(default_factory=lambda: [Column("id", "id", "long"), Column("n", "n", "long")])
    names: dict[str, str] = field(default_factory=dict)
    schemas: dict[int, tuple[dict[str, Any], dict[str, str]]] = field(default_factory=dict)
    key_id: int = 0
    changes: int = 0
    #: Every write of the producer: where it went, its key, and its serial number (None: a delete).
    writes: list[tuple[mg.Write, int, int | None]] = field(default_factory=list)

    def schema(self) -> dict[str, Any]:
        return {"type": "record", "name": "row", "fields": [column.avro() for column in self.columns]}

    def note(self, declared: Table) -> None:
        schema = self.schema()
        self.schemas[declared.latest.id] = (schema, {column.name: column.ident for column in self.columns})
        self.names.update({column.ident: column.name for column in self.columns})
        if declared.key_schema is not None:
            self.key_id = declared.key_schema.id

    def change(self) -> None:
        """Add a column, promote it, rename it, drop the one before it; and again."""
        number, kind = self.changes, self.changes % 4
        newest = self.columns[-1]
        if kind == 1:
            newest.type = "long"
        elif kind == 2:
            newest.former, newest.name = newest.name, f"renamed{number}"
        elif kind == 3 and len(self.columns) > 3:
            del self.columns[-2]
        else:
            self.columns.append(Column(f"c{number}", f"added{number}", "int"))
        self.changes += 1


class Writer(threading.Thread):
    """Writes to an append table and a keyed one: hot keys, deletes, poison, and schemas changed on request."""

    def __init__(self, bootstrap_servers: str, names: tuple[str, str], rows_per_s: int, seed: int) -> None:
        super().__init__(name="crash-writer", daemon=True)
        self._random = random.Random(seed)
        self._rows_per_s = rows_per_s
        self._requests: SimpleQueue[tuple[Book, threading.Event]] = SimpleQueue()
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._serial = 0
        self._log = mg.connect(bootstrap_servers)
        quiet = {"logger": logging.getLogger("merganser.kafka")}
        self._raw = RawProducer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, **quiet})
        self.books = {name: Book(name, keyed) for name, keyed in zip(names, (False, True), strict=True)}
        for book in self.books.values():
            key = ["id"] if book.keyed else []
            book.note(self._log.create_table(book.table, book.schema(), key, partitions=PARTITIONS))

    @property
    def written(self) -> int:
        return self._serial

    def change_schema(self, table: str, timeout_s: float = 60) -> None:
        """Give *table* its next schema, and write some rows by it."""
        done = threading.Event()
        self._requests.put((self.books[table], done))
        if not done.wait(timeout_s):
            self.stop()
            raise AssertionError("the writer did not change the schema in time")

    def stop(self) -> None:
        """Stop writing. Everything written is acknowledged then; raises what went wrong."""
        self._stopping.set()
        self.join()
        if self._error is not None:
            raise self._error
        self._log.close()

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        try:
            with self._log.producer() as producer:
                while not self._stopping.wait(0.01):
                    self._serve(producer)
                    burst = 3_000 if self._random.random() < 0.003 else self._rows_per_s // 100
                    for _ in range(burst):
                        self._write(producer)
                    self._raw.poll(0)
            assert self._raw.flush(60) == 0
        except BaseException as error:  # told by stop()
            self._error = error

    def _serve(self, producer: mg.Producer) -> None:
        try:
            book, done = self._requests.get_nowait()
        except Empty:
            return
        book.change()
        book.note(self._log.alter_table(book.table, book.schema()))
        producer.refresh()
        for _ in range(5):
            self._put(producer, book)
        done.set()

    def _write(self, producer: mg.Producer) -> None:
        book = self._random.choice(list(self.books.values()))
        what = self._random.random()
        if what < 0.003:
            self._raw.produce(
                book.table, self._random.choice(POISON), b"no key", partition=self._random.randrange(PARTITIONS)
            )
        elif what < 0.12 and book.keyed:
            id_ = self._id()
            book.writes.append((producer.delete(book.table, {"id": id_}), id_, None))
        else:
            self._put(producer, book)

    def _put(self, producer: mg.Producer, book: Book) -> None:
        self._serial += 1
        id_, row = self._id(), {column.name: self._serial + i for i, column in enumerate(book.columns)}
        row |= {"id": id_, "n": self._serial}
        book.writes.append((producer.put(book.table, row), id_, self._serial))

    def _id(self) -> int:
        return self._random.randrange(HOT_KEYS if self._random.random() < 0.6 else KEYS)
