"""A random history of two tables on a FakeLog, the fold of it by an independent oracle, and a replica of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merganser.consumers.apply import Applier, BatchLimits
from merganser.consumers.dbfile import Limits
from merganser.consumers.follow import Follow
from merganser.consumers.progress import Progress
from merganser.consumers.store import Store
from merganser.schemas.table import SchemaVersion, Table, value_subject
from support.fakelog import FakeLog
from support.frames import framed

if TYPE_CHECKING:
    from stories.txworld import TxWorld

PARTITIONS = 3
STORE_LIMITS = Limits(head_room=0)
KEY_ID = 99

#: v2 adds a column, v3 renames and widens one, v4 drops the added one.
_FIELDS: list[list[dict[str, Any]]] = [
    [{"name": "id", "type": "long"}, {"name": "n", "type": "int"}],
    [{"name": "id", "type": "long"}, {"name": "n", "type": "int"}, {"name": "tag", "type": ["null", "string"]}],
    [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": "long", "aliases": ["n"]},
        {"name": "tag", "type": ["null", "string"]},
    ],
    [{"name": "id", "type": "long"}, {"name": "amount", "type": "long", "aliases": ["n"]}],
]
_KEY = {"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}

#: The columns that a table has once the version of that number was met, and the fields that fill them.
_COLUMNS = {1: ["id", "n"], 2: ["id", "n", "tag"], 3: ["id", "amount", "tag"], 4: ["id", "amount", "tag"]}


def version(table: str, number: int) -> SchemaVersion:
    schema = {"type": "record", "name": "row", "fields": _FIELDS[number - 1]}
    return SchemaVersion(value_subject(table), number, (100 if table == "keyed" else 200) + number, schema)


class World:
    """A log of an append table and a keyed one, written at random, and what each should hold."""

    def __init__(self, seed: int) -> None:
        self.log = FakeLog(seed)
        self.random = random.Random(seed)
        key_schema = SchemaVersion("keyed-key", 1, KEY_ID, _KEY)
        self.log.add(Table("keyed", "id-k", PARTITIONS, (version("keyed", 1),), ("id",), "avro", key_schema))
        self.log.add(Table("plain", "id-p", PARTITIONS, (version("plain", 1),)))
        self.versions = {"keyed": 1, "plain": 1}
        self.met = {"keyed": 1, "plain": 1}
        self.live: dict[str, dict[tuple[int, int], dict[str, Any]]] = {"keyed": {}, "plain": {}}
        self.poison: set[tuple[str, int, int]] = set()

    def write(self, records: int) -> None:
        """*records* more events: rows, updates, deletes, poison, gaps, schema changes."""
        for _ in range(records):
            table = self.random.choice(["keyed", "plain"])
            kind = self.random.choices(["put", "delete", "poison", "gap", "schema"], [70, 12, 4, 8, 1])[0]
            partition = self.random.randrange(PARTITIONS)
            getattr(self, f"_{kind}")(table, partition)

    def _put(self, table: str, partition: int) -> None:
        number = self.random.randint(1, self.versions[table])
        id_ = self.random.randrange(8) * PARTITIONS + partition
        fields = [f["name"] for f in _FIELDS[number - 1]]
        value = self.random.randrange(1000)
        row = {"id": id_, **{name: value for name in fields if name in ("n", "amount")}}
        row |= {"tag": f"t{value}"} if "tag" in fields else {}
        schema = version(table, number)
        key = framed(KEY_ID, _KEY, {"id": id_}) if table == "keyed" else None
        record = self.log.put(table, partition, key, framed(schema.id, dict(schema.schema), row))  # type: ignore[arg-type]
        self.met[table] = max(self.met[table], number)
        self.live[table][(partition, id_ if table == "keyed" else record.offset())] = {
            "id": id_, "amount": value, "tag": row.get("tag"), "_partition": partition, "_offset": record.offset()
        }  # fmt: skip

    def _delete(self, table: str, partition: int) -> None:
        id_ = self.random.randrange(8) * PARTITIONS + partition
        if table == "plain":
            record = self.log.put(table, partition, None, None)
            self.poison.add(record.at)
        else:
            self.log.put(table, partition, framed(KEY_ID, _KEY, {"id": id_}), None)
            self.live[table].pop((partition, id_), None)

    def _poison(self, table: str, partition: int) -> None:
        good = framed(version(table, 1).id, dict(version(table, 1).schema), {"id": partition, "n": 1})  # type: ignore[arg-type]
        key = framed(KEY_ID, _KEY, {"id": partition}) if table == "keyed" else None
        bad = self.random.choice(
            [b"", b"\x00", good[:-1], good + b"\x01", b"\x01" + good[1:], good[:4] + b"\xee" + good[5:]]
        )
        self.poison.add(self.log.put(table, partition, key, bad).at)

    def _gap(self, table: str, partition: int) -> None:
        self.log.gap(table, partition, self.random.randint(1, 3))

    def _schema(self, table: str, partition: int) -> None:
        if self.versions[table] < len(_FIELDS):
            self.versions[table] += 1
            self.log.register(version(table, self.versions[table]))

    # -- the oracle --------------------------------------------------------------------------

    def expected(self, table: str) -> list[tuple[Any, ...]]:
        """The rows that the table should have, in its columns, sorted."""
        columns = [{"n": "amount"}.get(name, name) for name in _COLUMNS[self.met[table]]]
        rows = self.live[table].values()
        return sorted((tuple(row[c] for c in [*columns, "_partition", "_offset"]) for row in rows), key=str)

    def columns(self, table: str) -> list[str]:
        return _COLUMNS[self.met[table]]


class Crash(Exception):
    """The process ends here."""


class FakeReplica:
    """A store and its loop, taking one step at a time; *crash_in* steps it ends in Crash."""

    def __init__(
        self,
        world: World | TxWorld,
        path: Path,
        limits: BatchLimits,
        crash_in: int | None = None,
        tables: Sequence[str] = (),
    ) -> None:
        self._left = crash_in
        self.steps: list[str] = []
        self.store = Store(path, world.log.cluster_id, "g", STORE_LIMITS, self._on_step)
        self.progress = Progress()
        follow = Follow(world.log, self.store, tables or list(world.log.tables), accept_partial=False)
        reader = world.log.reader("g")
        self.loop = Applier(world.log, self.store, follow, reader, self.progress, limits)
        self._world = world

    def _on_step(self, step: str) -> None:
        self.steps.append(step)
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Crash(step)

    def run(self) -> None:
        """Until everything that the log has is applied."""
        self.loop.begin()
        self.follow()

    def follow(self) -> None:
        """The same, from where the reader is."""
        ends = self._world.log.ends(list(self._world.log.partitions))
        while not self.progress.applied.reaches(ends):
            self.loop.turn()
            self.loop.flush()

    def rows(self, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        names = ", ".join([*columns, "_partition", "_offset"])
        with self.store.reading(1) as cursor:
            return sorted(cursor.execute(f"SELECT {names} FROM {table}").fetchall(), key=str)

    def poison(self) -> set[tuple[str, int, int]]:
        with self.store.reading(1) as cursor:
            rows = cursor.execute('SELECT topic, partition, "offset" FROM _merganser.quarantine').fetchall()
        assert len(rows) == len(set(rows))
        return set(rows)


@contextmanager
def replica(
    world: World | TxWorld, path: Path, limits: BatchLimits, crash_in: int | None = None, tables: Sequence[str] = ()
) -> Iterator[FakeReplica]:
    opened = FakeReplica(world, path, limits, crash_in, tables)
    try:
        yield opened
    finally:
        opened.loop.stop()
        opened.store.close()
