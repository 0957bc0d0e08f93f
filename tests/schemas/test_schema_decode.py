from __future__ import annotations

import io
import json
import struct
import time
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_tables import ID, PREFIX, record, table, version

from merganser.schemas.arrow import arrow_schema
from merganser.schemas.columns import ColumnReader, common_schema_id, supported
from merganser.schemas.decode import Decoded, Decoder, KeyDecoder, split_by_schema
from merganser.schemas.encode import RowEncoder, prefix
from merganser.schemas.read import Damaged, RowReader
from merganser.schemas.table import SchemaVersion, Table
from support.avro_strategies import comparable, named, patient, records, rows_of, schemas_and_rows


def one_by_one(decoder: Decoder, values: list[Any]) -> Decoded:
    """The same values by the strict reader alone."""
    strict = Decoder.__new__(Decoder)
    strict.__dict__.update(decoder.__dict__, _all=None)
    return strict.decode(values)


def assert_same(a: Decoded, b: Decoded) -> None:
    assert a.bad == b.bad
    assert a.good == b.good
    assert a.rows.schema == b.rows.schema
    a.rows.validate(full=True)
    assert rows_of(a.rows) == rows_of(b.rows)


def assert_accounted(decoded: Decoded, count: int) -> None:
    good = list(range(count)) if decoded.good is None else decoded.good
    assert len(good) == decoded.rows.num_rows
    assert sorted(good + [i for i, _ in decoded.bad]) == list(range(count))
    assert all(why for _, why in decoded.bad)


@patient
@given(schemas_and_rows(max_rows=12))
def test_whole_batches_decode_as_one_by_one_and_as_fastavro(case: Any) -> None:
    schema, rows = case
    encoder, decoder = RowEncoder(table(schema)), Decoder(version(schema), "t")
    values = [encoder.value(row) for row in rows]
    decoded = decoder.decode(values)
    assert decoded.good is None and not decoded.bad
    assert_same(decoded, one_by_one(decoder, values))
    if supported(decoder.type):
        # The fast way took it whole: nothing that an encoder writes is in doubt.
        assert ColumnReader(decoder.type, ID).rows(values) is not None
    assert comparable(_by_fastavro(schema, values)) == comparable(_plain_rows(decoder, values))


def _plain_rows(decoder: Decoder, values: list[bytes]) -> list[Any]:
    reader = RowReader(decoder.type, ID)
    return [reader.row(value) for value in values]


def _by_fastavro(schema: Any, values: list[bytes]) -> list[Any]:
    """Fastavro's rows without logical types, then what our reader adds to the raw values."""
    plain = fastavro.parse_schema(_without_logical_types(schema))
    rows = [fastavro.schemaless_reader(io.BytesIO(v[5:]), plain) for v in values]
    return [_lifted(schema, row) for row in rows]


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        k: [{**f, "type": _without_logical_types(f["type"])} for f in v] if k == "fields" else _without_logical_types(v)
        for k, v in schema.items()
        if k != "logicalType"
    }


def _lifted(schema: Any, value: Any) -> Any:
    if isinstance(schema, list):
        return None if value is None else _lifted(next(s for s in schema if s != "null"), value)
    if not isinstance(schema, dict):
        return value
    match schema["type"]:
        case "record":
            return {f["name"]: _lifted(f["type"], value[f["name"]]) for f in schema["fields"]}
        case "array":
            return [_lifted(schema["items"], v) for v in value]
        case "map":
            return [(k, _lifted(schema["values"], v)) for k, v in value.items()]
    logical = schema.get("logicalType", "")
    if logical == "decimal":
        unscaled = int.from_bytes(value, signed=True)
        return Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -schema["scale"]))
    return value * 1000 if logical.endswith("-millis") else value


DAMAGE = ["cut", "flip", "grow", "drop", "id", "magic", "empty", "null", "huge", "splice"]


@st.composite
def damaged(draw: st.DrawFn, value: bytes) -> bytes | None:
    """*value* with some harm done to it."""
    kind = draw(st.sampled_from(DAMAGE))
    at = draw(st.integers(0, len(value) - 1))
    match kind:
        case "cut":
            return value[:at]
        case "flip":
            return value[:at] + bytes([value[at] ^ 1 << draw(st.integers(0, 7))]) + value[at + 1 :]
        case "grow":
            return value + draw(st.binary(min_size=1, max_size=9))
        case "drop":
            return value[:at] + value[at + 1 :]
        case "id":
            return value[:1] + draw(st.binary(min_size=4, max_size=4)) + value[5:]
        case "magic":
            return bytes([draw(st.integers(1, 255))]) + value[1:]
        case "empty":
            return b""
        case "huge":
            return value[:at] + draw(st.sampled_from(HUGE)) + value[at:]
        case "splice":
            return value[:5] + draw(st.binary(max_size=30))
    return None


#: Varints: 2**63-1, -2**63, one of eleven bytes, one whose tenth byte has spare bits, a zero in ten bytes.
HUGE = [b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x01", b"\x80" * 10 + b"\0", b"\x80" * 9 + b"\x7f"]
HUGE += [b"\x80" * 9 + b"\0"]


@patient
@given(schemas_and_rows(max_rows=3), st.data())
def test_every_input_is_a_row_or_bad_whatever_the_damage(case: Any, data: st.DataObject) -> None:
    schema, rows = case
    encoder, decoder = RowEncoder(table(schema)), Decoder(version(schema), "t")
    sound = [encoder.value(row) for row in rows]
    values: list[Any] = data.draw(
        st.lists(st.sampled_from(sound).flatmap(lambda v: st.just(v) | damaged(v)), min_size=1, max_size=70)
    )
    decoded = decoder.decode(values)
    assert_accounted(decoded, len(values))
    assert_same(decoded, one_by_one(decoder, values))
    groups, unread = split_by_schema(values)
    assert sorted([i for at in groups.values() for i in at] + [i for i, _ in unread]) == list(range(len(values)))


@patient
@given(records(), st.data())
def test_random_bytes_are_judged_alike_alone_and_in_company(case: Any, data: st.DataObject) -> None:
    decoder = Decoder(version(named(case[0])), "t")
    bodies = data.draw(st.lists(st.binary(max_size=12) | st.sampled_from([b"\0" * n for n in range(12)]), max_size=40))
    values = [PREFIX + body for body in bodies]
    together = decoder.decode(values)
    assert_accounted(together, len(values))
    assert_same(together, one_by_one(decoder, values))
    alone = [decoder.decode([value]) for value in values]
    assert [a.bad[0][1] for a in alone if a.bad] == [why for _, why in together.bad]
    assert [row for a in alone for row in rows_of(a.rows)] == rows_of(together.rows)


BAD_VALUES: list[tuple[Any, bytes, str]] = [
    ("int", b"\x80\x80\x80\x80\x10", "out of the range of int"),
    ("int", b"\x80" * 9 + b"\x7f", "out of the range of int"),
    ("long", b"\x80" * 10 + b"\0", "more than ten bytes"),
    ("boolean", b"\2", "a boolean of 2"),
    ("string", b"\4\xff\xfe", "not UTF-8"),
    ("string", b"\6\xed\xa0\x80", "not UTF-8"),
    ("string", b"\1", "a length of -1"),
    ("string", HUGE[0] + b"abc", "with 4 bytes left"),
    ("bytes", HUGE[0] + b"abc", "with 4 bytes left"),
    ({"type": "array", "items": "long"}, HUGE[0] + b"\2", "a block of 9223372036854775807 items"),
    ({"type": "array", "items": "long"}, HUGE[1] + b"\2\0", "a block of 9223372036854775808 items"),
    ({"type": "map", "values": "long"}, b"\4\2a\2\2a\4\0", "same key twice"),
    (["null", "int"], b"\4", "union branch 2"),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, b"\4", "enum symbol 2 of 2"),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, b"\1", "enum symbol -1 of 2"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 1}, b"\2\x64", "more than 2 digits"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 1}, b"\0", "a decimal of no bytes"),
    ({"type": "fixed", "name": "d", "size": 4, "logicalType": "decimal", "precision": 2}, b"\0\0\1\0", "2 digits"),
    ({"type": "string", "logicalType": "uuid"}, b"\4ab", "no uuid"),
    ({"type": "int", "logicalType": "date"}, b"\xfe\xff\xff\xff\x0f", "out of the range of date"),
    ({"type": "int", "logicalType": "time-millis"}, b"\x80\xf0\xb2\x52", "out of the range of time-millis"),
    ({"type": "long", "logicalType": "timestamp-micros"}, HUGE[0], "out of the range of timestamp-micros"),
    ({"type": "long", "logicalType": "timestamp-nanos"}, HUGE[0], "out of the range of timestamp-nanos"),
]


@pytest.mark.parametrize(("type_", "body", "why"), BAD_VALUES)
def test_a_value_that_does_not_fit_is_bad_and_its_neighbours_are_rows(type_: Any, body: bytes, why: str) -> None:
    schema = record(("a", type_), ("b", "int"))
    decoder = Decoder(version(schema), "t")
    good = PREFIX + fastavro_default(type_) + b"\2"
    values = [good] * 50 + [PREFIX + body + b"\2"] + [good] * 50
    decoded = decoder.decode(values)
    assert [i for i, _ in decoded.bad] == [50]
    assert why in decoded.bad[0][1]
    assert_accounted(decoded, 101)
    assert_same(decoded, one_by_one(decoder, values))


def fastavro_default(type_: Any) -> bytes:
    """Some sound encoding of the type."""
    if isinstance(type_, dict) and type_.get("logicalType") == "uuid":
        return b"\x48" + b"00000000-0000-0000-0000-000000000000"
    if isinstance(type_, dict) and type_["type"] == "fixed":
        return b"\0" * int(type_["size"])
    return b"\2\1" if isinstance(type_, dict) and type_["type"] == "bytes" else b"\0"


@pytest.mark.parametrize("extra", [1, 2, 7])
def test_trailing_bytes_are_bad(extra: int) -> None:
    schema = record(("a", "long"), ("b", ["null", "string"]), ("c", {"type": "array", "items": "int"}))
    encoder, decoder = RowEncoder(table(schema)), Decoder(version(schema), "t")
    values = [encoder.value({"a": i, "b": None, "c": [i]}) for i in range(1000)]
    values[500] += b"\0" * extra
    decoded = decoder.decode(values)
    assert decoded.bad == [(500, f"{extra} trailing bytes after the row")]
    assert decoded.rows.num_rows == 999


def test_a_byte_too_many_here_does_not_pay_for_one_too_few_there() -> None:
    """Sums over a batch must not let two wrongs make a right."""
    schema = record(("a", "string"))
    decoder = Decoder(version(schema), "t")
    values = [PREFIX + b"\2ab", PREFIX + b"\4a", PREFIX + b"\2a"]
    assert [i for i, _ in decoder.decode(values).bad] == [0, 1]


def test_arrays_in_blocks_are_rows_too() -> None:
    """Java's blocking encoder writes sizes before blocks; a long may have more bytes than it needs."""
    decoder = Decoder(version(record(("a", {"type": "array", "items": "long"}), ("b", "long"))), "t")
    blocks = b"\3\x04\2\4" + b"\2\6" + b"\0" + b"\x82\0"
    decoded = decoder.decode([PREFIX + blocks] * 100)
    assert decoded.good is None
    assert decoded.rows.to_pylist() == [{"a": [1, 2, 3], "b": 1}] * 100


def test_a_long_of_ten_bytes_keeps_64_bits_as_other_readers_do() -> None:
    decoder = Decoder(version(record(("a", "long"))), "t")
    values = [PREFIX + b"\x80" * 9 + b"\x7f", PREFIX + b"\x80" * 9 + b"\x01"]
    assert_same(decoder.decode(values), one_by_one(decoder, values))
    assert decoder.decode(values).rows.column("a").to_pylist() == [2**62, 2**62]


def test_every_nan_is_the_same_nan() -> None:
    schema = record(("a", "double"), ("b", "float"))
    odd = PREFIX + struct.pack("<Q", 0xFFF0000000000001) + struct.pack("<I", 0x7FA00001)
    decoder = Decoder(version(schema), "t")
    plain = RowEncoder(table(schema)).value({"a": float("nan"), "b": float("nan")})
    for rows in (decoder.decode([odd, plain]).rows, one_by_one(decoder, [odd, plain]).rows):
        for column in rows.columns:
            width = column.type.bit_width // 8
            raw = column.combine_chunks().buffers()[1].to_pybytes()
            assert raw[:width] == raw[width : 2 * width]


@pytest.mark.parametrize("id_", [0, 1, 7, 0x7FA00001, 0x0000A07F, 0xFFFFFFFF, 0x80000000, 0x00C0FFEE])
def test_any_schema_id_is_told_from_any_other(id_: int) -> None:
    schema = record(("a", "int"))
    decoder = Decoder(version(schema, id=id_), "t")
    values = [prefix(id_) + b"\2"] * 100
    assert common_schema_id(values) == id_
    assert decoder.decode(values).good is None
    other = prefix(id_ ^ 1) + b"\2"
    assert decoder.decode([*values, other]).bad == [(100, f"schema id {id_ ^ 1}, not {id_}")]
    assert split_by_schema([*values, other, b"\0\0", None])[0] == {id_: list(range(100)), id_ ^ 1: [100]}


@pytest.mark.parametrize("magic", [1, 2, 255])
def test_another_first_byte_is_no_prefix_even_if_all_have_it(magic: int) -> None:
    values = [bytes([magic]) + PREFIX[1:] + b"\2"] * 3
    decoded = Decoder(version(record(("a", "int"))), "t").decode(values)
    assert [i for i, _ in decoded.bad] == [0, 1, 2]
    assert common_schema_id(values) is None
    assert len(split_by_schema(values)[1]) == 3


@pytest.mark.parametrize("harm", ["cut", "trailing", "empty", "utf8"])
def test_ten_thousand_bad_values_take_seconds_at_most(harm: str) -> None:
    schema = record(("a", "long"), ("b", "string"), ("c", {"type": "array", "items": "string"}))
    value = RowEncoder(table(schema)).value({"a": 1, "b": "x" * 20, "c": ["y"] * 5})
    bad = {"cut": value[:-1], "trailing": value + b"\0", "empty": b"", "utf8": value.replace(b"x" * 20, b"\xff" * 20)}
    decoder = Decoder(version(schema), "t")
    start = time.monotonic()
    decoded = decoder.decode([bad[harm]] * 10_000)
    assert time.monotonic() - start < 60
    assert len(decoded.bad) == 10_000


def test_no_values_are_no_rows() -> None:
    decoder = Decoder(version(record(("a", "int"))), "t")
    decoded = decoder.decode([])
    assert decoded.rows.num_rows == 0 and decoded.rows.schema == decoder.schema
    assert split_by_schema([]) == ({}, [])


def test_null_values_are_told_apart_from_values() -> None:
    value = PREFIX + b"\2"
    assert split_by_schema([None, value, None, value]) == ({ID: [1, 3]}, [(0, "null value"), (2, "null value")])
    assert split_by_schema([None]) == ({}, [(0, "null value")])
    assert split_by_schema([None, b"", value])[0] == {ID: [2]}


def test_named_types_used_twice_and_nested_namespaces_decode() -> None:
    point = {"type": "record", "name": "geo.point", "fields": [{"name": "x", "type": "int"}]}
    schema = record(("a", point), ("b", ["null", "geo.point"]), ("c", {"type": "array", "items": "geo.point"}))
    row = {"a": {"x": 1}, "b": {"x": 2}, "c": [{"x": 3}]}
    value = RowEncoder(table(schema)).value(row)
    assert Decoder(version(json.dumps(schema)), "t").decode([value]).rows.to_pylist() == [row]


def test_the_strict_reader_names_the_end_of_the_bytes() -> None:
    reader = RowReader(Decoder(version(record(("a", "double"))), "t").type, ID)
    with pytest.raises(Damaged, match="cut short"):
        reader.row(PREFIX + b"\0\0\0")


# -- keys ------------------------------------------------------------------------------------


def test_avro_keys_decode_to_key_columns_and_null_is_bad() -> None:
    keyed = table(record(("a", "long"), ("b", "string"), ("c", "int")), ["b", "a"])
    encoder = RowEncoder(keyed)
    keys = [encoder.key({"a": i, "b": str(i)}) for i in range(3)]
    decoded = KeyDecoder(keyed).decode([keys[0], None, b"\0\0\0\0\x63\2a", b"", keys[2]])
    assert decoded.rows.to_pylist() == [{"b": "0", "a": 0}, {"b": "2", "a": 2}]
    assert decoded.good == [0, 4]
    assert [i for i, _ in decoded.bad] == [1, 2, 3]
    assert decoded.bad[0][1] == "null key"
    assert "schema id 99" in decoded.bad[1][1]


def test_keys_of_several_schema_versions_keep_their_order() -> None:
    keyed = table(record(("a", "long"), ("c", "int")), ["a"])
    assert keyed.key_schema is not None
    again = SchemaVersion("t-key", 2, 9, {**keyed.key_schema.schema, "doc": "the same columns"})  # type: ignore[dict-item]
    encoder = RowEncoder(keyed)
    first = [encoder.key({"a": i}) for i in range(6)]
    keys = [k if i % 2 else prefix(9) + k[5:] for i, k in enumerate(first)]
    decoded = KeyDecoder(keyed, [again]).decode([*keys, None])
    assert decoded.rows.column("a").to_pylist() == list(range(6))
    assert decoded.bad == [(6, "null key")]


@pytest.mark.parametrize(
    ("encoding", "keys", "seen", "type_"),
    [
        ("string", [b"a", None, b"\xff", b""], ["a", ""], pa.string()),
        ("int", [b"\xff\xff\xff\xfe", b"\0\0\0", b"", b"\0\0\1\0"], [-2, 256], pa.int32()),
        ("long", [b"\0" * 7 + b"\5", b"\0" * 9, None, b"\xff" * 8], [5, -1], pa.int64()),
    ],
)
def test_plain_keys_decode(encoding: Any, keys: list[Any], seen: list[Any], type_: Any) -> None:
    plain = Table("t", "id", 1, (version(record(("k", encoding))),), ("k",), encoding)
    decoded = KeyDecoder(plain).decode(keys)
    assert decoded.rows.column("k").to_pylist() == seen
    assert decoded.rows.schema.field("k").type == type_
    assert [i for i, _ in decoded.bad] == [1, 2]
    assert_accounted(decoded, len(keys))


def test_arrow_schema_has_all_columns_nullable() -> None:
    decoder = Decoder(version(record(("a", "int"))), "t")
    assert arrow_schema(decoder.type).field("a").nullable
