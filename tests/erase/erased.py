"""Towns with a key that has to go, and what must be left once it is gone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from backup.restored import Dump
from erase import people
from erase.people import People
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.objects import Objects
from merganser.pipeline.erase.erase import Eraser
from merganser.pipeline.erase.report import Done
from restore.conftest import halfway
from restore.town import Town, held
from stories.txworld import Event, TxWorld

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


#: Where backups are made: in the key's life, and after it.
MANY = ((2, "full"), (3, "incr"), (4, "full"), (5, "full"), (5, "incr"))
FEW = ((2, "full"), (4, "incr"))


def a_town(
    world: TxWorld | People, folder: Path, key: Key | None = None, backups: Sequence[tuple[int, str]] = MANY
) -> Town:
    """All of *world* is archived; each of *backups* is made after so many fifths of it."""
    town = Town(world, folder, key)  # type: ignore[arg-type]  # all that it needs is a log
    for part, type_ in backups:
        town.apply(halfway(town.ends, part, 5))
        town.back_up(type_)  # type: ignore[arg-type]
    town.archive_up_to(town.ends)
    return town


def erase(archive: Archive, step: Callable[[str], None] = lambda step: None) -> Done:
    return Eraser(archive, TABLE, [str(ID)], step=step).run()


def forget_ada(archive: Archive, step: Callable[[str], None] = lambda step: None) -> Done:
    return Eraser(archive, people.TABLE, [people.ADA], step=step).run()


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


def cells(objects: Objects, key: Key | None = None) -> Iterator[tuple[str, bytes]]:
    """Each object's bytes as they are, and what they say: each value in a Parquet file, as bytes, with its column."""
    salts = {}
    for found in objects.list("log/"):
        if found.name.endswith(".json") and not found.name.endswith("head.json"):
            facts = json.loads(objects.read(found.name) or b"{}")
            salts[facts["file"]] = facts["salt"]
    for found in objects.list(""):
        data = objects.read(found.name) or b""
        yield found.name, data
        if found.name.endswith(".parquet"):
            salt = salts.get(found.name) or Path(found.name).stem
            table = pq.read_table(io.BytesIO(data), decryption_properties=key.reading(salt) if key else None)
            for name in table.column_names:
                for value in table[name].to_pylist():
                    yield f"{found.name} {name}", value if isinstance(value, bytes) else repr(value).encode()
