"""A schema for a file: DuckDB's sniffer says what its columns look like, and our own readers have the last word.

Invariant: no value of the sample is changed by the type that is proposed for it. So ``007`` stays text, and so does a
number with more digits than a double has, or a date that is not written as ISO 8601 has it.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import IO, Any

import duckdb
import pyarrow as pa

from ...consumers.reads import one_line
from ...schemas import jsonrows
from ...schemas.avro import row_type
from ...schemas.encode import Refused, RowEncoder
from ...schemas.errors import BadInput, BadSchema, InvalidRow, UsageError
from ...schemas.table import RESERVED_COLUMNS, SchemaVersion, Table
from ...schemas.types import Type
from .csvfile import CsvFile
from .inputs import Input
from .jsonfile import line_blocks
from .load import ImportOptions, open_csv
from .parquetfile import open_parquet
from .pieces import spelled
from .text import converter

Schema = dict[str, Any]

#: How much of a file is looked at, before it is unpacked no more.
_SAMPLE_BYTES = 8 * 2**20

_UUID = {"type": "string", "logicalType": "uuid"}
_DATE = {"type": "int", "logicalType": "date"}
_TIME = {"type": "long", "logicalType": "time-micros"}
_INSTANT = {"type": "long", "logicalType": "timestamp-micros"}
_LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}

_BY_HAND = "write a schema, and `merganser table create` the table"

#: What each of DuckDB's types may be, the best first. Text is always possible.
_LADDER: dict[str, Sequence[Any]] = {
    **dict.fromkeys(["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UINTEGER", "UBIGINT", "HUGEINT"], ("long",)),
    **dict.fromkeys(["FLOAT", "DOUBLE"], ("double",)),
    "BOOLEAN": ["boolean"],
    "UUID": [_UUID],
    "DATE": [_DATE],
    "TIME": [_TIME],
    "TIMESTAMP": [_INSTANT, _LOCAL],
    "TIMESTAMP WITH TIME ZONE": [_INSTANT, _LOCAL],
}


def propose(file: Input, options: ImportOptions, table: str, key: Sequence[str]) -> Schema:
    """The Avro schema of a table that can take *file*. Columns may be null, except those of *key*.

    Looks at the first megabytes, so a later line may still not fit: the import names it. BadInput, UsageError.
    """
    with file.open() as stream:
        if file.format == "parquet":
            found = _of_parquet(file.name, stream)
        elif file.format == "json":
            found = _of_json(file.name, stream)
        else:
            found = _of_csv(file.name, open_csv(file, stream, options))
    columns: dict[str, Any] = {}
    for name, type_ in found:
        column = _named(file.name, name, options.columns)
        if column and column in columns:
            raise BadInput(file.name, f"two columns would be {column!r}", f"--columns '{name}=NAME' renames one")
        columns[column] = type_
    columns.pop("", None)
    missing = next((each for each in key if each not in columns), None)
    if missing is not None:
        raise UsageError(f"no column {missing!r} to be a key in {file.name}: it has {', '.join(columns)}")
    fields = [
        {"name": name, "type": type_} if name in key else {"name": name, "type": ["null", type_], "default": None}
        for name, type_ in columns.items()
    ]
    schema = {"type": "record", "name": spelled(table), "fields": fields}
    row_type(table, schema)
    return schema


def _named(file: str, name: str, renames: Mapping[str, str]) -> str:
    if name in renames:
        return renames[name]
    legal = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    return name if legal and name.lower() not in RESERVED_COLUMNS else spelled(name)


# -- CSV ---------------------------------------------------------------------------------------


def _of_csv(name: str, file: CsvFile) -> list[tuple[str, Any]]:
    """Each column with its type."""
    twice = next((each for each in file.header if file.header.count(each) > 1), None)
    if twice is not None:
        raise BadInput(name, f"line 1, the header: the name {twice!r} comes twice", "rename one in the file")
    names = [f"c{i}" for i in range(len(file.header))]
    rows: list[list[str | None]] = []
    size = 0
    for block in file.blocks(names):
        rows += [record.fields for record in block.records() if record.why is None]
        size += len(block.data)
        if size >= _SAMPLE_BYTES:
            break
    sniffed = _sniffed_csv(name, names, rows)
    columns = [[row[i] for row in rows] for i in range(len(names))]
    return [
        (given, _first_fit(type_, [text for text in texts if text is not None]))
        for given, type_, texts in zip(file.header, sniffed, columns, strict=True)
    ]


def _sniffed_csv(name: str, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    """DuckDB's type of each column. It gets the records that we have read, so that only types are its guess."""
    with tempfile.NamedTemporaryFile("w", prefix="merganser-sample-", suffix=".csv", newline="") as sample:
        csv.writer(sample, lineterminator="\n").writerows([names, *rows])
        sample.flush()
        sql = (
            "DESCRIBE SELECT * FROM read_csv(?, header = true, delim = ',', quote = '\"', escape = '\"',"
            " sample_size = -1, all_varchar = false)"
        )
        try:
            found = {row[0]: row[1] for row in _engine().execute(sql, [sample.name]).fetchall()}
        except duckdb.Error as error:
            raise BadInput(name, f"no types can be told from it: {one_line(error)[:200]}", _BY_HAND) from error
    return [found.get(each, "VARCHAR") for each in names]


def _first_fit(sql: str, texts: Sequence[str]) -> Any:
    for candidate in _LADDER.get(sql, ()):
        trial = _Trial(candidate)
        if all(trial.reads_text(text) for text in texts):
            return candidate
    return "string"


class _Trial:
    """A column of one type, and nothing else: does it keep a value as it is?"""

    def __init__(self, schema: Any) -> None:
        row = {"type": "record", "name": "t", "fields": [{"name": "c", "type": schema}]}
        self._type = row_type("t", row).fields[0].type
        self._encoder = RowEncoder(Table("t", "", 1, (SchemaVersion("t-value", 1, 1, row),)))
        self._from_text, self._from_json = converter(self._type), jsonrows.converter(self._type)

    def reads_text(self, text: str) -> bool:
        try:
            value = self._from_text(text)
            self._encoder.value({"c": value})
        except (Refused, InvalidRow):
            return False
        if self._type.kind == "long":
            return str(value) == text.strip()  # no 007 and no +7
        return self._type.kind != "double" or _every_digit(text, float(value))

    def reads_json(self, value: Any) -> bool:
        try:
            found = value if self._from_json is None else self._from_json(value)
            self._encoder.value({"c": found})
        except (Refused, InvalidRow):
            return False
        return _keeps(self._type, value)


def _keeps(type_: Type, value: Any) -> bool:
    """True if every number in *value*, which JSON has and *type_* takes, is that very number as a double."""
    match value:
        case list():
            return all(_keeps(type_.element, item) for item in value)
        case dict() if type_.kind == "record":
            return all(_keeps(f.type, value[f.name]) for f in type_.fields if f.name in value)
        case int() | float() | Decimal() if type_.kind == "double":
            return _every_digit(str(value), float(value))
    return True


def _every_digit(text: str, value: float) -> bool:
    if not math.isfinite(value):
        return True
    return Decimal(text.strip()) == Decimal(repr(value))


# -- JSON lines --------------------------------------------------------------------------------


def _of_json(name: str, stream: IO[bytes]) -> list[tuple[str, Any]]:
    lines, size = [], 0
    for block in line_blocks(name, stream):
        lines += block
        size += sum(map(len, block))
        if size >= _SAMPLE_BYTES:
            break
    values: dict[str, list[Any]] = {}
    for row in _objects(lines):
        for column, value in row.items():
            found = values.setdefault(column, [])
            if value is not None:
                found.append(value)
    if not values:
        raise BadInput(
            name, "no line of it is a JSON object", "one object a line: `jq -c '.[]'` makes that of an array"
        )
    sniffed = _sniffed_json(name, b"\n".join(lines))
    made = _Names()
    return [(column, _json_type(name, column, sniffed.get(column), found, made)) for column, found in values.items()]


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            try:
                row = jsonrows.loads(line)
            except (ValueError, RecursionError):
                continue  # the import will name it
            if isinstance(row, dict):
                yield row


def _sniffed_json(name: str, data: bytes) -> dict[str, Any]:
    """DuckDB's type of each column, as its Python object."""
    with tempfile.NamedTemporaryFile(prefix="merganser-sample-", suffix=".json") as sample:
        sample.write(data)
        sample.flush()
        sql = (
            "SELECT * FROM read_json(?, format = 'newline_delimited', sample_size = -1, ignore_errors = true,"
            " map_inference_threshold = -1) LIMIT 0"
        )
        try:
            found = _engine().sql(sql, params=[sample.name])
            return dict(zip(found.columns, found.types, strict=True))
        except duckdb.Error as error:
            raise BadInput(name, f"no types can be told from it: {one_line(error)[:200]}", _BY_HAND) from error


class _Names:
    """Names for nested records."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, column: str) -> str:
        self._count += 1
        return f"{spelled(column)}_{self._count}"


def _json_type(file: str, column: str, sql: Any, values: Sequence[Any], names: _Names) -> Any:
    wanted = "VARCHAR" if sql is None else sql
    for candidate in [*_candidates(wanted, column, names), "string"]:
        try:
            trial = _Trial(candidate)
        except BadSchema:  # the name of a nested field, say
            continue
        if all(trial.reads_json(value) for value in values):
            return candidate
    raise BadInput(file, f"column {column!r}: no one type takes all of its values", "leave it out: --columns NAME=")


def _candidates(sql: Any, column: str, names: _Names) -> list[Any]:
    kind = "VARCHAR" if isinstance(sql, str) else sql.id
    match kind:
        case "list":
            items = _leaf(dict(sql.children)["child"], column, names)
            return [{"type": "array", "items": ["null", items]}]
        case "struct":
            fields = [
                {"name": name, "type": ["null", _leaf(child, name, names)], "default": None}
                for name, child in sql.children
            ]
            return [{"type": "record", "name": names.new(column), "fields": fields}]
    return list(_LADDER.get(str(sql), ()))


def _leaf(sql: Any, column: str, names: _Names) -> Any:
    found = _candidates(sql, column, names)
    # Inside of nested values text stays text: there is no second look at it.
    return found[0] if (found and str(sql) in _PLAIN) or sql.id in ("list", "struct") else "string"


_PLAIN = ("BIGINT", "DOUBLE", "BOOLEAN")


# -- Parquet -----------------------------------------------------------------------------------


def _of_parquet(name: str, stream: IO[bytes]) -> list[tuple[str, Any]]:
    names = _Names()
    return [(f.name, _of_arrow(name, f.name, f.type, names)) for f in open_parquet(name, stream).schema_arrow]


def _of_arrow(file: str, column: str, type_: pa.DataType, names: _Names) -> Any:
    """The Avro type whose values are those of an Arrow type."""
    types = pa.types
    if types.is_dictionary(type_):
        return _of_arrow(file, column, type_.value_type, names)
    for test, avro in _ARROW:
        if test(type_):
            return avro
    if types.is_timestamp(type_):
        prefix = "timestamp" if type_.tz else "local-timestamp"
        return {"type": "long", "logicalType": f"{prefix}-{'nanos' if type_.unit == 'ns' else 'micros'}"}
    if types.is_decimal(type_) and type_.precision <= 38 and 0 <= type_.scale <= type_.precision:
        return {"type": "bytes", "logicalType": "decimal", "precision": type_.precision, "scale": type_.scale}
    if types.is_fixed_size_binary(type_):
        return {"type": "fixed", "name": names.new(column), "size": type_.byte_width}
    if types.is_list(type_) or types.is_large_list(type_):
        return {"type": "array", "items": ["null", _of_arrow(file, column, type_.value_type, names)]}
    if types.is_map(type_) and types.is_string(type_.key_type):
        return {"type": "map", "values": ["null", _of_arrow(file, column, type_.item_type, names)]}
    if types.is_struct(type_):
        fields = [
            {"name": f.name, "type": ["null", _of_arrow(file, f.name, f.type, names)], "default": None} for f in type_
        ]
        return {"type": "record", "name": names.new(column), "fields": fields}
    raise BadInput(file, f"column {column!r} is {type_}, which has no Avro type here", "leave it out: --columns NAME=")


_ARROW: list[tuple[Callable[[pa.DataType], bool], Any]] = [
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_uint64, {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
    (pa.types.is_integer, "long"),
    (pa.types.is_float32, "float"),
    (pa.types.is_floating, "double"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
    (pa.types.is_string_view, "string"),
    (pa.types.is_binary, "bytes"),
    (pa.types.is_large_binary, "bytes"),
    (pa.types.is_binary_view, "bytes"),
    (lambda type_: type_.equals(pa.uuid()), _UUID),
    (pa.types.is_date, _DATE),
    (pa.types.is_time, _TIME),
]


def _engine() -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own, which nothing is kept in."""
    return duckdb.connect(config={"threads": 2, "memory_limit": "256MB", "autoinstall_known_extensions": False})
