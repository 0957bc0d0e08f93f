"""What the processes of a run share: the tables, the plan, and the journals of what they did.

A journal has a JSON object a line. A write is two lines, one before it and one after it, so that a write whose
process was killed is known to have begun; a read is one. Times are of ``CLOCK_MONOTONIC``, one for all processes
of a host. A position is a list of next offsets in the order of :attr:`Plan.partitions`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from merganser.schemas.position import Position, TopicPartition

#: Tables by number: two keyed ones and one that is appended to.
LEFT, RIGHT, ENTRIES = 0, 1, 2
PARTITIONS = (8, 8, 4)

ROW = {
    "type": "record",
    "name": "row",
    "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "long"}, {"name": "w", "type": "long"}],
}

#: Keys. A register holds the number of the write that wrote it; an account holds a balance.
REGISTERS = range(8)
SHARED = range(1000, 1008)
OWN_ACCOUNTS = 4
FIRST_BALANCE = 100
#: Ids from here on are of single events in the third table; below, it has what was added to an account.
EVENTS = 10_000


def own(writer: int) -> range:
    """The accounts that only this writer writes to."""
    return range(2000 + 100 * writer, 2000 + 100 * writer + OWN_ACCOUNTS)


def table_of(account: int) -> int:
    return account % 2


@dataclass(frozen=True)
class Plan:
    """One run."""

    servers: str
    folder: str
    tag: str
    seed: int = 1
    writers: int = 3
    readers: int = 3  # threads of each replica
    bank: bool = False  # transfers only, and whole scans only
    naive: str | None = None
    doors: bool = False  # clients read through them too
    ports: list[int] = field(default_factory=list)  # of the HTTP door of each replica, in all its lives
    slow_records: int = 40  # in a batch of the second replica

    @property
    def tables(self) -> list[str]:
        """In the order of their names: that is the order of places, which decides where transactions cross."""
        return [f"{name}_{self.tag}" for name in ("left", "right", "statement")]

    @property
    def partitions(self) -> list[TopicPartition]:
        counts = zip(self.tables, PARTITIONS, strict=True)
        return [TopicPartition(name, partition) for name, count in counts for partition in range(count)]

    @property
    def accounts(self) -> list[int]:
        return [*SHARED, *(account for writer in range(self.writers) for account in own(writer))]

    def vector(self, position: Mapping[TopicPartition, int]) -> list[int]:
        return [position.get(tp, 0) for tp in self.partitions]

    def position(self, vector: list[int]) -> Position:
        return Position({tp: n for tp, n in zip(self.partitions, vector, strict=True) if n})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        return cls(**json.loads(text))


class Journal:
    """The journal that one process, in one life, writes; its threads share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._base = int.from_bytes(os.urandom(5), "big") << 20
        self._count = 0

    def number(self) -> int:
        """One that no other operation of the run has. Called by one thread only."""
        self._count += 1
        return self._base + self._count

    def note(self, **line: Any) -> None:
        """One write call, so that a line is there whole or not at all whenever the process is killed."""
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def begin(self, number: int, kind: str, **what: Any) -> None:
        self.note(i=number, at=time.monotonic(), k=kind, **what)

    def end(self, number: int, result: str, **what: Any) -> None:
        self.note(r=number, to=time.monotonic(), ok=result, **what)


def publish(path: Path, what: Mapping[str, Any]) -> None:
    """Replace a small file whole."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(what))
    fresh.replace(path)


def published(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None


# -- read back ---------------------------------------------------------------------------------


@dataclass(slots=True)
class WriteOp:
    """A write, or a transaction. *rows*: [table, id, n (None: delete), condition]. *result* is what was told."""

    number: int
    process: str
    kind: str
    at: float
    w: int
    rows: list[list[Any]]
    tx: str | None
    op: str | None
    to: float = float("inf")
    result: str | None = None
    token: list[int] | None = None
    offsets: list[list[int] | None] | None = None


@dataclass(slots=True)
class ReadOp:
    """A read. *value*: of a get [n, offset] or None, of a scan rows, of an outcome its state.

    *session*: whose read it was, and which way. *life*: of which process, if that is known: where clients choose
    between nodes, an answer says whose store it is of, not how often that was opened.
    """

    replica: str
    life: str | None
    session: str
    way: str
    kind: str
    level: str
    at: float
    to: float
    position: list[int] | None
    of: list[Any]
    value: Any
    after: list[int] | None
    bound: float | None
    error: str | None


@dataclass
class History:
    plan: Plan
    writes: list[WriteOp] = field(default_factory=list)
    reads: list[ReadOp] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return len(self.writes) + len(self.reads)


def load(plan: Plan) -> History:
    """All journals of a run."""
    history = History(plan)
    for path in sorted(Path(plan.folder).glob("*.journal")):
        process, life = path.name.removesuffix(".journal").rsplit("-", 1)
        open_: dict[int, WriteOp] = {}
        for line in _lines(path):
            if "i" in line:
                write = WriteOp(
                    line["i"], process, line["k"], line["at"], line["w"], line["rows"], line.get("tx"), line.get("op")
                )
                open_[write.number] = write
                history.writes.append(write)
            elif "r" in line:
                write = open_[line["r"]]
                write.to, write.result = line["to"], line["ok"]
                write.token, write.offsets = line.get("tok"), line.get("offs")
            else:
                way = line.get("way", "inside")
                replica = f"replica{line['by']}" if "by" in line else process
                history.reads.append(
                    ReadOp(
                        replica,
                        f"{process}-{life}" if replica == process else None,
                        f"{process}-{life} {way}",
                        way,
                        line["k"],
                        line["l"],
                        line["at"],
                        line["to"],
                        line.get("pos"),
                        line.get("of", []),
                        line.get("v"),
                        line.get("after"),
                        line.get("bound"),
                        line.get("err"),
                    )
                )
    return history


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
