"""What a file is read as: pieces, each of some records, that can be taken whole or one by one.

Invariant: `Piece.batch` holds the same rows as `Piece.rows`, or is None. None only says that some record needs to be
looked at alone; whatever is wrong with one is said by `rows`, with its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from ...schemas.arrow import arrow_type
from ...schemas.avro import key_fields, row_type
from ...schemas.encode import Refused
from ...schemas.errors import BadInput, InvalidRow
from ...schemas.jsonrows import to_json
from ...schemas.table import Table
from ...schemas.types import Field
from .csvfile import Block, CsvFile
from .text import Convert, columns, converter


@dataclass(frozen=True)
class Row:
    """One record: *values* by column, or *why* it is no row. *raw* is what the file has."""

    line: int
    values: Mapping[str, Any] | None
    raw: bytes | Mapping[str, Any]
    why: str = ""

    @property
    def text(self) -> str:
        """What a person is shown of it."""
        if isinstance(self.raw, bytes):
            return self.raw.decode(errors="backslashreplace").rstrip("\r\n")
        return json.dumps(to_json(self.raw), ensure_ascii=False)


class Piece(Protocol):
    """Some records of a file, one after the other."""

    def batch(self) -> pa.RecordBatch | None:
        """All of them, in the Arrow types of their columns; None if they have to be looked at one by one."""
        ...

    def rows(self) -> Iterator[Row]: ...


class Source(Protocol):
    """A file, as the rows of a table. *unit* is what its records are counted in: ``line`` or ``row``."""

    unit: str

    def pieces(self) -> Iterator[Piece]: ...


def fields_of(table: Table) -> dict[str, Field]:
    """The columns that a file can have: the value's, and those that only the key carries."""
    fields = {f.name: f for f in key_fields(table)}
    return fields | {f.name: f for f in row_type(table.name, table.latest.schema).fields}


def matched(name: str, found: Sequence[str], renames: Mapping[str, str], table: Table) -> list[str | None]:
    """The table's column for each column *found* in the file *name*; None for one that is left out.

    *renames* come first (to an empty name: left out), then the name itself, then the name as `propose` spells it.
    BadInput if a column is not in the table, comes twice, or is missing.
    """
    fields = fields_of(table)
    for given in renames:
        if given not in found:
            raise BadInput(name, f"no column {given!r} to rename", f"its columns: {', '.join(found)}")
    taken: list[str | None] = []
    for each in found:
        target = renames.get(each, each)
        if target not in fields and each not in renames and spelled(each) in fields:
            target = spelled(each)
        if target and target not in fields:
            hint = f"--columns '{each}=NAME' renames it, '{each}=' leaves it out; the table has {', '.join(fields)}"
            raise BadInput(name, f"table {table.name!r} has no column {target!r}", hint)
        if target and target in taken:
            raise BadInput(name, f"column {target!r} comes twice", "--columns 'NAME=' leaves one out")
        taken.append(target or None)
    for each, f in fields.items():
        if each not in taken and not f.has_default:
            hint = f"--columns 'NAME={each}' says which it is; the file has {', '.join(found)}"
            raise BadInput(name, f"no column for {each!r} of table {table.name!r}, which has no default", hint)
    return taken


def spelled(name: str) -> str:
    """*name* as a column may be called: letters, digits and ``_``."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.strip().lower())
    plain = "_".join(part for part in plain.split("_") if part)
    return plain if plain and not plain[0].isdigit() else f"c_{plain}".rstrip("_")


def whole(arrays: Mapping[str, pa.Array], table: Table, count: int) -> pa.RecordBatch | None:
    """A batch with every column of *table*: absent ones are null, if that is their default."""
    complete = dict(arrays)
    for name, f in fields_of(table).items():
        if name not in complete:
            if not (f.has_default and f.default is None):
                return None
            complete[name] = pa.nulls(count, arrow_type(f.type))
    return pa.RecordBatch.from_arrays(list(complete.values()), names=list(complete))


# -- CSV ---------------------------------------------------------------------------------------


class CsvSource:
    """The rows of a CSV file."""

    unit = "line"

    def __init__(self, name: str, file: CsvFile, renames: Mapping[str, str], table: Table) -> None:
        self._file, self._table = file, table
        twice = next((each for each in file.header if file.header.count(each) > 1), None)
        if twice is not None:
            raise BadInput(name, f"line 1, the header: the name {twice!r} comes twice", "rename one in the file")
        self._columns = matched(name, file.header, renames, table)
        fields = fields_of(table)
        self._converters = [converter(fields[c].type.required) if c else None for c in self._columns]
        self._types = {c: fields[c].type.required for c in self._columns if c}

    def pieces(self) -> Iterator[Piece]:
        names = [column or f"#{i}" for i, column in enumerate(self._columns)]
        return (_CsvPiece(self, block) for block in self._file.blocks(names))

    def batch(self, block: Block) -> pa.RecordBatch | None:
        texts = block.columns()
        if texts is None:
            return None
        arrays = {}
        for name, type_ in self._types.items():
            text = texts[name].combine_chunks()
            array = columns(type_, text)
            if array is None:
                return None
            arrays[name] = array
        return whole(arrays, self._table, texts.num_rows)

    def rows(self, block: Block) -> Iterator[Row]:
        for record in block.records():
            if record.why is not None:
                yield Row(record.line, None, record.raw, record.why)
                continue
            try:
                values = {
                    column: None if field is None else _converted(column, convert, field, self._table.name)
                    for column, convert, field in zip(self._columns, self._converters, record.fields, strict=True)
                    if column is not None and convert is not None
                }
            except InvalidRow as error:
                yield Row(record.line, None, record.raw, said(error))
            else:
                yield Row(record.line, values, record.raw)


def _converted(column: str, convert: Convert, field: str, table: str) -> Any:
    try:
        return convert(field)
    except Refused as refused:
        at = refused.inside(column)
        raise InvalidRow(table, at.path, at.value, at.why) from None


def said(error: InvalidRow) -> str:
    """The error without the table, which everybody knows here."""
    return str(error).removeprefix(f"table {error.table!r}, ")


@dataclass(frozen=True)
class _CsvPiece:
    source: CsvSource
    block: Block

    def batch(self) -> pa.RecordBatch | None:
        return self.source.batch(self.block)

    def rows(self) -> Iterator[Row]:
        return self.source.rows(self.block)
