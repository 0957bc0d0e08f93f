"""CSV and TSV, read in blocks of whole records.

A record is fields between delimiters, up to a line break; a field that begins with a quote ends with one, and
between them a doubled quote stands for one, and delimiters and line breaks stand for themselves. A quote
inside of any other field is a character like others. The first record names the columns.

Invariants:
- `records` says what a block holds, record by record, with line numbers. `columns` gives exactly the same as whole
  columns, or None where that is in doubt; ``tests/loading`` holds both against each other.
- A block is as long as memory is given to it; a longer record is refused with its line.
- An empty line is no record, unless there is one column only: there it is an empty field.

Why not DuckDB's reader, which is faster still: a record has no line number there unless it is bad, so no value
that is refused later has one; and it cannot go on reading a file from where an import was killed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO

import pyarrow as pa
import pyarrow.csv

from ...schemas.errors import BadInput, BadLine

_BLOCK = 1 << 20

#: A row is at most 1 MB by Kafka's default; what is far longer is not meant as a record.
LONGEST_RECORD = 64 * 2**20

_BREAK = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How a file is written. *null* is the text, without quotes, that stands for no value."""

    delimiter: str = ","
    null: str = ""

    @cached_property
    def quoted_field(self) -> re.Pattern[bytes]:
        """A whole quoted field where no field has a stray quote: it begins after a delimiter or line break."""
        mark = re.escape(self.delimiter.encode())
        return re.compile(rb"(?:\A|(?<=[\n" + mark + rb']))"[^"]*+(?:""[^"]*+)*+"(?=[\r\n' + mark + rb"]|\Z)")

    @cached_property
    def plain_field(self) -> re.Pattern[bytes]:
        return re.compile(rb"[^\r\n" + re.escape(self.delimiter.encode()) + rb"]*+")


_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_LINE = re.compile(rb"[^\r\n]*+")


@dataclass(frozen=True)
class Record:
    """One record. *fields* are None where it has none (*null*); *why* says why it is no record, if so."""

    line: int
    fields: list[str | None]
    raw: bytes
    why: str | None = None


@dataclass
class Block:
    """Whole records. *line* is the first one's; *regular* says that every quote is where quotes belong."""

    line: int
    data: bytes
    regular: bool
    dialect: Dialect
    names: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """How many line breaks it has."""
        if b"\r" in self.data:
            return len(_BREAK.findall(self.data))
        return self.data.count(b"\n")

    def columns(self) -> pa.Table | None:
        """The records as columns of text; None if one of them has to be looked at alone."""
        data = self.data
        if not self.regular:
            return None
        many = len(self.names) > 1
        try:
            return pyarrow.csv.read_csv(
                pa.BufferReader(data),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=self.names, use_threads=False, block_size=len(data) + 1024
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.dialect.delimiter, newlines_in_values=b'"' in data, ignore_empty_lines=many
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, pa.string()),
                    null_values=[self.dialect.null],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            return None

    def records(self) -> Iterator[Record]:
        """The records one by one, also those that are none."""
        line, at = self.line, 0
        while at < len(self.data):
            fields, why, end = _record(self.data, at, self.dialect)
            raw = self.data[at:end]
            breaks = len(_BREAK.findall(raw))
            body = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith((b"\n", b"\r")) else raw
            if body or len(self.names) == 1:
                yield self._judged(line, fields, body, why)
            line, at = line + breaks, end

    def _judged(self, line: int, fields: list[tuple[bytes, bool]], raw: bytes, why: str | None) -> Record:
        if why is not None:
            return Record(line, [], raw, why)
        if len(fields) != len(self.names):
            return Record(line, [], raw, f"{len(fields)} fields, the header has {len(self.names)}")
        try:
            texts = [(text.decode(), quoted) for text, quoted in fields]
        except UnicodeDecodeError as error:
            return Record(line, [], raw, f"not UTF-8: byte 0x{error.object[error.start]:02x}")
        return Record(line, [None if text == self.dialect.null and not quoted else text for text, quoted in texts], raw)


class CsvFile:
    """The header of a file, and its blocks. BadInput if there is no header."""

    def __init__(self, name: str, stream: IO[bytes], null: str = "", delimiters: str = ",") -> None:
        """The delimiter is the one of *delimiters* that the first line has most of."""
        self._name, self._stream = name, stream
        self._rest = b""
        self._line = 1
        self._ended = False
        self._fill()
        self._rest = self._rest.removeprefix(_BOM)
        self.dialect = Dialect(_likeliest(self._rest, delimiters), null)
        self.header = self._header()

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """All records after the header, under *names*."""
        while True:
            block = self._next(names)
            if block is None:
                return
            yield block

    # -- inside ------------------------------------------------------------------------------

    def _fill(self) -> None:
        data = self._stream.read(_BLOCK)
        self._ended = not data
        self._rest += data

    def _header(self) -> list[str]:
        while True:
            end = _last_end(self._rest, self.dialect, self._ended, first=True)
            if end or self._ended:
                break
            self._check_length()
            self._fill()
        if not self._rest.strip():
            raise BadInput(self._name, "the file is empty: not even a header")
        fields, why, end = _record(self._rest, 0, self.dialect)
        if why is not None:
            raise BadInput(self._name, f"line 1, the header: {why}")
        try:
            names = [text.decode() for text, _ in fields]
        except UnicodeDecodeError as error:
            why = f"line 1, the header: not UTF-8: byte 0x{error.object[error.start]:02x}"
            raise BadInput(self._name, why, "convert the file, for example by `iconv -t UTF-8`") from error
        self._line += len(_BREAK.findall(self._rest[:end]))
        self._rest = self._rest[end:]
        return names

    def _next(self, names: list[str]) -> Block | None:
        while True:
            if not self._ended and len(self._rest) < _BLOCK:
                self._fill()
            end, regular = self._cut()
            if end:
                block = Block(self._line, self._rest[:end], regular, self.dialect, names)
                self._rest = self._rest[end:]
                self._line += block.lines
                return block
            if self._ended:
                return None
            self._check_length()
            self._fill()

    def _cut(self) -> tuple[int, bool]:
        """Where the last whole record ends, 0 if none does; and whether every quote is where quotes belong."""
        data = self._rest
        end = len(data) if self._ended else data.rfind(b"\n") + 1
        if b'"' not in data[:end]:
            return end, True
        if not self._ended:
            quotes = data.count(b'"', 0, end)
            while end and quotes % 2:  # that line break is inside of a quoted field, if all is well
                before = data.rfind(b"\n", 0, end - 1) + 1
                quotes -= data.count(b'"', before, end)
                end = before
        if end and b'"' not in self.dialect.quoted_field.sub(b"", data[:end]):
            return end, True
        return _last_end(data, self.dialect, self._ended), False

    def _check_length(self) -> None:
        if len(self._rest) > LONGEST_RECORD:
            why = f"a record longer than {LONGEST_RECORD // 2**20} MiB: is a quoted field not closed?"
            raise BadLine(self._name, self._line, why)


def _likeliest(data: bytes, delimiters: str) -> str:
    head = _LINE.match(data)
    line = head[0] if head else b""
    return max(delimiters, key=lambda each: line.count(each.encode()))


def _last_end(data: bytes, dialect: Dialect, ended: bool, first: bool = False) -> int:
    """Where the last (or the *first*) whole record ends; 0 if none does."""
    at = 0
    while at < len(data):
        _, _, end = _record(data, at, dialect)
        if end >= len(data) and not ended and not data.endswith(b"\n"):
            return at  # more of it may come, be it the \n after a \r
        if end >= len(data) and not ended and _open(data, at, dialect):
            return at
        at = end
        if first:
            break
    return at


def _open(data: bytes, at: int, dialect: Dialect) -> bool:
    """True if the record at *at* ends in a quoted field that is not closed."""
    return _record(data, at, dialect)[1] == _NOT_CLOSED


_NOT_CLOSED = "a quoted field is not closed"


def _record(data: bytes, at: int, dialect: Dialect) -> tuple[list[tuple[bytes, bool]], str | None, int]:
    """The record at *at*: its fields, each with whether it is quoted; why it is none; where the next begins."""
    mark = dialect.delimiter.encode()
    fields: list[tuple[bytes, bool]] = []
    while True:
        if data.startswith(b'"', at):
            found = _QUOTED.match(data, at)
            if found is None:
                return fields, _NOT_CLOSED, len(data)
            at = found.end()
            fields.append((found[0][1:-1].replace(b'""', b'"'), True))
        else:
            plain = dialect.plain_field.match(data, at)
            assert plain is not None  # it matches nothing, too
            at = plain.end()
            fields.append((plain[0], False))
        if data.startswith(mark, at):
            at += 1
            continue
        ending = _BREAK.match(data, at)
        if ending is not None or at == len(data):
            return fields, None, ending.end() if ending else at
        rest = _LINE.match(data, at)
        ending = _BREAK.match(data, rest.end() if rest else at)
        return fields, f"text after the closing quote of field {len(fields)}", ending.end() if ending else len(data)
