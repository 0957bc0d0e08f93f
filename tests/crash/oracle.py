"""What each table has to hold, by a plain consumer, fastavro and a dict; and what a store holds instead."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, Message, TopicPartition

from crash.writer import PARTITIONS, Book
from merganser.consumers.storefile import StoreFile

KEY = fastavro.parse_schema({"type": "record", "name": "key", "fields": [{"name": "id", "type": "long"}]})

Place = tuple[int, int]


@dataclass
class Findings:
    """What is wrong. Each list has one line a case."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def __str__(self) -> str:
        head = f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.wrong)} wrong"
        return "\n  ".join([head, *self.lost[:5], *self.doubled[:5], *self.wrong[:10]])


@dataclass
class Expected:
    """The state of one table at the end of the log. Rows by (partition, offset), without their NULLs."""

    end: dict[int, int]
    rows: dict[Place, dict[str, Any]] = field(default_factory=dict)
    poison: dict[Place, tuple[bytes | None, bytes | None]] = field(default_factory=dict)


def read_log(bootstrap_servers: str, topic: str) -> tuple[list[Message], dict[int, int]]:
    """All records of *topic*, each partition in order, and the ends."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "oracle", "enable.auto.commit": False})
    parts = [TopicPartition(topic, p, 0) for p in range(PARTITIONS)]
    ends = {p.partition: consumer.get_watermark_offsets(p, timeout=30)[1] for p in parts}
    at = {p: 0 for p, end in ends.items() if end}
    messages: list[Message] = []
    consumer.assign(parts)
    while any(at[p] < ends[p] for p in at):
        for message in consumer.consume(10_000, 1.0):
            assert message.error() is None, message.error()
            messages.append(message)
            at[message.partition()] = message.offset() + 1  # type: ignore[index,operator]
    consumer.close()
    return messages, ends


def fold(book: Book, messages: list[Message], ends: dict[int, int], findings: Findings) -> Expected:
    """The table after *messages*; and whether each acknowledged write is among them."""
    expected = Expected(ends)
    schemas = {id_: (fastavro.parse_schema(schema), idents) for id_, (schema, idents) in book.schemas.items()}
    of_key: dict[tuple[int, int], Place] = {}
    serials: dict[Place, tuple[int | None, int | None]] = {}
    for m in messages:
        place: Place = (m.partition(), m.offset())  # type: ignore[assignment]
        key = _decoded(m.key(), {book.key_id: (KEY, {"id": "id"})}) if book.keyed else {}
        row = None if m.value() is None else _decoded(m.value(), schemas)
        if key is None or (row is None and (m.value() is not None or not book.keyed)):
            expected.poison[place] = (m.key(), m.value())
            continue
        id_ = key["id"] if book.keyed else row["id"]  # type: ignore[index]
        serials[place] = (id_, row and row["n"])
        if book.keyed and (before := of_key.pop((place[0], id_), None)):
            del expected.rows[before]
        if row is not None:
            of_key[place[0], id_] = place
            expected.rows[place] = {book.names[i]: v for i, v in row.items()} | {"_timestamp": m.timestamp()[1]}
    for write, id_, serial in book.writes:
        if serials.get((write.partition, write.offset)) != (id_, serial):  # type: ignore[arg-type]
            findings.wrong.append(f"the log does not have what was acknowledged: {write}")
    return expected


def _decoded(data: bytes | None, schemas: Mapping[int, tuple[Any, dict[str, str]]]) -> dict[str, Any] | None:
    """The row by ident; None if the bytes are not exactly one."""
    if data is None or len(data) < 6 or data[0] != 0 or int.from_bytes(data[1:5], "big") not in schemas:
        return None
    schema, idents = schemas[int.from_bytes(data[1:5], "big")]
    rest = io.BytesIO(data[5:])
    try:
        row = fastavro.schemaless_reader(rest, schema, None)
    except (EOFError, ValueError, IndexError):
        return None
    return None if rest.read(1) else {idents[name]: value for name, value in row.items()}  # type: ignore[union-attr]


def compare(store: StoreFile, table: str, expected: Expected, findings: Findings) -> None:
    """Add to *findings* how the table in the store differs."""
    found = Counter[Place]()
    for row in _rows(store, f'SELECT * REPLACE (epoch_ms(_timestamp) AS _timestamp) FROM "{table}"'):
        place = (row.pop("_partition"), row.pop("_offset"))
        found[place] += 1
        want = expected.rows.get(place)
        if want is not None and {k: v for k, v in row.items() if v is not None} != want:
            findings.wrong.append(f"{table} {place}: {row}, not {want}")
    findings.lost += [f"{table} {place}" for place in expected.rows if place not in found]
    findings.doubled += [f"{table} {place} × {n}" for place, n in found.items() if n > (place in expected.rows)]
    poison = _rows(
        store, f"SELECT partition, \"offset\", key, value FROM _merganser.quarantine WHERE topic = '{table}'"
    )
    bad = [((p["partition"], p["offset"]), (p["key"], p["value"])) for p in poison]
    if len(bad) != len(expected.poison) or dict(bad) != expected.poison:
        findings.wrong.append(f"{table}: {len(bad)} records in quarantine, {len(expected.poison)} expected")
    at = {tp.partition: offset for tp, offset in store.position.items() if tp.topic == table}
    if at != expected.end:
        findings.wrong.append(f"{table}: the store is at {at}, the log ends at {expected.end}")


def _rows(store: StoreFile, sql: str) -> Iterator[dict[str, Any]]:
    result = store.query(sql)
    return (dict(zip(result.columns, row, strict=True)) for row in result.rows())


def check(bootstrap_servers: str, books: Mapping[str, Book], stores: list[Path]) -> Findings:
    """Everything that is wrong with *stores*, which are at rest and should stand at the end of the log."""
    import merganser as mg
    from merganser.consumers.audit import audit_log, audit_store
    from merganser.consumers.digest import table_digest

    findings = Findings()
    expected = {name: fold(book, *read_log(bootstrap_servers, name), findings) for name, book in books.items()}
    digests = []
    for path in stores:
        with StoreFile(path) as store, mg.connect(bootstrap_servers) as log:
            for table, state in expected.items():
                compare(store, table, state, findings)
            with store.reading() as cursor:
                accounts = audit_store(cursor)
                digests.append({table: table_digest(cursor, table) for table in books})
            for account in audit_log(accounts, log):
                findings.wrong += [f"account of {account.table}: {w}" for w in (*account.wrong, *account.unproven)]
    if any(other != digests[0] for other in digests):
        findings.wrong.append(f"digests differ: {digests}")
    return findings
