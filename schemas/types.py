"""What a column is: each Avro type, the SQL type that keeps it, and the values that fit.

Invariants: a :class:`Type` is a finite tree, so a schema that names itself has none; equal trees
travel alike and are kept alike; every value that can be read from a replica fits in Python's and
Arrow's own types (years 1 to 9999, decimals of 38 digits), so one odd row never breaks a query.

This module knows no Avro library and no Arrow, so that a service that only writes needs neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal[
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "string",
    "bytes",
    "fixed",
    "enum",
    "decimal",
    "uuid",
    "date",
    "time-millis",
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "timestamp-nanos",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "local-timestamp-nanos",
    "array",
    "map",
    "record",
]

#: A uuid that travels as text: the canonical form, in either case.
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: DuckDB keeps decimals in 128 bits.
MAX_PRECISION = 38

DAY_MILLIS = 86_400_000
DAY_MICROS = 86_400_000_000

#: First and last day, and instant, of the years 1 to 9999, counted from 1970 in UTC.
MIN_DATE, MAX_DATE = -719_162, 2_932_896
MIN_MICROS = MIN_DATE * DAY_MICROS
MAX_MICROS = (MAX_DATE + 1) * DAY_MICROS - 1
MIN_MILLIS, MAX_MILLIS = MIN_MICROS // 1000, MAX_MICROS // 1000

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)

#: DuckDB reads the largest int64 as "infinity" in TIMESTAMP_NS, and the smallest as its opposite.
NANOS = (-(2**63) + 2, 2**63 - 2)

#: The kinds that travel as Avro int or long, and the range in which each fits its SQL type.
RANGES: dict[str, tuple[int, int]] = {
    "int": INT32,
    "long": INT64,
    "date": (MIN_DATE, MAX_DATE),
    "time-millis": (0, DAY_MILLIS - 1),
    "time-micros": (0, DAY_MICROS - 1),
    "timestamp-millis": (MIN_MILLIS, MAX_MILLIS),
    "timestamp-micros": (MIN_MICROS, MAX_MICROS),
    "timestamp-nanos": NANOS,
    "local-timestamp-millis": (MIN_MILLIS, MAX_MILLIS),
    "local-timestamp-micros": (MIN_MICROS, MAX_MICROS),
    "local-timestamp-nanos": NANOS,
}

_SQL: dict[str, str] = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "bytes": "BLOB",
    "fixed": "BLOB",
    "enum": "VARCHAR",
    "uuid": "UUID",
    "date": "DATE",
    "time-millis": "TIME",
    "time-micros": "TIME",
    "timestamp-millis": "TIMESTAMP WITH TIME ZONE",
    "timestamp-micros": "TIMESTAMP WITH TIME ZONE",
    # DuckDB's own nanosecond instant is newer than the storage version we write, so UTC is implied.
    "timestamp-nanos": "TIMESTAMP_NS",
    "local-timestamp-millis": "TIMESTAMP",
    "local-timestamp-micros": "TIMESTAMP",
    "local-timestamp-nanos": "TIMESTAMP_NS",
}


def is_uuid_text(type_: Type) -> bool:
    """True for a uuid that travels as text."""
    return type_.kind == "uuid" and type_.size is None


def fits_decimal(type_: Type, unscaled: int) -> bool:
    """True if *unscaled* has no more digits than the decimal *type_*."""
    return abs(unscaled) < int(10**type_.precision)


def quote(name: str) -> str:
    """*name* as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Field:
    """A column, or a field of a nested record.

    *default* is Avro's JSON form and counts only if *has_default*.
    """

    name: str
    type: Type
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Type:
    """One Avro type. Which attributes mean something depends on *kind*.

    *null_branch* is the place of ``null`` in the union ``[null, T]``, None if there is no union.
    *size* is that of a fixed, also below a decimal or a uuid; None if those travel as bytes or text.
    """

    kind: Kind
    null_branch: int | None = None
    size: int | None = None
    precision: int = 0
    scale: int = 0
    symbols: tuple[str, ...] = ()
    item: Type | None = None
    fields: tuple[Field, ...] = ()
    name: str = ""
    aliases: tuple[str, ...] = ()
    enum_default: str | None = None

    @property
    def nullable(self) -> bool:
        return self.null_branch is not None

    @property
    def required(self) -> Type:
        """The same type without null."""
        return replace(self, null_branch=None) if self.nullable else self

    @property
    def element(self) -> Type:
        """What an array or a map holds."""
        if self.item is None:
            raise TypeError(f"{self.kind} has no element type")
        return self.item

    @property
    def sql(self) -> str:
        """The DuckDB type that keeps it."""
        match self.kind:
            case "decimal":
                return f"DECIMAL({self.precision},{self.scale})"
            case "array":
                return f"{self.element.sql}[]"
            case "map":
                return f"MAP(VARCHAR, {self.element.sql})"
            case "record":
                inner = ", ".join(f"{quote(f.name)} {f.type.sql}" for f in self.fields)
                return f"STRUCT({inner})"
        return _SQL[self.kind]
