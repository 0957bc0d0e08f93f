"""Parquet files: columns that have types already, brought to those of the table where no value changes by it.

Invariant: a value is taken as it is or refused, as `Producer.put` would: no number is rounded, no time gets a zone.
Nanoseconds are taken for instants of UTC and for local times alike, since a store keeps both without a zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from ...schemas.arrow import arrow_type
from ...schemas.arrowrows import row_values
from ...schemas.errors import BadInput
from ...schemas.table import Table
from ...schemas.types import Type
from .pieces import Piece, Row, fields_of, matched, whole

_ROWS = 16_384


class ParquetSource:
    """The rows of a Parquet file. A piece takes as much memory as the columns of a row group, compressed, at most."""

    unit = "row"

    def __init__(self, name: str, stream: IO[bytes], renames: Mapping[str, str], table: Table) -> None:
        self._name, self._table = name, table
        self._file = open_parquet(name, stream)
        found = self._file.schema_arrow.names
        twice = next((each for each in found if found.count(each) > 1), None)
        if twice is not None:
            raise BadInput(name, f"the column {twice!r} comes twice")
        columns = matched(name, found, renames, table)
        self._columns = {column: given for column, given in zip(columns, found, strict=True) if column}
        self._types = {c: fields_of(table)[c].type.required for c in self._columns}

    @property
    def size(self) -> int:
        """How many rows it has."""
        return int(self._file.metadata.num_rows)

    def pieces(self) -> Iterator[Piece]:
        first = 1
        try:
            for batch in self._file.iter_batches(_ROWS, columns=list(self._columns.values())):
                yield _ParquetPiece(self, first, batch)
                first += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(self._name, error) from error

    def batch(self, rows: pa.RecordBatch) -> pa.RecordBatch | None:
        arrays = {}
        for column, given in self._columns.items():
            array = _as_type(rows.column(given), self._types[column])
            if array is None:
                return None
            arrays[column] = array
        return whole(arrays, self._table, rows.num_rows)

    def rows(self, first: int, rows: pa.RecordBatch) -> Iterator[Row]:
        columns = {
            column: row_values(rows.column(given), self._types[column]) for column, given in self._columns.items()
        }
        for i in range(rows.num_rows):
            values = {column: found[i] for column, found in columns.items()}
            yield Row(first + i, values, values)


@dataclass(frozen=True)
class _ParquetPiece:
    source: ParquetSource
    first: int
    data: pa.RecordBatch

    def batch(self) -> pa.RecordBatch | None:
        return self.source.batch(self.data)

    def rows(self) -> Iterator[Row]:
        return self.source.rows(self.first, self.data)


def open_parquet(name: str, stream: IO[bytes]) -> pq.ParquetFile:
    """The Parquet file in *stream*. BadInput."""
    try:
        return pq.ParquetFile(stream, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> BadInput:
    return BadInput(name, f"broken Parquet: {' '.join(str(error).split())[:200]}", "get the file again: it is torn")


# -- whole columns -----------------------------------------------------------------------------


def _as_type(a: pa.Array, type_: Type) -> pa.Array | None:
    """*a* in the Arrow type of the column, if that is another form of the same values; else None."""
    target = arrow_type(type_)
    if pa.types.is_dictionary(a.type):
        a = a.dictionary_decode()
    if a.type == target:
        return a
    try:
        return a.cast(target) if _same_values(a.type, target) else None
    except pa.ArrowInvalid:
        return None


def _same_values(given: pa.DataType, target: pa.DataType) -> bool:
    """True if a checked cast of *given* to *target* gives the same values, or fails."""
    types = pa.types
    if types.is_integer(target):
        return bool(types.is_integer(given))
    if types.is_floating(target):
        return bool(types.is_floating(given) and given.bit_width < target.bit_width)
    if types.is_timestamp(target):
        return bool(types.is_timestamp(given) and (given.tz is None) == (target.tz is None))
    if types.is_string(target):
        return bool(types.is_large_string(given) or types.is_string_view(given))
    if types.is_date(target):
        return bool(types.is_date(given))
    return bool(types.is_time(target) and types.is_time(given))
