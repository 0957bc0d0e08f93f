"""Keys of every kind: the last write per key is the row, whatever the key is made of, and however it is spelt."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.consumers.apply import Applier
from merganser.consumers.audit import audit_store
from merganser.consumers.chunk import Chunk
from merganser.consumers.dbfile import Limits
from merganser.consumers.decode import TableDecoder
from merganser.consumers.follow import Follow
from merganser.consumers.progress import Progress
from merganser.consumers.store import Store
from merganser.schemas.avro import key_schema
from merganser.schemas.encode import RowEncoder, prefix
from merganser.schemas.table import SchemaVersion, Table
from stories.test_recovery import limits
from support.fakelog import FakeLog
from support.frames import framed

INSTANT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

KEYS: dict[str, tuple[list[Any], list[list[Any]]]] = {
    "long": (["long"], [[1], [2], [-(2**63)]]),
    "two columns": (["string", "int"], [["a", 1], ["a", 2], ["b", 1]]),
    "string": (["string"], [["a"], ["A"], [""], ["ä"], ["a\x00b"]]),
    "bytes": (["bytes"], [[b""], [b"\x00"], [b"\xff\x00"]]),
    "boolean": (["boolean"], [[True], [False]]),
    "enum": ([{"type": "enum", "name": "e", "symbols": ["X", "Y"]}], [["X"], ["Y"]]),
    "fixed": ([{"type": "fixed", "name": "f", "size": 3}], [[b"abc"], [b"abd"]]),
    "uuid": ([{"type": "string", "logicalType": "uuid"}], [[uuid.UUID(int=1)], [uuid.UUID(int=2)]]),
    "uuid fixed": (
        [{"type": "fixed", "name": "u", "size": 16, "logicalType": "uuid"}],
        [[uuid.UUID(int=1)], [uuid.UUID(int=2)]],
    ),
    "date": ([{"type": "int", "logicalType": "date"}], [[dt.date(2026, 1, 1)], [dt.date(1, 1, 1)]]),
    "time": ([{"type": "long", "logicalType": "time-micros"}], [[dt.time(1, 2, 3)], [dt.time(0)]]),
    "instant": (
        [{"type": "long", "logicalType": "timestamp-micros"}],
        [[INSTANT], [INSTANT + dt.timedelta(microseconds=1)]],
    ),
    "decimal": (
        [{"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}],
        [[Decimal("1.00")], [Decimal("-1.00")], [Decimal("99999999999999.99")]],
    ),
}


def make_table(types: list[Any]) -> Table:
    names = [f"k{i}" for i in range(len(types))]
    fields = [{"name": n, "type": t} for n, t in zip(names, types, strict=True)]
    # Words that SQL or the store could stumble over: a schema may use them.
    fields += [{"name": name, "type": "int"} for name in ("_seq", "select", "topic", "offset")]
    schema = {"type": "record", "name": "row", "fields": fields}
    value = SchemaVersion("odd.Name-1-value", 1, 1, schema)
    key = SchemaVersion("odd.Name-1-key", 1, 2, key_schema("odd.Name-1", schema, names))
    return Table("odd.Name-1", "id", 2, (value,), tuple(names), "avro", key)


@pytest.mark.parametrize("kind", KEYS)
def test_the_last_write_of_each_key_is_its_row(kind: str, tmp_path: Path) -> None:
    types, keys = KEYS[kind]
    table = make_table(types)
    log = FakeLog(seed=3)
    log.add(table)
    encoder = RowEncoder(table)
    expected: dict[tuple[Any, ...], int] = {}
    for n in range(60):
        key = keys[log.random.randrange(len(keys))]
        named = {f"k{i}": value for i, value in enumerate(key)}
        # A key has one partition, as a partitioner would see to it.
        partition = keys.index(key) % 2
        if log.random.random() < 0.3:
            log.put(table.name, partition, encoder.key(named), None)
            expected.pop(tuple(key), None)
        else:
            row = {**named, "_seq": n, "select": n, "topic": n, "offset": n}
            log.put(table.name, partition, encoder.key(row), encoder.value(row))
            expected[tuple(key)] = n
    with_store(log, table, tmp_path / "store.duckdb", expected)


def with_store(log: FakeLog, table: Table, path: Path, expected: dict[tuple[Any, ...], int]) -> None:
    store = Store(path, log.cluster_id, "g", Limits(head_room=0))
    progress = Progress()
    loop = Applier(log, store, Follow(log, store, [table.name], False), log.reader("g"), progress, limits(11))
    loop.begin()
    while not progress.applied.reaches(log.ends(list(log.partitions))):
        loop.turn()
        loop.flush()
    with store.reading(1) as cursor:
        found = cursor.execute('SELECT "_seq", "select", topic, "offset" FROM "odd.Name-1"').fetchall()
        assert sorted(found) == sorted((n, n, n, n) for n in expected.values())
        assert [why for account in audit_store(cursor) for why in account.wrong] == []
        assert cursor.execute("SELECT count(*) FROM _merganser.quarantine").fetchall() == [(0,)]
    loop.stop()
    store.close()


# -- one key in several spellings ------------------------------------------------------------


def number(value: int, idle: int = 0) -> bytes:
    """An Avro int, with *idle* bytes more than it takes."""
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 127 or idle:
        idle -= rest <= 127
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def sized(raw: bytes) -> bytes:
    return number(len(raw)) + raw


def mixed_case(text: str, bits: int) -> str:
    return "".join(c.upper() if bits >> i & 1 else c for i, c in enumerate(text))


small, ways = st.integers(-200, 200), st.integers(0, 2)
SYMBOLS = [["X", "Y", "Z"], ["Z", "X", "Y"], ["Y", "Z", "X", "W"]]

#: The versions of a key's type; and a value, in which version it is written, and how.
Spelling = tuple[object, int, bytes]
SPELLINGS: dict[str, tuple[list[Any], st.SearchStrategy[Spelling]]] = {
    "long": (["long"], st.builds(lambda n, idle: (n, 0, number(n, idle)), small, ways)),
    "became nullable": (
        ["long", ["null", "long"], ["long", "null"]],
        st.one_of(
            st.builds(lambda n, way: (n, way, (b"", b"\2", b"\0")[way] + number(n)), small, ways),
            st.sampled_from([(None, 1, b"\0"), (None, 2, b"\2")]),
        ),
    ),
    "decimal": (
        [{"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}],
        st.builds(lambda n, idle: (n, 0, sized(n.to_bytes(2 + idle, signed=True))), small, ways)
        | st.integers(-128, 127).map(lambda n: (n, 0, sized(n.to_bytes(1, signed=True)))),
    ),
    "uuid": (
        [{"type": "string", "logicalType": "uuid"}],
        st.builds(
            lambda n, bits: (n, 0, sized(mixed_case(str(uuid.UUID(int=n << 64 | 0xABC)), bits).encode())),
            st.integers(0xA, 0xF),
            st.integers(0, 2**36),
        ),
    ),
    "enum": (
        [{"type": "enum", "name": "e", "symbols": symbols} for symbols in SYMBOLS],
        st.builds(lambda c, way: (c, way, number(SYMBOLS[way].index(c))), st.sampled_from("XYZ"), ways)
        | st.just(("W", 2, number(3))),
    ),
    "blob": (
        ["bytes", {"type": "fixed", "name": "f", "size": 2}],
        st.builds(lambda raw, way: (raw, way, raw if way else sized(raw)), st.binary(min_size=2, max_size=2), ways).map(
            lambda s: (s[0], min(s[1], 1), s[2])
        ),
    ),
    "time": (
        [{"type": "int", "logicalType": "time-millis"}, {"type": "long", "logicalType": "time-micros"}],
        st.builds(lambda n, way: (n, way, number(n * (1, 1000)[way])), st.integers(0, 200), st.integers(0, 1)),
    ),
    "instant": (
        [{"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("micros", "millis")],
        st.builds(lambda n, way: (n, way, number(n * (1000, 1)[way])), small, st.integers(0, 1)),
    ),
    "day": ([{"type": "int", "logicalType": "date"}], st.builds(lambda n, i: (n, 0, number(n, i)), small, ways)),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_the_graph_tells_keys_apart_as_the_upsert_does(kind: str) -> None:
    """Whatever a key is spelt like, alone or beside others; and what cannot be read is no key."""
    types, spelt = SPELLINGS[kind]
    keys = [{"type": "record", "name": "k", "fields": [{"name": "id", "type": type_}]} for type_ in types]
    versions = [SchemaVersion("t-key", n, 10 + n, key) for n, key in enumerate(keys)]
    row = {"type": "record", "name": "row", "fields": [{"name": "n", "type": "int"}]}
    value = SchemaVersion("t-value", 1, 1, row)
    decoder = TableDecoder(Table("t", "id", 1, (value,), ("id",), "avro", versions[0]), 1, lambda subject: versions)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(spelt, min_size=1, max_size=6), st.sampled_from([None, b"", b"\0\0\0\0\x0a"]))
    def check(drawn: list[Spelling], unread: bytes | None) -> None:
        raw = [prefix(10 + version) + written for _, version, written in drawn]
        said = decoder.read_keys(raw)
        assert said == [read for one in raw for read in decoder.read_keys([one])]
        assert None not in said
        assert decoder.read_keys([*raw, unread]) == [*said, None]
        chunk = Chunk()
        chunk.partitions, chunk.offsets, chunk.times_ms = [0] * len(raw), list(range(len(raw))), [0] * len(raw)
        chunk.keys, chunk.values = list(raw), [framed(1, row, {"n": n}) for n in range(len(raw))]
        rows = decoder.part(decoder.decode(chunk, 0).puts, ()).rows().rows
        assert rows is not None
        last_of = {meant: n for n, (meant, _, _) in enumerate(drawn)}
        assert sorted(rows["n"].to_pylist()) == sorted(last_of.values())
        assert sorted({said: n for n, said in enumerate(said)}.values()) == sorted(last_of.values())

    check()


def test_a_decimal_is_written_as_java_writes_it() -> None:
    """``BigInteger.toByteArray()``: the least bytes with a sign bit. With any other a key would hash elsewhere."""
    expected = {0: "00", 1: "01", 127: "7f", 128: "0080", 255: "00ff", 256: "0100", -1: "ff", -127: "81"}
    expected |= {-128: "80", -129: "ff7f", -255: "ff01", -256: "ff00", -257: "feff", -32768: "8000", -32769: "ff7fff"}
    encoder = RowEncoder(make_table([{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]))
    assert {n: encoder.key({"k0": Decimal(n).scaleb(-2)})[6:].hex() for n in expected} == expected
