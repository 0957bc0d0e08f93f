"""Rows as files: Parquet, CSV, JSON lines. What each writes, the import reads as the same values.

CSV has text in quotes and no value as nothing at all, so that empty text and null are two things. Nested values
are JSON in it. Text cannot carry TIMESTAMP_NS, which a store keeps for instants and for local times alike:
written down, the one has a zone and the other has none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...schemas.errors import UsageError
from ...schemas.jsonrows import to_json

FileFormat = Literal["csv", "parquet", "json"]


class Writer(Protocol):
    """Writes batches into the file that it was made for. Its end closes what it has begun, not the file."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def __enter__(self) -> Writer: ...

    def __exit__(self, *exc: object) -> None: ...


def check_types(table: str, columns: Mapping[str, Any], file_format: FileFormat) -> None:
    """UsageError if the format cannot carry one of *columns*, which have DuckDB's types."""
    if file_format == "parquet":
        return
    for name, type_ in columns.items():
        if "TIMESTAMP_NS" in str(type_):
            error = UsageError(f"table {table!r}, column {name!r}: {file_format} cannot carry {type_}")
            error.hint = "--format parquet can: text does not say whether it is an instant or a local time"
            raise error


class _Parquet:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._forms = [_csv_form(f.type) for f in schema]
        self._schema = pa.schema(
            [(f.name, pa.string() if form else f.type) for f, form in zip(schema, self._forms, strict=True)]
        )
        # Numbers from `repr` are text to Arrow, so they come in quotes; every reader takes that.
        self._writer = pa.csv.CSVWriter(file, self._schema, write_options=pa.csv.WriteOptions(quoting_style="needed"))

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            column if form is None else pa.array([_or_null(form, v) for v in _pylist(column)], pa.string())
            for column, form in zip(batch.columns, self._forms, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> _Csv:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()


def _csv_form(type_: pa.DataType) -> Callable[[Any], str] | None:
    """From a value to its text; None if Arrow writes it as the import reads it."""
    types = pa.types
    if types.is_float32(type_):
        return repr  # Arrow writes 33554432 for 33554432.0, as if a float held each whole number of so many digits
    if types.is_binary(type_) or types.is_fixed_size_binary(type_):
        return lambda value: base64.b64encode(value).decode()
    if types.is_nested(type_):
        return lambda value: json.dumps(to_json(value), ensure_ascii=False)
    return None


def _or_null(form: Callable[[Any], str], value: Any) -> str | None:
    return None if value is None else form(value)


class _Json:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._file, self._names = file, schema.names

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [map(to_json, _pylist(column)) for column in batch.columns]
        rows = (dict(zip(self._names, row, strict=True)) for row in zip(*columns, strict=True))
        self._file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)

    def __enter__(self) -> _Json:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def _pylist(column: pa.Array) -> list[Any]:
    found: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return found


WRITERS: dict[FileFormat, Callable[[IO[bytes], pa.Schema], Writer]] = {"csv": _Csv, "parquet": _Parquet, "json": _Json}
