"""An import: one file into one table.

Invariants:
- What of the file is in the table, and what the ledger says of it, change in one Kafka transaction.
- Rows are in the table once, whoever imports the file, however often, and whenever one is killed: a run fences
  the other ones of the same file and table, then reads the ledger, then goes on from what that says.
- Memory is bounded: a few chunks, whatever the file's size.

Steps, for tests that kill: ``fenced``, and for each chunk ``begun``, ``sent``, ``noted``, ``committed``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from ...producers.bulk import BulkOptions, BulkWriter, Note
from ...schemas.errors import (
    BadInput,
    CommitInDoubt,
    ImportStopped,
    ProducerFenced,
    RolledBack,
    UsageError,
)
from ...schemas.position import Position, TopicPartition
from ...schemas.table import Table
from .arrange import arranged
from .chunks import Chunk, chunks
from .csvfile import CsvFile
from .encoding import Encoded, Encoding
from .inputs import Input, Progress
from .jsonfile import JsonSource
from .ledger import Entry, make_ledger, note_of, plan, read_ledger
from .parquetfile import ParquetSource
from .pieces import CsvSource, Source
from .rejects import Rejects, default_path

if TYPE_CHECKING:
    from ..log import Log

Step = Callable[[str], None]
State = Literal["imported", "continued", "already"]


@dataclass(frozen=True)
class ImportOptions:
    """How a file is read, and what becomes of its rows. *columns* renames, to an empty name to leave one out."""

    delimiter: str | None = None
    null: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    dedupe: bool = False
    sort: str | None = None
    max_bad: int = 0
    rejects: Path | None = None
    again: bool = False
    bulk: BulkOptions = BulkOptions()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'):
            raise UsageError(f"no delimiter: {self.delimiter!r} (one ASCII character, and no quote or line break)")
        if any(c in self.null for c in '"\r\n'):
            raise UsageError(f"no text for null: {self.null!r} (it has no quotes around it in a file)")
        if self.max_bad < 0:
            raise UsageError("--max-bad is 0 or more")


@dataclass(frozen=True)
class Imported:
    """What one run did. *written* rows are of this run, *entry* says what the table has of the file in all.
    *token* lies past all of them. *state* is ``already`` if there was nothing to do."""

    state: State
    entry: Entry
    written: int
    token: Position
    rejects: Path | None = None


def import_file(
    log: Log,
    table: Table,
    file: Input,
    options: ImportOptions | None = None,
    *,
    progress: Progress = lambda read: None,
    timeout_s: float = 30.0,
    on_step: Step = lambda step: None,
) -> Imported:
    """Bring the rows of *file* into *table*, unless they are there already.

    BadInput, BadLine, LoadedOtherwise; ImportStopped where the same call, made again, goes on.
    """
    options = options or ImportOptions()
    if options.dedupe and not table.key:
        raise UsageError(f"table {table.name!r} has no key, so no row of it replaces another (--dedupe)")
    if options.rejects is not None and options.rejects.exists() and options.rejects.samefile(file.path):
        raise UsageError(f"--rejects names the file itself: {options.rejects}")
    with file.open(progress) as stream:
        source, matter = open_source(file, stream, options, table)
        wanted = Entry(table.name, table.topic_id, file.sha256, 1, matter, table.latest.id, file.name)
        make_ledger(log)
        known = plan(read_ledger(log, timeout_s), wanted, options.again)
        if known.done:
            return Imported("already", known, 0, _token(log, table))
        writer = log.bulk_writer(f"merganser-import-{table.topic_id}-{file.sha256[:32]}", options.bulk)
        try:
            writer.open()
            on_step("fenced")
            begun = plan(read_ledger(log, timeout_s, settled=True), wanted, options.again)
            if begun.done:  # by the one that was fenced just now
                return Imported("already", begun, 0, _token(log, table))
            run = _Run(log, table, file, options, writer, on_step, begun)
            return run.all_of(source)
        except ProducerFenced as error:
            raise ImportStopped(file.name, 0, _TAKEN_OVER, _TAKEN_OVER_HINT) from error
        finally:
            writer.close()


_TAKEN_OVER = "another import of the same file has taken over"
_TAKEN_OVER_HINT = "let that one end; it goes on from where this one was, and `merganser import --list` shows it"


class _Run:
    """One run over a file, from where *entry* is."""

    def __init__(
        self,
        log: Log,
        table: Table,
        file: Input,
        options: ImportOptions,
        writer: BulkWriter,
        on_step: Step,
        entry: Entry,
    ) -> None:
        self._log, self._table, self._file, self._options = log, table, file, options
        self._writer, self._on_step = writer, on_step
        self._began, self._entry = entry, entry

    def all_of(self, source: Source) -> Imported:
        options = self._options
        rejects = Rejects(self._file.name, source.unit, self._rejects_path(), options.max_bad)
        encoding = Encoding(self._table, self._writer.row_bytes, options.sort)
        try:
            good = self._good(encoding.encode(source.pieces()), rejects)
            if options.dedupe or options.sort:
                good = arranged(good, dedupe=options.dedupe, sort=options.sort is not None)
            cut = chunks(good, self._entry.taken, options.bulk.rows, options.bulk.bytes)
            for chunk in _one_ahead(cut):
                self._write(chunk)
        finally:
            rejects.close()
        written = self._entry.rows - self._began.rows
        kept = rejects.path if rejects.count else None
        state: State = "continued" if self._began.chunks else "imported"
        return Imported(state, self._entry, written, _token(self._log, self._table), kept)

    def _rejects_path(self) -> Path:
        return self._options.rejects or default_path(self._file.name)

    def _good(self, parts: Iterator[Encoded], rejects: Rejects) -> Iterator[Encoded]:
        for part in parts:
            rejects.take(part.bad, self._entry.rows)
            yield part

    def _write(self, chunk: Chunk) -> None:
        before = self._entry
        entry = replace(
            before,
            file=self._file.name,
            schema_id=self._table.latest.id,
            chunks=before.chunks + 1,
            rows=before.rows + len(chunk.values),
            taken=chunk.taken,
            bad=chunk.bad,
            done=chunk.last,
        )
        self._file.check_unchanged()
        keys = chunk.keys if self._table.key else None
        if self._table.key and keys is None:
            keys = []  # a last chunk without rows

        def note() -> Note:
            nonlocal entry
            entry = replace(entry, until=str(_token(self._log, self._table)))
            return Note(*note_of(entry))

        try:
            self._writer.write(
                self._table.name, keys, chunk.values, note, confirm=self._same_topic, on_step=self._on_step
            )
        except ProducerFenced as error:
            raise ImportStopped(self._file.name, before.rows, _TAKEN_OVER, _TAKEN_OVER_HINT) from error
        except (RolledBack, CommitInDoubt) as error:
            raise ImportStopped(self._file.name, before.rows, str(error)) from error
        self._entry = entry

    def _same_topic(self) -> str | None:
        """Asked when the rows are acknowledged: librdkafka goes on by name when a topic is made anew, and ids do
        not come back."""
        found = self._log.identify([self._table.name]).get(self._table.name)
        if found is None or found.topic_id != self._table.topic_id:
            return f"table {self._table.name!r} was deleted, or made anew, meanwhile"
        if found.partitions != self._table.partitions:
            return f"table {self._table.name!r} has {found.partitions} partitions now: order per key is lost"
        return None


def open_source(file: Input, stream: IO[bytes], options: ImportOptions, table: Table) -> tuple[Source, dict[str, Any]]:
    """The rows of *stream*, and the options that decide which they are, for the ledger."""
    common = {"columns": dict(options.columns), "dedupe": options.dedupe, "sort": options.sort}
    if file.format == "parquet":
        return ParquetSource(file.name, stream, options.columns, table), {"format": "parquet", **common}
    if file.format == "json":
        return JsonSource(file.name, stream, options.columns, table), {"format": "json", **common}
    csv = open_csv(file, stream, options)
    source = CsvSource(file.name, csv, options.columns, table)
    matter = {"format": "csv", "delimiter": csv.dialect.delimiter, "null": csv.dialect.null}
    return source, {**matter, **common}


def open_csv(file: Input, stream: IO[bytes], options: ImportOptions) -> CsvFile:
    if options.delimiter is not None and options.delimiter == options.null:
        raise BadInput(file.name, "--delimiter and --null are the same text")
    delimiters = options.delimiter or ("\t" if file.format == "tsv" else ",;\t|")
    return CsvFile(file.name, stream, options.null, delimiters)


def _one_ahead(found: Generator[Chunk, None, None]) -> Iterator[Chunk]:
    """The same chunks; the next one is being made while one is written."""
    with closing(found), ThreadPoolExecutor(1, "merganser-import") as pool:
        following = pool.submit(next, found)
        while not (chunk := following.result()).last:
            following = pool.submit(next, found)
            yield chunk
        yield chunk


def _token(log: Log, table: Table) -> Position:
    """Past all that is in the table now."""
    return log.ends([TopicPartition(table.name, number) for number in range(table.partitions)])
