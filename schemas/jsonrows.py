"""Rows from JSON, and back: JSON has fewer types than a table, so text stands for the others.

Invariants: nothing is guessed or rounded, what does not fit is an InvalidRow that names column and
value; what :func:`to_json` writes, :class:`JsonRows` reads as the same value.

| column | JSON |
|---|---|
| boolean, int, long, string, enum | as in JSON |
| float, double | a number, or ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` |
| decimal | a number with all its digits, or text |
| bytes, fixed | base64 text |
| uuid | text |
| date, time | ISO 8601 text |
| timestamp | ISO 8601 text with a zone (``2026-01-31T12:00:00Z``); local-timestamp: without |
| array, map, record | array, object, object |
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from .avro import row_type
from .encode import Refused
from .errors import InvalidRow
from .table import Table
from .types import Field, Type

Convert = Callable[[Any], Any]

_FRACTION = re.compile(r"[.,](\d+)")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TEXTUAL = frozenset({"string", "enum", "uuid", "bytes", "fixed", "decimal", "date"})


class JsonRows:
    """Reads the rows and keys of one table by its latest schema. Safe to share between threads.

    What is no row, a missing column say, is left for the producer to refuse: this turns forms only.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        fields = row_type(table.name, table.latest.schema).fields
        self._columns = _converters(fields)
        self._key_fields = {f.name: f.type.required for f in _key_fields(table, fields)}
        self._keys = {name: converter(type_) for name, type_ in self._key_fields.items()}

    def row(self, text: str | bytes) -> dict[str, Any]:
        """The row in one JSON object. ValueError if it is none, InvalidRow if a value does not fit."""
        return self.converted(_object(loads(text)))

    def converted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The row that *values*, as `loads` has them, are. InvalidRow if one does not fit."""
        return self._convert(values, self._columns)

    def key(self, words: Sequence[str]) -> list[dict[str, Any]]:
        """The keys that command-line *words* spell: ``a=1 b=x``, JSON objects, or bare values of the one column."""
        pairs = [_pair(word, self._keys) for word in words]
        if len(self._keys) == 1:  # each word is a key, with the column's name or without it
            return [
                self._spelled(word) if pair is None else self._one_key(dict([pair]))
                for word, pair in zip(words, pairs, strict=True)
            ]
        named = [pair for pair in pairs if pair is not None]
        if len(named) == len(words):
            try:
                return [self._one_key(_no_name_twice(named))]
            except ValueError as error:
                raise InvalidRow(self._table.name, ", ".join(self._keys), " ".join(words), str(error)) from None
        return [self._spelled(word) for word in words]

    # -- inside ------------------------------------------------------------------------------

    def _convert(self, values: Mapping[str, Any], converters: Mapping[str, Convert | None]) -> dict[str, Any]:
        row = dict(values)
        for name, convert in converters.items():
            if convert is not None and (value := row.get(name)) is not None:
                try:
                    row[name] = convert(value)
                except Refused as refused:
                    at = refused.inside(name)
                    raise InvalidRow(self._table.name, at.path, at.value, at.why) from None
        return row

    def _spelled(self, word: str) -> dict[str, Any]:
        if word.lstrip().startswith("{"):
            try:
                return self._convert(_object(loads(word)), self._keys)
            except ValueError as error:
                raise InvalidRow(self._table.name, ", ".join(self._keys), word, str(error)) from None
        if len(self._keys) != 1:
            spell = " ".join(f"{name}=…" for name in self._keys)
            raise InvalidRow(self._table.name, ", ".join(self._keys), word, f"spell the whole key: {spell}")
        return self._one_key({next(iter(self._keys)): word})

    def _one_key(self, words: Mapping[str, str]) -> dict[str, Any]:
        values = {name: self._literal(name, word) for name, word in words.items()}
        return self._convert(values, self._keys)

    def _literal(self, name: str, word: str) -> Any:
        """A word of the command line as JSON: text needs no quotes there."""
        kind = self._key_fields[name].kind
        if kind in _TEXTUAL or kind.startswith(("time", "local")):
            return word
        try:
            return loads(word)
        except ValueError:
            raise InvalidRow(self._table.name, name, word, f"not a {kind}") from None


def loads(text: str | bytes) -> Any:
    """JSON with all digits of its numbers. ValueError; a name that comes twice is refused."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        return _DECODER.decode(text)  # json.loads would make one for each call
    except ArithmeticError:
        raise ValueError("a number whose exponent is out of all range") from None


def _no_name_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} comes twice")
    return found


_DECODER = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_no_name_twice)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _pair(word: str, names: Mapping[str, Any]) -> tuple[str, str] | None:
    name, equals, value = word.partition("=")
    return (name, value) if equals and name in names else None


def _key_fields(table: Table, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    if table.key_encoding == "avro" and table.key_schema is not None:
        return row_type(table.name, table.key_schema.schema).fields
    if table.key and table.key_encoding != "avro":
        return (Field(table.key[0], Type(table.key_encoding)),)
    return tuple(f for f in fields if f.name in table.key)


# -- by type; None means as it is ----------------------------------------------------------------


def _converters(fields: tuple[Field, ...]) -> dict[str, Convert | None]:
    return {f.name: converter(f.type.required) for f in fields}


def converter(type_: Type) -> Convert | None:
    """From the JSON form of a value, as `loads` has it, to what a row holds; Refused if it is none."""
    match type_.kind:
        case "array":
            return _array(converter(type_.element.required))
        case "map":
            return _map(converter(type_.element.required))
        case "record":
            return _record(_converters(type_.fields))
    return _BY_KIND.get(type_.kind)


def _array(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None

    def array(value: Any) -> Any:
        if not isinstance(value, list):
            raise Refused(value, "not an array")
        return [_at(f"[{i}]", convert, item) for i, item in enumerate(value)]

    return array


def _map(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None

    def map_(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Refused(value, "not an object")
        return {name: _at(f"[{name!r}]", convert, item) for name, item in value.items()}

    return map_


def _record(converters: Mapping[str, Convert | None]) -> Convert:
    def record(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Refused(value, "not an object")
        wanted = ((name, item, converters.get(name)) for name, item in value.items())
        return {name: item if convert is None else _at(name, convert, item) for name, item, convert in wanted}

    return record


def _at(part: str, convert: Convert, item: Any) -> Any:
    if item is None:
        return None
    try:
        return convert(item)
    except Refused as refused:
        raise refused.inside(part) from None


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Refused(value, f"not {what} as text")
    return value


def _float(value: Any) -> Any:
    if isinstance(value, Decimal):
        number = float(value)
        if math.isinf(number):
            raise Refused(value, "out of the range of a double")
        return number
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


def _decimal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if not value.isascii() or "_" in value:  # Python takes 1_0 for 10
            raise ArithmeticError
        return Decimal(value)
    except ArithmeticError:
        raise Refused(value, "not a decimal number") from None


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value, "base64"), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(value, "not base64") from None


def _date(value: Any) -> dt.date:
    try:
        return dt.date.fromisoformat(_text(value, "an ISO 8601 date"))
    except ValueError:
        raise Refused(value, "not an ISO 8601 date (2026-01-31)") from None


def _time(value: Any) -> dt.time:
    text, nanos = _without_fraction(_text(value, "an ISO 8601 time"))
    try:
        return dt.time.fromisoformat(text).replace(microsecond=_micros(value, nanos))
    except ValueError:
        raise Refused(value, "not an ISO 8601 time (12:34:56.789)") from None


def _instant(value: Any) -> dt.datetime:
    moment, nanos = _zoned(value)
    return moment.replace(microsecond=_micros(value, nanos))


def _local(value: Any) -> dt.datetime:
    moment, nanos = _unzoned(value)
    return moment.replace(microsecond=_micros(value, nanos))


def _instant_nanos(value: Any) -> int:
    moment, nanos = _zoned(value)
    return _since_epoch(moment) + nanos


def _local_nanos(value: Any) -> int:
    moment, nanos = _unzoned(value)
    return _since_epoch(moment.replace(tzinfo=dt.UTC)) + nanos


def _zoned(value: Any) -> tuple[dt.datetime, int]:
    moment, nanos = _moment(value)
    if moment.tzinfo is None:
        raise Refused(value, "a timestamp without a zone is no instant: end it with Z or +hh:mm")
    return moment, nanos


def _unzoned(value: Any) -> tuple[dt.datetime, int]:
    moment, nanos = _moment(value)
    if moment.tzinfo is not None:
        raise Refused(value, "a local timestamp has no zone: leave it out")
    return moment, nanos


def _moment(value: Any) -> tuple[dt.datetime, int]:
    """The whole second, and the nanoseconds after it."""
    text, nanos = _without_fraction(_text(value, "an ISO 8601 timestamp"))
    try:
        if "T" not in text and " " not in text:
            raise ValueError("a date alone")
        return dt.datetime.fromisoformat(text), nanos
    except ValueError:
        raise Refused(value, "not an ISO 8601 timestamp (2026-01-31T12:34:56.789Z)") from None


def _since_epoch(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1) * 1_000_000_000


def _without_fraction(text: str) -> tuple[str, int]:
    """The text without the fraction of its seconds, and that in nanoseconds: Python would cut it short."""
    found = _FRACTION.search(text)
    if found is None:
        return text, 0
    digits = found[1].rstrip("0")
    if len(digits) > 9:
        raise Refused(text, "more than nine digits after the second")
    return text[: found.start()] + text[found.end() :], int(digits.ljust(9, "0"))


def _micros(value: Any, nanos: int) -> int:
    micros, lost = divmod(nanos, 1000)
    if lost:
        raise Refused(value, "finer than a microsecond")
    return micros


_BY_KIND: dict[str, Convert] = {
    "float": _float,
    "double": _float,
    "decimal": _decimal,
    "bytes": _bytes,
    "fixed": _bytes,
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
    "timestamp-millis": _instant,
    "timestamp-micros": _instant,
    "timestamp-nanos": _instant_nanos,
    "local-timestamp-millis": _local,
    "local-timestamp-micros": _local,
    "local-timestamp-nanos": _local_nanos,
}


# -- back to JSON ------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A value of a query's row in the forms above, for ``json.dumps``."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else _name_of(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            return f"{value:f}"
        case dt.datetime():
            return value.isoformat().replace("+00:00", "Z")
        case dt.date() | dt.time():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case Mapping():
            return {str(name): to_json(item) for name, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
    return str(value)


def row_to_json(row: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """A row in the forms above, its nanoseconds too: those are whole numbers in it, which only their column tells."""
    types = {f.name: f.type.required for f in fields}
    return {name: _typed(value, types[name]) if name in types else to_json(value) for name, value in row.items()}


def _typed(value: Any, type_: Type) -> Any:
    match value:
        case int() if type_.kind.endswith("-nanos"):
            seconds, nanos = divmod(value, 1_000_000_000)
            moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
            return f"{moment.isoformat()}.{nanos:09}{'' if type_.kind.startswith('local') else 'Z'}"
        case list() if type_.kind == "array":
            return [_typed(item, type_.element.required) for item in value]
        case Mapping() if type_.kind == "map":
            return {name: _typed(item, type_.element.required) for name, item in value.items()}
        case Mapping() if type_.kind == "record":
            return row_to_json(value, type_.fields)
    return to_json(value)


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
