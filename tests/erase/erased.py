"""Towns with a key that has to go, and what must be left once it is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backup.restored import Dump
from merganser.consumers.storefile import StoreFile
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.key import Key
from merganser.pipeline.erase.erase import Done, Eraser
from merganser.schemas.position import Position, TopicPartition
from restore.conftest import halfway
from restore.town import Town, held
from stories.txworld import Event, TxWorld
from support.memory import MemoryObjects

#: The key that goes: of table a, in each of its partitions.
TABLE, ID = "a", 0


def mine(event: Event) -> bool:
    return event.table == TABLE and event.id == ID


def deleted(world: TxWorld) -> None:
    """Delete the key, in each partition that has it."""
    for partition in range(2):
        event = Event(TABLE, partition, ID, None)
        event.offset = world.log.put(TABLE, partition, world._spelt(event), None).offset()
        world.events.append(event)


def a_town(seed: int, folder: Path, key: Key | None = None, transactions: int = 40, spellings: bool = False) -> Town:
    """All is archived; full backups and a restore point lie in the key's life, and one of each after it."""
    world = TxWorld(seed, transactions, spellings=spellings)
    deleted(world)
    for n in range(6):  # life goes on
        event = Event("b", n % 2, 1, n)
        world.log.put("b", n % 2, world._spelt(event), None)
        world.events.append(event)
    town = Town(world, folder, key)
    for part, type_ in ((2, "full"), (3, "incr"), (4, "full"), (5, "full"), (5, "incr")):
        town.apply(halfway(town.ends, part, 5))
        town.back_up(type_)  # type: ignore[arg-type]
    town.archive_up_to(town.ends)
    return town


def erase(
    archive: Archive, step: Callable[[str], None] = lambda step: None, key: str = str(ID), table: str = TABLE
) -> Done:
    return Eraser(archive, table, [key], step=step).run()


def without(path: Path, world: TxWorld) -> Dump:
    """All that a store of the whole log holds, less what is of the key. Accounts are left out, and reasons."""
    offsets = {(e.table, str(e.partition), str(e.offset)) for e in world.events if mine(e)}
    left = {name: rows for name, rows in (_less(n, r, offsets) for n, r in held(path).items()) if rows is not None}
    return {name: sorted(rows, key=str) for name, rows in left.items()}


def _less(name: str, rows: Any, offsets: set[tuple[str, str, str]]) -> tuple[str, Any]:
    """Columns come by name."""
    if name == TABLE:  # _offset, _partition, _timestamp, id, n
        return name, [row for row in rows if row[3] != str(ID)]
    if name == "_merganser.rejections":  # offset, ops, partition, reason, timestamp, topic, tx
        return name, [(r[0], r[1], r[2], r[5], r[6]) for r in rows if (r[5], r[2], r[0]) not in offsets]
    if name == "_merganser.quarantine":  # key, offset, partition, reason, timestamp, topic, value
        return name, [row for row in rows if (row[5], row[2], row[1]) not in offsets]
    if name == "_merganser.operations":  # id, kind, offset, partition, reason, state, topic
        return name, [(r[0], r[1], r[2], r[3], r[5], r[6]) for r in rows]
    if name == "_merganser.pending":  # condition, guarded, key, manifest, offset, ops, partition, ...
        return name, [row for row in rows if (row[9], row[6], row[4]) not in offsets and row[8] is None]
    if name in ("_merganser.positions", "_merganser.tables", "_merganser.store"):
        return name, None
    return name, rows


def position_of(path: Path) -> Position:
    with StoreFile(path) as store:
        return store.position


def rows_of(world: TxWorld) -> int:
    return sum(mine(event) for event in world.events)


def copied(town: Town) -> MemoryObjects:
    return MemoryObjects(town.memory.files)


def partitions() -> list[TopicPartition]:
    return [TopicPartition(TABLE, p) for p in range(2)]
