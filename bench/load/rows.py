"""The rows of a load run, the queries on them, and what every answer has to hold, exactly. Pure.

Five tables, each with a rule that holds in every state that the log has at a position:

- ``orders``, keyed, rewritten all the time: each id is there once, each row has its own mark, and the newest record
  of each partition is a row.
- ``events``, appended to one partition: the row at offset n has the number n, so count and sum follow from the
  position.
- ``accounts`` and ``entries``: transactions move money and note each move. The sum never changes; an account has as
  many entries as its version says, and they come to its balance.
- ``notes``: one row a client, which it alone writes, and so knows.

Each client also remembers what it has seen: none of it may be unseen later, whatever the level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from merganser.schemas.position import Position

ORDERS, ACCOUNTS, BALANCE, JOINED = 20_000, 2_000, 1_000, 100
PARTITIONS = 4

#: Text of an order, so that the WAL grows as it does with real rows.
PAD = "some text of an order " * 100

TABLES = ("orders", "events", "accounts", "entries", "notes")
KEYED = {"orders": 4, "accounts": 2, "notes": 1}
_COLUMNS = {
    "orders": ("id", "seq", "qty", "mark"),
    "events": ("n", "mark"),
    "accounts": ("id", "balance", "version", "mark"),
    "entries": ("account", "amount", "tx"),
    "notes": ("id", "n", "mark"),
}


def schema_of(table: str) -> dict[str, Any]:
    fields: list[dict[str, str]] = [{"name": name, "type": "long"} for name in _COLUMNS[table]]
    fields += [{"name": "pad", "type": "string"}] if table == "orders" else []
    return {"type": "record", "name": table, "fields": fields}


def mark(a: Any, b: Any, c: Any) -> Any:
    """A checksum of a row's numbers, or of columns of them."""
    return (a * 7_919 + b * 104_729 + c * 31) % 1_000_003


@dataclass(frozen=True)
class Names:
    """The tables of one run have names of their own."""

    tag: str

    def __getitem__(self, table: str) -> str:
        return f"load_{self.tag}_{table}"

    @property
    def all(self) -> list[str]:
        return [self[table] for table in TABLES]


@dataclass
class Memory:
    """What one client has seen, and written."""

    client: int
    seqs: dict[int, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    events: int = 0
    moves: int = 0
    note: int = 0
    """The newest note that it has seen."""
    written: int = 0
    """The newest that it has put; what was acknowledged when, is in *acknowledged*."""
    acknowledged: tuple[int, float] = (0, 0.0)
    token: Position = field(default_factory=Position)
    """Of its last write."""
    position: Position = field(default_factory=Position)


@dataclass(frozen=True)
class Question:
    """SQL, and what is wrong with an answer to it: nothing, if that is empty."""

    kind: str
    sql: str
    params: tuple[int, ...]
    judge: Callable[[pa.Table], str]


def point(names: Names, memory: Memory, id_: int) -> Question:
    def judge(rows: pa.Table) -> str:
        if rows.num_rows != 1:
            return f"{rows.num_rows} rows of order {id_}"
        row = rows.to_pylist()[0]
        if row["id"] != id_ or row["mark"] != mark(row["id"], row["seq"], row["qty"]):
            return f"order {id_} is {row}"
        return _forward(memory.seqs, id_, row["seq"], "order")

    sql = f"SELECT id, seq, qty, mark FROM {names['orders']} WHERE id = ?"
    return Question("point", sql, (id_,), judge)


def own(names: Names, memory: Memory, at_least: int) -> Question:
    """The client's own note, which must be *at_least* that new."""

    def judge(rows: pa.Table) -> str:
        if rows.num_rows > 1 or (rows.num_rows == 0 and max(at_least, memory.note)):
            return f"{rows.num_rows} notes of one client, {at_least} was written"
        for row in rows.to_pylist():
            if row["mark"] != mark(memory.client, row["n"], 0):
                return f"the note of {memory.client} is {row}"
            if not max(at_least, memory.note) <= row["n"] <= memory.written:
                return f"note {row['n']}, seen was {memory.note}, {at_least} had to be there, {memory.written} was put"
            memory.note = row["n"]
        return ""

    return Question("own write", f"SELECT n, mark FROM {names['notes']} WHERE id = ?", (memory.client,), judge)


def join(names: Names, memory: Memory, low: int) -> Question:
    """Some accounts, each with its entries."""
    high = low + JOINED - 1

    def judge(rows: pa.Table) -> str:
        if rows["id"].to_pylist() != list(range(low, high + 1)):
            return f"{rows.num_rows} accounts from {low} on, not {JOINED}"
        for row in rows.to_pylist():
            if row["mark"] != mark(row["id"], row["balance"], row["version"]):
                return f"account {row}"
            if row["version"] != row["entries"] or row["balance"] != BALANCE + row["moved"]:
                return f"account and entries do not match: {row}"
            if wrong := _forward(memory.versions, row["id"], row["version"], "account"):
                return wrong
        return ""

    sql = f"""
        SELECT a.id, a.balance, a.version, a.mark, coalesce(e.entries, 0) AS entries, coalesce(e.moved, 0) AS moved
        FROM {names["accounts"]} AS a LEFT JOIN (
            SELECT account, count(*) AS entries, sum(amount)::BIGINT AS moved
            FROM {names["entries"]} WHERE account BETWEEN $1 AND $2 GROUP BY account
        ) AS e ON e.account = a.id WHERE a.id BETWEEN $1 AND $2 ORDER BY a.id"""
    return Question("join", sql, (low, high), judge)


def count(names: Names, memory: Memory) -> Question:
    """Sums over all tables, beside the position that they are of."""

    def judge(rows: pa.Table) -> str:
        [row] = rows.to_pylist()
        if (row["accounts"], row["money"]) != (ACCOUNTS, ACCOUNTS * BALANCE):
            return f"{row['accounts']} accounts with {row['money']}"
        if (row["entries"] or 0) != row["versions"] or (row["moved"] or 0) != 0:
            return f"{row['entries']} entries of {row['moved']} in all, {row['versions']} versions"
        n = row["events"]
        if n != row["next"] or (row["numbers"] or 0) != n * (n - 1) // 2:
            return f"{n} events with the sum {row['numbers']} at position {row['next']}"
        if n < memory.events or row["versions"] < memory.moves:
            return f"{n} events and {row['versions']} moves; {memory.events} and {memory.moves} were seen before"
        memory.events, memory.moves = n, row["versions"]
        return ""

    sql = f"""
        SELECT a.*, e.*, v.*,
            (SELECT next_offset FROM _merganser.positions WHERE topic = '{names["events"]}') AS next
        FROM (SELECT count(*) AS accounts, sum(balance)::BIGINT AS money, sum(version)::BIGINT AS versions
              FROM {names["accounts"]}) AS a,
             (SELECT count(*) AS entries, sum(amount)::BIGINT AS moved FROM {names["entries"]}) AS e,
             (SELECT count(*) AS events, sum(n)::BIGINT AS numbers FROM {names["events"]}) AS v"""
    return Question("full, sums", sql, (), judge)


def export(names: Names, memory: Memory) -> Question:
    """All orders, without their text; *below* is how far each lies below the position."""

    def judge(rows: pa.Table) -> str:
        ids, below = rows["id"], rows["below"]
        if rows.num_rows != ORDERS or pc.count_distinct(ids).as_py() != ORDERS or pc.max(ids).as_py() != ORDERS - 1:
            return f"{rows.num_rows} orders, {pc.count_distinct(ids).as_py()} ids"
        a, b, c = (rows[name].to_numpy() for name in ("id", "seq", "qty"))
        if not (mark(a, b, c) == rows["mark"].to_numpy()).all():
            return "orders whose mark is not theirs"
        if pc.min(below).as_py() < 1 or pc.sum(pc.equal(below, 1)).as_py() != PARTITIONS:
            return f"the newest record of a partition is no row, or a row lies beyond the position: {pc.min(below)}"
        newest = int(b.max())
        return _forward(memory.seqs, -1, newest, "newest order of all")

    sql = f"""
        SELECT o.id, o.seq, o.qty, o.mark, p.next_offset - o._offset AS below
        FROM {names["orders"]} AS o JOIN _merganser.positions AS p
        ON p.topic = '{names["orders"]}' AND p.partition = o._partition"""
    return Question("full, rows", sql, (), judge)


def _forward(seen: dict[int, int], key: int, value: int, what: str) -> str:
    """Remember *value*, unless more was seen before."""
    before = seen.get(key, 0)
    if value < before:
        return f"{what} {key} went back from {before} to {value}"
    seen[key] = value
    return ""
