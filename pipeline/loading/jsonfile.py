"""JSON lines: one object a line, as ``schemas/jsonrows.py`` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from ...schemas.arrow import arrow_type
from ...schemas.errors import BadInput, BadLine, InvalidRow
from ...schemas.jsonrows import JsonRows, loads
from ...schemas.table import Table
from ...schemas.types import Type
from .pieces import Piece, Row, fields_of, said, spelled, whole
from .text import columns

_BLOCK = 1 << 20
_LONGEST_LINE = 64 * 2**20


class JsonSource:
    """The rows of a file of JSON lines. There is no header: each row says its columns."""

    unit = "line"

    def __init__(self, name: str, stream: IO[bytes], renames: Mapping[str, str], table: Table) -> None:
        self._name, self._stream, self._renames = name, stream, renames
        self._reader = JsonRows(table)
        self._columns = fields_of(table)
        self._table = table
        for given, target in renames.items():
            if target and target not in self._columns:
                raise BadInput(name, f"table {table.name!r} has no column {target!r} to rename {given!r} to")

    def pieces(self) -> Iterator[Piece]:
        line = 1
        for lines in line_blocks(self._name, self._stream):
            yield _JsonPiece(self, line, lines)
            line += len(lines)

    def batch(self, lines: list[bytes]) -> pa.RecordBatch | None:
        try:
            rows = [loads(line.decode()) for line in lines if line.strip()]
        except (ValueError, RecursionError):
            return None
        first = rows[0] if rows else None
        if not isinstance(first, dict) or self._renames or not first.keys() <= self._columns.keys():
            return None
        names, arrays = first.keys(), {}
        if any(type(row) is not dict or row.keys() != names for row in rows):
            return None
        for name in names:
            array = _column(self._columns[name].type.required, [row[name] for row in rows])
            if array is None:
                return None
            arrays[name] = array
        return whole(arrays, self._table, len(rows))

    def row(self, number: int, line: bytes) -> Row:
        try:
            line.decode()
            values = loads(line)
            if not isinstance(values, dict):
                array = " but an array: `jq -c '.[]'` makes lines of it" if isinstance(values, list) else ""
                raise ValueError(f"not a JSON object{array}")
            return Row(number, self._reader.converted(self._renamed(values)), line)
        except InvalidRow as error:
            return Row(number, None, line, said(error))
        except UnicodeDecodeError as error:
            return Row(number, None, line, f"not UTF-8: byte 0x{error.object[error.start]:02x}")
        except RecursionError:
            return Row(number, None, line, "nested too deeply")
        except ValueError as error:
            return Row(number, None, line, f"not a row: {error}")

    def _renamed(self, values: dict[str, object]) -> dict[str, object]:
        renamed: dict[str, object] = {}
        for given, value in values.items():
            target = self._renames.get(given, given)
            if target not in self._columns and given not in self._renames and spelled(given) in self._columns:
                target = spelled(given)
            if target in renamed:
                raise ValueError(f"column {target!r} comes twice")
            if target:
                renamed[target] = value
        return renamed


_NONE = type(None)

#: The types that Python's reader gives for JSON that the column takes as it is.
_TAKEN: dict[str, frozenset[type]] = {
    **dict.fromkeys(["string", "enum", "uuid"], frozenset([str, _NONE])),
    **dict.fromkeys(["int", "long"], frozenset([int, _NONE])),
    **dict.fromkeys(["float", "double"], frozenset([int, Decimal, _NONE])),
    "boolean": frozenset([bool, _NONE]),
}


def _column(type_: Type, values: list[Any]) -> pa.Array | None:
    """*values* in the Arrow type of the column; None if one of them has to be looked at alone.

    Not by Arrow's own reader of JSON: it takes names that come twice, and rounds numbers.
    """
    try:
        if not set(map(type, values)) <= _TAKEN.get(type_.kind, _TAKEN["string"]):
            return None
        if type_.kind in ("float", "double"):
            return _floats(type_, values)
        if type_.kind in ("int", "long", "boolean"):
            return pa.array(values, arrow_type(type_))
        return columns(type_, pa.array(values, pa.string()))
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        return None


def _floats(type_: Type, values: list[Any]) -> pa.Array | None:
    exact = 2**24 if type_.kind == "float" else 2**53
    if any(type(value) is int and not -exact <= value <= exact for value in values):
        return None
    numbers = pa.array([None if value is None else float(value) for value in values], pa.float64())
    numbers = numbers.cast(arrow_type(type_))
    return None if pc.any(pc.is_inf(numbers)).as_py() else numbers


def line_blocks(name: str, stream: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of *stream*, some at a time, empty ones included."""
    rest, line, first = b"", 1, True
    while data := stream.read(_BLOCK):
        if first:
            data, first = data.removeprefix(b"\xef\xbb\xbf"), False
        cut = data.rfind(b"\n") + 1
        if not cut:
            rest += data
            if len(rest) > _LONGEST_LINE:
                raise BadLine(name, line, f"longer than {_LONGEST_LINE // 2**20} MiB")
            continue
        lines = (rest + data[:cut]).split(b"\n")
        rest = data[cut:]
        yield lines[:-1]
        line += len(lines) - 1
    if rest:
        yield [rest]


@dataclass(frozen=True)
class _JsonPiece:
    source: JsonSource
    line: int
    lines: list[bytes]

    def batch(self) -> pa.RecordBatch | None:
        return self.source.batch(self.lines)

    def rows(self) -> Iterator[Row]:
        return (self.source.row(self.line + i, line) for i, line in enumerate(self.lines) if line.strip())
