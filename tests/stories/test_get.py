"""`Replica.get` takes a key as `Producer.put` takes it, and finds its row and no other's."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest

from merganser.schemas.errors import InvalidRow, UsageError
from stories.keyed import decimal, having

_AT = dt.datetime(2026, 1, 31, 12, 0, 0, 1)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("timestamp-nanos", [1_700_000_000_123_456_789, -1, _AT.replace(tzinfo=dt.UTC)]),
        ("local-timestamp-nanos", [1_700_000_000_123_456_789, -1, _AT]),
    ],
)
def test_nanoseconds_as_a_number(tmp_path: Path, kind: str, keys: list[Any]) -> None:
    with having(tmp_path, {"type": "long", "logicalType": kind}, keys) as replica:
        for n, at in enumerate(keys):
            row = replica.get("t", {"k": at}, level="strong")
            assert row is not None and row["n"] == n
        assert replica.get("t", {"k": 7}) is None


def spelt(value: Any) -> Iterator[Any]:
    """*value*, and what else a producer takes for the same."""
    yield value
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        yield Decimal((sign, (*digits, 0, 0, 0), int(exponent) - 3))
        if value == value.to_integral_value():
            yield int(value)
    if isinstance(value, uuid.UUID):
        yield from (str(value), str(value).upper())
    if isinstance(value, bytes):
        yield bytearray(value)
    if isinstance(value, dt.datetime) and value.tzinfo and 1 < value.year < 9999:
        yield value.astimezone(dt.timezone(dt.timedelta(hours=9)))


_NINES = 10**38 - 1
_DAY_ONE = dt.datetime.min


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        (
            decimal(38, 10),
            [Decimal(n).scaleb(-10, Context(prec=40)) for n in (_NINES, _NINES - 1, 1, -1, 0, 10**37 + 1)],
        ),
        (decimal(38, 38), [Decimal(n).scaleb(-38, Context(prec=40)) for n in (_NINES, 10**36, 10**36 + 1, 1)]),
        (decimal(38, 0), [Decimal(n) for n in (_NINES, _NINES - 1, 10**37, 10**37 + 1, 0)]),
        (decimal(4, 2), [Decimal("12.50"), Decimal("-12.5"), Decimal(12)]),
        ("long", [2**63 - 1, 2**63 - 2, -(2**63), 2**53, 2**53 + 1]),
        ("string", ["", "a", "a\0", "\0", "a ", "é", "e\u0301", "\U0001f600", "1", "01"]),
        ("bytes", [b"", b"\0", b"a", b"a\0", b"\\x00", b"\0\\x"]),
        ({"type": "string", "logicalType": "uuid"}, [uuid.UUID(int=0xABC), uuid.UUID(int=0)]),
        ({"type": "fixed", "name": "f", "size": 16, "logicalType": "uuid"}, [uuid.UUID(int=0xABC), uuid.UUID(int=0)]),
        ({"type": "int", "logicalType": "date"}, [dt.date.min, dt.date(1969, 12, 31), dt.date.max]),
        ({"type": "long", "logicalType": "time-micros"}, [dt.time.min, dt.time.max]),
        ({"type": "long", "logicalType": "timestamp-micros"}, [at.replace(tzinfo=dt.UTC) for at in (_DAY_ONE, _AT)]),
        ({"type": "long", "logicalType": "timestamp-nanos"}, [-(2**63) + 2, 2**63 - 2, 2**53 + 1, 2**53, 0]),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, [_DAY_ONE, _AT, dt.datetime.max]),
        (["null", "string"], [None, "", "null"]),
    ],
)
def test_the_row_of_a_key_is_found_however_the_key_is_spelt(tmp_path: Path, type_: Any, keys: list[Any]) -> None:
    with having(tmp_path, type_, keys) as replica:
        for n, key in enumerate(keys):
            for spelling in spelt(key):
                row = replica.get("t", {"k": spelling})
                assert row is not None and row["n"] == n, spelling


@pytest.mark.parametrize(
    ("type_", "key", "other"),
    [
        (decimal(38, 0), Decimal(_NINES), Decimal(f"{_NINES - 1}.5")),
        (decimal(4, 2), Decimal("1.25"), Decimal("NaN")),
        (decimal(4, 2), Decimal("1.25"), 1.25),
        (decimal(4, 2), Decimal("1.25"), "1.2500001"),
        (decimal(4, 2), Decimal("1.25"), "one"),
        ("string", "05", 5),
        ("long", 2**53 + 1, float(2**53)),
        ("long", 2**62 + 1, Decimal(f"{2**62}.{'0' * 30}")),
        ("long", 1, "1.4"),
        ("int", 1, True),
        ("string", "\\x61", b"a"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 5, 2**63),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 5, dt.datetime(9999, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_what_no_producer_takes_for_a_key_finds_none(tmp_path: Path, type_: Any, key: Any, other: Any) -> None:
    with having(tmp_path, type_, [key]) as replica, pytest.raises(UsageError):
        replica.get("t", {"k": other})


def test_a_timestamp_of_pandas_finds_the_row_of_its_nanoseconds(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    moments = [pd.Timestamp(1_700_000_000_123_456_000 + n, tz="UTC") for n in range(2)]
    with having(tmp_path, {"type": "long", "logicalType": "timestamp-nanos"}, moments) as replica:
        found = [replica.get("t", {"k": moment}) for moment in moments]
        assert [row and row["n"] for row in found] == [0, 1]


@pytest.mark.parametrize("kind", ["timestamp-micros", "local-timestamp-micros"])
def test_a_timestamp_of_pandas_is_not_cut_to_the_key_of_another(tmp_path: Path, kind: str) -> None:
    pd = pytest.importorskip("pandas")
    zone = "UTC" if kind.startswith("timestamp") else None
    moment = pd.Timestamp(1_700_000_000_123_456_000, tz=zone)
    with having(tmp_path, {"type": "long", "logicalType": kind}, [moment]) as replica:
        found = replica.get("t", {"k": moment})
        assert found is not None and found["n"] == 0
        for other in (pd.Timestamp(1_700_000_000_123_456_999, tz=zone), pd.NaT):
            with pytest.raises(InvalidRow):
                replica.get("t", {"k": other})


@pytest.mark.parametrize(("type_", "key"), [("long", 5), ("int", -5), (decimal(4, 2), Decimal("1.25"))])
def test_text_that_says_a_number_finds_its_row(tmp_path: Path, type_: Any, key: Any) -> None:
    with having(tmp_path, type_, [key]) as replica:
        found = replica.get("t", {"k": f"{key}"})
        assert found is not None and found["k"] == key
