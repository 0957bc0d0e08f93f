"""Pieces of a file to keys and values, as the log takes them.

Invariant: the bytes are those of `Producer.put` for the same row (``schemas/encode.py``), whether a piece was
encoded column by column or row by row; a row that a producer would refuse, a check of its table included, is bad.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...schemas.arrow import arrow_type
from ...schemas.arrowcheck import breaking
from ...schemas.avro import key_fields, row_type
from ...schemas.columnwriter import ColumnWriter, supported
from ...schemas.encode import RowEncoder
from ...schemas.errors import InvalidRow, UsageError
from ...schemas.layout import layout
from ...schemas.rowcheck import bind
from ...schemas.table import Table
from ...schemas.types import Field
from .pieces import Piece, Row, fields_of, said

#: What can be sorted by.
_UNSORTED = ("array", "map", "record")


@dataclass(frozen=True)
class Bad:
    """A record that is no row of its table."""

    line: int
    why: str
    text: str


@dataclass
class Encoded:
    """The rows of one piece. *at* has the number of each in the file, from 0; *taken* is the number after the last
    record, good or bad. *sort* is the column to sort by."""

    taken: int
    at: Sequence[int] = ()
    keys: list[bytes] | None = None
    values: list[bytes] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    sort: pa.Array | None = None


class Encoding:
    """Encodes the rows of one table. *row_bytes* is the most that a key and its value may have together. BadSchema if
    replicas refuse the version that rows are written by."""

    def __init__(self, table: Table, row_bytes: int, sort: str | None = None, *, by_columns: bool = True) -> None:
        self._table, self._row_bytes, self._sort = table, row_bytes, sort
        self._rows = RowEncoder(table)
        if self._rows.refused is not None:
            raise self._rows.refused
        self._fields = fields_of(table)
        if sort is not None and sort not in self._fields:
            raise UsageError(f"table {table.name!r} has no column {sort!r} to sort by")
        if sort is not None and (self._fields[sort].type.kind in _UNSORTED or _is_fixed_uuid(self._fields[sort])):
            raise UsageError(f"column {sort!r} is {self._fields[sort].type.sql}: that has no order")
        row = row_type(table.name, table.latest.schema)
        self._values = ColumnWriter(row, table.latest.id) if by_columns and supported(row) else None
        self._keys = self._key_writer() if table.key else None
        columns = layout(table.name, table.values, table.latest.version, key_fields(table))
        self._checks = bind(table, columns, table.latest.version) if table.checks else ()

    def _key_writer(self) -> ColumnWriter | None:
        table = self._table
        if table.key_encoding != "avro" or table.key_schema is None:
            return None
        row = row_type(table.name, table.key_schema.schema)
        return ColumnWriter(row, table.key_schema.id) if supported(row) else None

    def encode(self, pieces: Iterator[Piece]) -> Iterator[Encoded]:
        """The rows of all *pieces*, numbered through."""
        taken = 0
        for piece in pieces:
            done = self._whole(piece, taken) or self._one_by_one(piece, taken)
            taken = done.taken
            yield done

    def _whole(self, piece: Piece, first: int) -> Encoded | None:
        if self._values is None or (self._table.key and self._keys is None):
            return None
        batch = piece.batch()
        if batch is None:
            return None
        values = self._values.values(batch)
        if values is None:
            return None
        rows = pa.Table.from_batches([batch])
        if any(breaking(check, rows) for check in self._checks):
            return None
        keys = self._keys.values(batch) if self._keys is not None else None
        if keys is None and self._table.key:
            return None
        if max(map(len, values), default=0) + max(map(len, keys or ()), default=0) > self._row_bytes:
            return None
        taken = first + batch.num_rows
        sort = batch.column(self._sort) if self._sort is not None else None
        return Encoded(taken, range(first, taken), keys, values, [], sort)

    def _one_by_one(self, piece: Piece, first: int) -> Encoded:
        at: list[int] = []
        done = Encoded(first, at, [] if self._table.key else None)
        sorted_by = []
        for row in piece.rows():
            try:
                key, value = self._encoded(row)
            except _Bad as bad:
                done.bad.append(Bad(row.line, str(bad), row.text))
            else:
                at.append(done.taken)
                done.values.append(value)
                if done.keys is not None and key is not None:
                    done.keys.append(key)
                if self._sort is not None and row.values is not None:
                    sorted_by.append(_sortable(row.values.get(self._sort)))
            done.taken += 1
        if self._sort is not None:
            done.sort = pa.array(sorted_by, arrow_type(self._fields[self._sort].type))
        return done

    def _encoded(self, row: Row) -> tuple[bytes | None, bytes]:
        if row.values is None:
            raise _Bad(row.why)
        try:
            value = self._rows.value(row.values)
            key = self._rows.key(row.values) if self._table.key else None
        except InvalidRow as error:
            raise _Bad(said(error)) from None
        if len(value) + len(key or b"") > self._row_bytes:
            raise _Bad("the row is larger than a Kafka message may be")
        return key, value


def _is_fixed_uuid(f: Field) -> bool:
    return f.type.kind == "uuid" and f.type.size is not None


def _sortable(value: Any) -> Any:
    """A value as Arrow takes it for the type of its column."""
    return str(value) if isinstance(value, uuid.UUID) else value


class _Bad(Exception):
    """Why a record is no row."""
