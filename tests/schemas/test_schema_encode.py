from __future__ import annotations

import datetime as dt
import io
import uuid
from collections import OrderedDict
from decimal import Context, Decimal
from enum import IntEnum
from typing import Any

import fastavro
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from schema_tables import PREFIX, record, table

from merganser.schemas.decode import Decoder
from merganser.schemas.defaults import varint
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadSchema, InvalidRow
from merganser.schemas.table import SchemaVersion, Table
from support.avro_strategies import SCALARS, comparable, named, patient, schemas_and_rows


def read(schema: Any, value: bytes) -> Any:
    """What another Avro reader sees."""
    buffer = io.BytesIO(value)
    row = fastavro.schemaless_reader(buffer, fastavro.parse_schema(schema))
    assert buffer.read() == b""
    return row


def as_written(given: Any, seen: Any) -> Any:
    """What fastavro gave, in the terms in which the row was written, where fastavro has no such type."""
    if isinstance(given, dict) and isinstance(seen, dict) and given.keys() == seen.keys():
        return {k: as_written(given[k], seen[k]) for k in given}
    if isinstance(given, (list, tuple)) and isinstance(seen, list) and len(given) == len(seen):
        return [as_written(g, s) for g, s in zip(given, seen, strict=True)]
    if isinstance(given, uuid.UUID) and isinstance(seen, bytes):
        return uuid.UUID(bytes=seen)
    return seen


@patient
@given(schemas_and_rows())
def test_what_is_accepted_is_read_back_equal(case: Any) -> None:
    schema, rows = case
    encoder = RowEncoder(table(schema))
    for row in rows:
        value = encoder.value(row)
        assert value[:5] == PREFIX
        assert comparable(as_written(row, read(schema, value[5:]))) == comparable(row)


NUMBERS = [None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 2**53 + 1, 0.5, float("nan"), 1e39, 10**5000]
TEXTS = ["", "A", "1", "\ud800", b"", b"abcd", bytearray(b"x"), b"a" * 16, uuid.UUID(int=5), str(uuid.UUID(int=5))]
NESTED = [[], [1], (1, 2), {}, {"a": 1}, {1: 2}, object(), range(3), {1, 2}]
EXACT = [Decimal("1.5"), Decimal("NaN"), Decimal("1E+30"), Decimal("1E-30"), Decimal(10**40), Decimal("1E+999999")]
TIMES = [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 1, 1, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]
TIMES += [dt.time(1, 2, 3, 4), dt.time(1, tzinfo=dt.UTC)]
JUNK = st.sampled_from([*NUMBERS, *TEXTS, *NESTED, *EXACT, *TIMES])


@patient
@given(schemas_and_rows(max_rows=1), st.data())
def test_any_value_is_refused_by_column_or_read_back_equal(case: Any, data: st.DataObject) -> None:
    schema, (row,) = case
    column = data.draw(st.sampled_from(sorted(row)))
    row = {**row, column: data.draw(JUNK)}
    try:
        value = RowEncoder(table(schema)).value(row)
    except InvalidRow as e:
        assert e.column.startswith(column)
        assert str(e)
        return
    assert means(row[column], as_written(row, read(schema, value[5:]))[column])


def means(given: Any, seen: Any) -> bool:
    """True if what was read is what was given: of its type, or exactly equal in a type that the docs allow."""
    if isinstance(given, (list, tuple)) and isinstance(seen, list):
        return len(given) == len(seen) and all(map(means, given, seen))
    if isinstance(given, dict) and isinstance(seen, dict):
        return given.keys() == seen.keys() and all(means(given[k], seen[k]) for k in given)
    if isinstance(given, str) and isinstance(seen, (uuid.UUID, bytes)):
        return given == str(seen if isinstance(seen, uuid.UUID) else uuid.UUID(bytes=seen))
    if isinstance(given, dt.datetime) and type(seen) is int:  # nanoseconds, for which fastavro has no type
        return given.replace(tzinfo=dt.UTC) == dt.datetime.fromtimestamp(seen // 10**9, dt.UTC).replace(
            microsecond=seen % 10**9 // 1000
        )
    if isinstance(seen, (float, Decimal)) and not isinstance(given, bool):
        return isinstance(given, (int, float, Decimal)) and (seen == given or (seen != seen and given != given))
    same_type = type(given) is type(seen) or (type(given), type(seen)) == (bytearray, bytes)
    return same_type and bool(given == seen)


#: What fastavro's writer takes, or rounds, in silence.
LENIENT: list[tuple[Any, Any]] = [
    ("int", True),
    ("long", False),
    ("int", 2**31),
    ("boolean", 1),
    ("boolean", "yes"),
    ("double", True),
    ("double", "1.5"),
    ("double", 2**53 + 1),
    ("float", 1e39),
    ("string", b"bytes"),
    ("bytes", "text"),
    ({"type": "array", "items": "int"}, {1: 2}),
    ({"type": "array", "items": "int"}, "12"),
    ({"type": "map", "values": "int"}, [("a", 1)]),
    ({"type": "int", "logicalType": "date"}, dt.datetime(2020, 1, 1)),
    ({"type": "int", "logicalType": "date"}, 5),
    ({"type": "int", "logicalType": "date"}, "2020-01-01"),
    ({"type": "int", "logicalType": "time-millis"}, dt.time(1, 1, 1, 1)),
    ({"type": "long", "logicalType": "time-micros"}, dt.time(1, tzinfo=dt.UTC)),
    ({"type": "long", "logicalType": "timestamp-micros"}, dt.datetime(2020, 1, 1)),
    ({"type": "long", "logicalType": "timestamp-millis"}, dt.datetime(2020, 1, 1, 0, 0, 0, 1, dt.UTC)),
    ({"type": "long", "logicalType": "timestamp-micros"}, 5),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, 1.5),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("123.45")),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("1E+2")),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("0.001")),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("Infinity")),
    ({"type": "string", "logicalType": "uuid"}, "no-uuid"),
    ({"type": "string", "logicalType": "uuid"}, "{00000000-0000-0000-0000-000000000005}"),
    ({"type": "enum", "name": "e", "symbols": ["A"]}, "B"),
    ({"type": "enum", "name": "e", "symbols": ["A"]}, ["A"]),
    ({"type": "fixed", "name": "f", "size": 4}, b"abc"),
    (["null", "int"], ("int", 5)),
    (["null", "long"], True),
]


@pytest.mark.parametrize(("type_", "value"), LENIENT)
def test_leniency_is_refused(type_: Any, value: Any) -> None:
    encoder = RowEncoder(table(record(("a", type_), ("b", "int"))))
    with pytest.raises(InvalidRow) as e:
        encoder.value({"a": value, "b": 1})
    assert e.value.column == "a"


class Size(IntEnum):
    SMALL = 3


@pytest.mark.parametrize(
    ("type_", "value", "seen"),
    [
        ("double", 3, 3.0),
        ("float", 0.1, 0.10000000149011612),
        ("int", Size.SMALL, 3),
        ("bytes", bytearray(b"x"), b"x"),
        ({"type": "array", "items": "int"}, (1, 2), [1, 2]),
        ({"type": "map", "values": "int"}, OrderedDict(a=1), {"a": 1}),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, 3, Decimal("3.00")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, Decimal("1.5"), Decimal("1.50")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, Decimal("1.50000"), Decimal("1.5")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, Decimal("1E+2"), Decimal("100")),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, Decimal("-0"), Decimal(0)),
        ({"type": "string", "logicalType": "uuid"}, str(uuid.UUID(int=9)), uuid.UUID(int=9)),
    ],
)
def test_what_loses_nothing_is_accepted(type_: Any, value: Any, seen: Any) -> None:
    schema = record(("a", type_))
    assert read(schema, RowEncoder(table(schema)).value({"a": value})[5:]) == {"a": seen}


def test_the_column_path_leads_to_the_value() -> None:
    line = {"type": "record", "name": "line", "fields": [{"name": "qty", "type": "int"}]}
    schema = record(
        ("address", {"type": "record", "name": "address", "fields": [{"name": "zip", "type": "string"}]}),
        ("lines", {"type": "array", "items": line}),
        ("tags", {"type": "map", "values": "int"}),
    )
    good: dict[str, Any] = {"address": {"zip": "1"}, "lines": [{"qty": 1}] * 3, "tags": {"a": 1}}
    encoder = RowEncoder(table(schema))
    encoder.value(good)
    for change, path in [
        ({"address": {"zip": 1}}, "address.zip"),
        ({"address": {}}, "address.zip"),
        ({"address": {"zip": "1", "city": "x"}}, "address.city"),
        ({"address": {5: "x"}}, "address.5"),
        ({"lines": [{"qty": 1}, {"qty": 1}, {"qty": "1"}]}, "lines[2].qty"),
        ({"tags": {"a": 1, "b": None}}, "tags['b']"),
        ({"tags": {"a": 1, 5: 1}}, "tags[5]"),
        ({"more": 1}, "more"),
    ]:
        with pytest.raises(InvalidRow) as e:
            encoder.value({**good, **change})
        assert e.value.column == path


def test_a_missing_value_is_refused_and_a_default_is_written() -> None:
    schema = record(
        ("a", "int"),
        ("b", "int", {"default": 5}),
        ("c", ["null", "string"]),
        ("d", ["null", "string"], {"default": None}),
        ("e", {"type": "array", "items": "int"}, {"default": [1, 2]}),
        ("f", "bytes", {"default": "ÿ"}),
    )
    encoder = RowEncoder(table(schema))
    expected = {"a": 1, "b": 5, "c": None, "d": None, "e": [1, 2], "f": b"\xff"}
    assert read(schema, encoder.value({"a": 1, "c": None})[5:]) == expected
    for missing in ("a", "c"):
        with pytest.raises(InvalidRow) as e:
            encoder.value({k: v for k, v in {"a": 1, "c": None}.items() if k != missing})
        assert e.value.column == missing


#: What somebody may write as a default, whatever the type.
NO_NUMBERS = ["", "A", "\0", "ÿÿ", "Ā", "\ud800", "\0" * 20, str(uuid.UUID(int=0xAB)), "\x80" * 17]
NUMBERS_ALIKE = [None, True, 0, -1, 2**31, 2**63, 10**400, 1.5, 1e39, float("inf")]
DEFAULTS = st.sampled_from([*NUMBERS_ALIKE, *NO_NUMBERS, [], [""], {}, {"a": ""}])


@patient
@given(schemas_and_rows(), DEFAULTS)
def test_a_default_is_refused_with_the_schema_or_a_value_that_replicas_read(case: Any, default: Any) -> None:
    schema, rows = case
    fields = [{**f, "default": default} if n == 0 else f for n, f in enumerate(schema["fields"])]
    row = {f["name"]: rows[0][f["name"]] for f in fields[1:]}
    try:
        declared = table({**schema, "fields": fields})
        encoder = RowEncoder(declared)
    except BadSchema:
        return
    assert Decoder(declared.latest, "t").decode([encoder.value(row)]).bad == []


def test_a_timestamp_of_pandas_keeps_its_nanoseconds_or_is_refused() -> None:
    """It is a `datetime`, with three digits that others have not; and so is its `NaT`, which is no moment."""
    pd = pytest.importorskip("pandas")
    at = 1_577_836_800_123_456_789
    for prefix, zone in (("timestamp", "UTC"), ("timestamp", "Asia/Tokyo"), ("local-timestamp", None)):
        for unit in ("millis", "micros", "nanos"):
            schema = record(("a", {"type": "long", "logicalType": f"{prefix}-{unit}"}))
            encoder, moment = RowEncoder(table(schema)), pd.Timestamp(at, tz=zone)
            digits = {"millis": 10**6, "micros": 10**3, "nanos": 1}[unit]
            if unit != "nanos":
                with pytest.raises(InvalidRow, match="finer than a microsecond"):
                    encoder.value({"a": moment})
            whole = pd.Timestamp(at // digits * digits, tz=zone)
            assert encoder.value({"a": whole})[5:] == varint(at // digits)
            with pytest.raises(InvalidRow, match="NaTType"):
                encoder.value({"a": pd.NaT})


@pytest.mark.parametrize("row", [None, 5, "abc", [1], [("a", 1)]])
def test_a_row_is_a_mapping(row: Any) -> None:
    encoder = RowEncoder(table(record(("a", "int")), ["a"]))
    for encode in (encoder.value, encoder.key):
        with pytest.raises(InvalidRow):
            encode(row)


def test_a_key_has_the_key_columns_and_takes_them_out_of_a_row() -> None:
    schema = record(("region", "string"), ("order_id", "long"), ("qty", "int"))
    encoder = RowEncoder(table(schema, ["order_id", "region"]))
    key = encoder.key({"region": "eu", "order_id": 7, "qty": 1})
    assert key == b"\0\0\0\0\x08" + b"\x0e" + b"\x04eu"
    assert encoder.key({"order_id": 7, "region": "eu"}, exact=True) == key
    for row, column in [({"order_id": 7}, "region"), ({"order_id": "7", "region": "eu"}, "order_id")]:
        with pytest.raises(InvalidRow) as e:
            encoder.key(row)
        assert e.value.column == column
    with pytest.raises(InvalidRow) as e:
        encoder.key({"region": "eu", "order_id": 7, "qty": 1}, exact=True)
    assert e.value.column == "qty"


@pytest.mark.parametrize(
    ("encoding", "value", "key"),
    [("string", "é", "é".encode()), ("int", -2, b"\xff\xff\xff\xfe"), ("long", 258, b"\0\0\0\0\0\0\1\2")],
)
def test_plain_keys_are_what_kafkas_serializers_write(encoding: Any, value: Any, key: bytes) -> None:
    plain = Table("t", "id", 1, (SchemaVersion("t-value", 1, 7, record(("k", encoding))),), ("k",), encoding)
    encoder = RowEncoder(plain)
    assert encoder.key({"k": value}) == key
    for wrong in (None, b"x", 2**70, True):
        with pytest.raises(InvalidRow) as e:
            encoder.key({"k": wrong})
        assert e.value.column == "k"


@patient
@given(st.data())
def test_own_bytes_are_fastavros_bytes(data: st.DataObject) -> None:
    """Where fastavro's writer knows the type, the bytes are the same to the last one."""
    type_, values = data.draw(st.sampled_from([s for s in SCALARS if not _only_ours(s[0])]))
    schema = named(record(("a", type_), ("b", ["null", "int"]), ("c", {"type": "array", "items": "long"})))
    row = {"a": data.draw(values), "b": data.draw(st.none() | st.integers(0, 9)), "c": [1, 2**40]}
    assume(not (isinstance(row["a"], Decimal) and type_["type"] == "bytes" and _padded(row["a"])))
    theirs = io.BytesIO()
    fastavro.schemaless_writer(theirs, fastavro.parse_schema(schema), row)
    assert RowEncoder(table(schema)).value(row)[5:] == theirs.getvalue()


def _padded(value: Decimal) -> bool:
    """True for -128, -32768 and so on, which fastavro gives a byte more than Java does."""
    size = -int(value.scaleb(-int(value.as_tuple().exponent), Context(prec=80)))
    return size > 0 and size & (size - 1) == 0 and size.bit_length() % 8 == 0


def _only_ours(type_: Any) -> bool:
    return isinstance(type_, dict) and (type_.get("logicalType"), type_["type"]) == ("uuid", "fixed")


def test_a_name_that_a_column_used_to_have_is_told_with_the_one_it_has_now() -> None:
    renamed = record(("buyer", "string", {"aliases": ["customer"]}), ("n", "int", {"default": 0}))
    encoder = RowEncoder(table(renamed))
    for row in ({"customer": "ada"}, {"customer": "ada", "buyer": "ada"}):
        with pytest.raises(InvalidRow, match=r"column 'customer'.*no such column: it is 'buyer' now"):
            encoder.value(row)
    with pytest.raises(InvalidRow) as never:
        encoder.value({"buyer": "ada", "m": 1})
    assert str(never.value).endswith("no such column")
