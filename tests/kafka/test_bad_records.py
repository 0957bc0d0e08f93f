"""FAILURES 21 and 22: what is no row is kept with a reason, nothing is skipped, and two replicas agree."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Message
from kafka_tables import ROW, accounts, digests, fill, framed, ids, raw_producer, raw_records

import merganser as mg
from merganser.consumers import decode
from merganser.consumers.apply import BatchLimits
from merganser.consumers.decode import TableDecoder
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check
from merganser.schemas import errors
from merganser.schemas.table import SchemaVersion
from support import wire
from support.naive import both_ways, caught
from support.waiting import wait_for

WIDER = {**ROW, "fields": [*ROW["fields"], {"name": "more", "type": "int", "default": 0}]}


class Registry:
    """A log whose registry can be away."""

    def __init__(self, log: mg.Log) -> None:
        self._log = log
        self.away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def versions(self, subject: str) -> list[SchemaVersion]:
        if self.away:
            raise errors.RegistryUnavailable("stub", "away for a test")
        return self._log.versions(subject)


@both_ways
def test_a_replica_waits_for_a_registry_that_is_away(
    log: mg.Log, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # what cannot be decoded now is bad
        monkeypatch.setattr(TableDecoder, "meet", _meet_if_you_can(TableDecoder.meet))
    log.create_table(name, ROW, partitions=1)
    fill(log, name, range(3))
    stub = Registry(log)
    with mg.Replica(tmp_path / "r", stub, name, [name]) as replica:
        assert ids(replica, name) == [0, 1, 2]
        stub.away = True
        log.alter_table(name, WIDER)
        fill(log, name, [3])
        end = log.ends([mg.TopicPartition(name, 0)])
        wait_for(
            "it to wait for the registry, or not",
            lambda: replica._progress.held_up_by is not None or replica.read_position.reaches(end),
        )
        with caught(naive):
            with pytest.raises(errors.NotFreshEnough, match=r"1 offsets behind.*waiting for no answer from the schema"):
                ids(replica, name, timeout=1)
            assert ids(replica, name, "eventual") == [0, 1, 2]
        stub.away = False
        with caught(naive):
            assert ids(replica, name) == [0, 1, 2, 3]


def _meet_if_you_can(meet: Callable[[TableDecoder, int], None]) -> Callable[[TableDecoder, int], None]:
    def meet_or_not(self: TableDecoder, schema_id: int) -> None:
        try:
            meet(self, schema_id)
        except errors.RegistryUnavailable:
            return

    return meet_or_not


def test_poison_is_kept_whole_with_its_reason(log: mg.Log, broker: str, name: str, tmp_path: Path) -> None:
    table = log.create_table(name, ROW, partitions=1)
    good = framed(table.latest.id, ROW, {"id": 1, "text": "good"})
    reasons = {
        b"\x01" + good[1:]: "the first byte is 1, not 0",
        b"\x00\x00\x0f\xff\xff" + good[5:]: f"schema id {0xFFFFF} is no version of {name}-value",
        good[:-1]: "",
        good + b"\x00": "1 trailing bytes",
        b"": "",
        None: "a null value in a table without a key",
    }
    with raw_producer(broker) as producer:
        for value in [good, *reasons, good]:
            producer.produce(name, value)
    with mg.Replica(tmp_path / "r", log, name, [name]) as replica:
        assert ids(replica, name) == [1, 1]
        rows = replica.query('SELECT value, reason FROM _merganser.quarantine ORDER BY "offset"').rows()
        assert [value for value, _ in rows] == list(reasons)
        for value, reason in rows:
            assert reason and reasons[value].lower() in reason.lower(), (value, reason)
    assert accounts(tmp_path / "r", log)[name].quarantined == len(reasons)


def test_headers_that_cannot_be_read_make_poison_of_their_record_alone(
    log: mg.Log, broker: str, name: str, tmp_path: Path
) -> None:
    """No broker checks that a header's name is UTF-8, and the client fails on it: nobody reads past such a record."""
    table = log.create_table(name, ROW, partitions=1)
    values = [framed(table.latest.id, ROW, {"id": n, "text": "by another"}) for n in range(8)]
    unread: list[list[tuple[bytes, bytes | None]]] = [
        [(b"\xff", b"1")], [(b"a", None), (b"\xc3\x28", None), (b"b", b"2")], [(b"merganser-tx\xff", b"x")]
    ]  # fmt: skip
    headers = [[(b"a", b"1")], unread[0], [], unread[1], unread[2], [("é".encode(), None)], [], unread[0]]
    wire.produce(broker, name, 0, [(None, value, said) for value, said in zip(values, headers, strict=True)])
    end = log.ends([mg.TopicPartition(name, 0)])
    archive = mg.Archive(tmp_path / "archive")
    with Archiver(log, archive, [name], until=end) as archiver:
        archiver.wait(end)
    for source, store in ((log, "of log"), (archive.log(), "of archive")):
        with mg.Replica(tmp_path / store, source, name, [name]) as replica:
            assert ids(replica, name) == [0, 2, 5, 6]
            rows = replica.query('SELECT value, reason FROM _merganser.quarantine ORDER BY "offset"').rows()
            assert rows == [(values[n], "headers that cannot be read: a name is no UTF-8") for n in (1, 3, 4, 7)]
        assert accounts(tmp_path / store, log)[name].quarantined == 4
    assert digests(tmp_path / "of log") == digests(tmp_path / "of archive")
    assert not check(archive, log).findings


@both_ways
def test_replicas_at_one_position_are_equal_whatever_their_batches(
    log: mg.Log, name: str, tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # the apply step looks at a clock
        clock = iter(range(1, 10**9))
        instants = decode._instants
        monkeypatch.setattr(decode, "_instants", lambda times: instants([next(clock) for _ in times]))
    log.create_table(name, ROW, ["id"], partitions=2)
    for turn in range(20):
        fill(log, name, [turn % 3, turn % 7, *range(20)], f"{turn}:")
    for store, records in (("small", 7), ("large", 200_000)):
        batches = BatchLimits(records=records, poll_records=records)
        with mg.Replica(tmp_path / store, log, store + name, [name], batches=batches) as replica:
            assert ids(replica, name) == list(range(20))
    with caught(naive):
        assert digests(tmp_path / "small") == digests(tmp_path / "large")


# -- fuzz --------------------------------------------------------------------------------------

FUZZED: dict[str, Any] = {
    "type": "record",
    "name": "fuzzed",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "text", "type": "string"},
        {"name": "raw", "type": ["null", "bytes"]},
        {"name": "real", "type": "double"},
        {"name": "many", "type": {"type": "array", "items": "int"}},
        {"name": "by", "type": {"type": "map", "values": "string"}},
        {"name": "kind", "type": {"type": "enum", "name": "kind", "symbols": ["a", "b"]}},
    ],
}
KEY = {"type": "record", "name": "key", "fields": [{"name": "id", "type": "long"}]}

Bytes = bytes | None


def good_row(dice: random.Random, id_: int) -> dict[str, Any]:
    return {
        "id": id_,
        "text": "ä" * dice.randrange(4),
        "raw": dice.choice([None, b"\x00\x01"]),
        "real": id_ / 4,
        "many": [dice.randrange(100) for _ in range(dice.randrange(3))],
        "by": {"k": "v"} if dice.random() < 0.5 else {},
        "kind": dice.choice("ab"),
    }


def fuzzed(dice: random.Random, good: bytes, key: Bytes) -> tuple[Bytes, Bytes]:
    """A message made of a good one: cut, flipped, of a wrong id, of huge lengths, empty, null, noise."""

    def flip(data: bytes) -> bytes:
        at = dice.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]

    at = dice.randrange(5, len(good))
    values: list[Callable[[], Bytes]] = [
        lambda: good[: dice.randrange(len(good))],
        lambda: flip(good),
        lambda: flip(flip(good[:5]) + good[5:]),
        lambda: good[:1] + dice.randbytes(4) + good[5:],
        lambda: good[:at] + b"\xfe\xff\xff\xff\x0f" + good[at:],
        lambda: good[:at] + b"\xff" * 12 + good[at:],
        lambda: b"",
        lambda: None,
        lambda: good + dice.randbytes(dice.randint(1, 9)),
        lambda: good[:5] + dice.randbytes(dice.randrange(60)),
        lambda: dice.randbytes(dice.randrange(40)),
    ]
    if key is not None and dice.random() < 0.3:
        return dice.choice([None, b"", flip(key), key[:-1], key + b"\x00", dice.randbytes(8)]), good
    return key, dice.choice(values)()


def spelled(data: Bytes, schema_id: int, schema: Any) -> Any:
    """The row that *data* is, by fastavro; None if it is none, or has bytes left over."""
    if data is None or len(data) < 5 or data[:5] != b"\x00" + schema_id.to_bytes(4, "big"):
        return None
    rest = io.BytesIO(data[5:])
    try:
        row = fastavro.schemaless_reader(rest, schema, None)
    except Exception:  # whatever it stumbles on, it is no row
        return None
    return None if rest.read(1) else row


Place = tuple[int, int]


def fold(table: mg.Table, messages: list[Message], quarantined: set[Place]) -> dict[Place, Any]:
    """The rows of *messages* without those in quarantine; each of the others has to be one, or a delete."""
    schema, key_schema = fastavro.parse_schema(FUZZED), fastavro.parse_schema(KEY)
    rows: dict[Place, Any] = {}
    of_key: dict[int, Place] = {}
    for message in messages:
        place: Place = (message.partition(), message.offset())  # type: ignore[assignment]
        if place in quarantined:
            assert place[1] % 2, f"a good row is in quarantine: {place}"
            continue
        row = spelled(message.value(), table.latest.id, schema)
        if table.key_schema is not None:
            key = spelled(message.key(), table.key_schema.id, key_schema)
            assert key is not None and (message.value() is None or row["id"] == key["id"]), place
            rows.pop(of_key.pop(key["id"], (-1, -1)), None)
            of_key[key["id"]] = place
        else:
            assert row is not None, place
        if row is not None:
            rows[place] = row
    return rows


def read(replica: mg.Replica, table: str) -> tuple[dict[Place, Any], set[Place]]:
    """The rows and the quarantine of a replica, by place; no place has two."""
    found = replica.query(f'SELECT * EXCLUDE (_timestamp) FROM "{table}"', level="strong")
    held = replica.query('SELECT partition, "offset", reason FROM _merganser.quarantine').rows()
    rows = {}
    for values in found.rows():
        row = dict(zip(found.columns, values, strict=True))
        rows[row.pop("_partition"), row.pop("_offset")] = row
    quarantined = {(partition, offset) for partition, offset, reason in held if reason}
    assert (len(rows), len(quarantined)) == (len(found), len(held))
    return rows, quarantined


@pytest.mark.parametrize(
    ("keyed", "count", "naive"),
    [
        pytest.param(False, 10_000, False, id="append"),
        pytest.param(True, 10_000, False, id="keyed"),
        pytest.param(False, 200, True, id="naive"),
    ],
)
def test_each_fuzzed_message_is_the_row_it_spells_or_in_quarantine(
    log: mg.Log, broker: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    keyed: bool, count: int, naive: bool,
) -> None:  # fmt: skip
    if naive:  # what cannot be decoded is passed over
        monkeypatch.setattr("merganser.consumers.ledger.quarantine", lambda con, poison: None)
    table = log.create_table(name, FUZZED, ["id"] if keyed else [], partitions=2)
    dice = random.Random(count)
    with raw_producer(broker, **{"enable.idempotence": True}) as producer:
        for id_ in range(count):
            key = framed(table.key_schema.id, KEY, {"id": id_}) if table.key_schema else None
            value = framed(table.latest.id, FUZZED, good_row(dice, id_))
            producer.produce(name, value, key, partition=id_ % 2)
            bad_key, bad = fuzzed(dice, value, key)
            producer.produce(name, bad, bad_key, partition=id_ % 2)
            producer.poll(0)
    for store, batches in {"small": BatchLimits(records=313, poll_records=101), "large": BatchLimits()}.items():
        with mg.Replica(tmp_path / store, log, store + name, [name], batches=batches) as replica:
            rows, quarantined = read(replica, name)
    with caught(naive):
        assert digests(tmp_path / "small") == digests(tmp_path / "large")
        account = accounts(tmp_path / "small", log)[name]
        assert account.puts + account.deletes + account.quarantined == 2 * count
        wanted = fold(table, raw_records(broker, name, 2), quarantined)
        assert {place: repr(row) for place, row in rows.items()} == {place: repr(row) for place, row in wanted.items()}
        assert len(quarantined) > count / 2
