"""The rows of a store, as the records that they came of: what a new log is made of.

A store says which records are rows; their bytes come from the archive. So nothing is encoded again: a row keeps
its key's bytes, and so its partition, its writer's schema, and what that schema did not have.

Invariants
- In each partition rows come in the order of their offsets, each once, and bear where they come from.
- What bears an operation id that replicas still remember bears it again; conditions, transactions and decisions
  are left out, since they were decided.
- The columns of a replica are those of the newest schema that it has met. Where no row of it is left, others say it:
  the first of each partition, and on a compacted topic, where that one may go, every one.
- Memory is bounded: one segment, and the offsets of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.dbfile import StoredTable, stored_tables
from ...consumers.statements import run
from ...producers.bulk import WholeRecord
from ...schemas.errors import NotRepublishable
from ...schemas.headers import OP, Marks, Origin, encode
from ...schemas.position import TopicPartition
from ...schemas.read import schema_id
from ...schemas.table import value_subject
from ...schemas.types import quote
from ..archive.chain import Chain, Manifest
from ..archive.log import ArchiveLog
from ..archive.segments import batches

_FETCHED = 10_000


@dataclass(frozen=True)
class Held:
    """Records of a transaction (None: of none) that waits for the rest of it, in one table."""

    table: str
    tx: str | None
    records: int


@dataclass(frozen=True)
class LeftOut:
    """What the archive has of a table, and no row is made of: those that wait for the rest of a transaction, those
    in quarantine, those rejected; and operation ids that are forgotten, since their row was written over, or never
    was one."""

    held: tuple[Held, ...]
    quarantined: int
    rejected: int
    operations: int


class Rows:
    """The rows of the store that *cursor* reads, which was made of *log*."""

    def __init__(self, log: ArchiveLog, cursor: duckdb.DuckDBPyConnection) -> None:
        self._log, self._cursor = log, cursor
        self._cluster_id = log.cluster_id
        tables = stored_tables(cursor)
        self._met = {name: self._newest(table) for name, table in tables.items()}
        self._compacted = {name: facts.compacted for name, facts in log.describe(list(tables)).items()}
        self._with_operations = {topic for (topic,) in run(cursor, _REMEMBERED_SQL)}

    def count(self, tp: TopicPartition) -> int:
        """How many rows *tp* has. NotRepublishable if the archive has not all of their records."""
        for first, stop in _lost(self._chain(tp)):
            gone = self._in(tp, first, stop)
            if gone:
                why = f"{gone:,} of its rows lie in offsets {first} to {stop}, which only a backup has"
                raise NotRepublishable(tp.topic, why, BY_EXPORT)
        return self._in(tp, 0, _BEYOND)

    def origins(self, tp: TopicPartition) -> Iterator[tuple[str, bytes]]:
        """The header that each row bears, in order."""
        for offsets in self._offsets(tp):
            for offset in offsets.to_pylist():
                yield self._origin(tp, offset)

    def records(self, tp: TopicPartition, skip: int) -> Iterator[WholeRecord]:
        """Those after the first *skip*."""
        ahead, first = _Ahead(self._offsets(tp)), not skip
        for link in self._chain(tp).links:
            wanted = ahead.below(link.next)
            skipped = min(skip, len(wanted))
            skip -= skipped
            if skipped < len(wanted):
                for record in self._of(tp, link, wanted.slice(skipped)):
                    yield self._saying(record) if first or self._compacted[tp.topic] else record
                    first = False

    def left_out(self, table: str) -> LeftOut:
        """What of *table* is not among the rows."""
        held = run(self._cursor, _HELD_SQL, [table])
        [(quarantined,)] = run(self._cursor, "SELECT count(*) FROM _merganser.quarantine WHERE topic = ?", [table])
        [(rejected,)] = run(self._cursor, "SELECT count(*) FROM _merganser.rejections WHERE topic = ?", [table])
        [(operations,)] = run(self._cursor, _FORGOTTEN_SQL.format(table=quote(table)), [table])
        return LeftOut(tuple(Held(*row) for row in held), quarantined, rejected, operations)

    # -- inside ------------------------------------------------------------------------------

    def _newest(self, table: StoredTable) -> int:
        """The id of the newest schema that *table* has met."""
        versions = self._log.versions(value_subject(table.topic))
        return next(version.id for version in versions if version.version == table.schema_version)

    def _saying(self, record: WholeRecord) -> WholeRecord:
        """*record*, with the newest schema of its table if it is not of that itself."""
        newest = self._met[record.topic]
        if schema_id(record.value) == newest:
            return record
        return record._replace(headers=[*record.headers, *encode(Marks(schema=newest))])

    def _chain(self, tp: TopicPartition) -> Chain:
        chain = self._log.chain(tp)
        assert chain is not None  # the store was made of it
        return chain

    def _in(self, tp: TopicPartition, first: int, stop: int) -> int:
        """The rows with offsets from *first* up to *stop*."""
        sql = f"SELECT count(*) FROM {quote(tp.topic)} WHERE _partition = ? AND _offset >= ? AND _offset < ?"
        [(count,)] = run(self._cursor, sql, [tp.partition, first, stop])
        return int(count)

    def _offsets(self, tp: TopicPartition) -> Iterator[pa.Array]:
        """Those of the rows, in order, some at a time."""
        sql = f"SELECT _offset FROM {quote(tp.topic)} WHERE _partition = {tp.partition} ORDER BY 1"
        cursor = self._cursor.cursor()
        for batch in cursor.sql(sql).to_arrow_reader(_FETCHED):
            yield batch.column(0)

    def _of(self, tp: TopicPartition, link: Manifest, wanted: pa.Array) -> Iterator[WholeRecord]:
        """The rows at the offsets *wanted*, out of the data of *link*."""
        if not link.rows:
            raise self._lacks(tp, len(wanted), link)
        ops, found = self._operations(tp, link), 0
        for batch in batches(self._log.archive.segment(link), first_offset=wanted[0].as_py()):
            taken = batch.filter(pc.is_in(batch["offset"], value_set=wanted))
            found += taken.num_rows
            columns = (taken[name].to_pylist() for name in ("offset", "key", "value", "timestamp_ms"))
            for offset, key, value, time_ms in zip(*columns, strict=True):
                headers = [self._origin(tp, offset), *((OP, op.encode()) for op in ops.get(offset, ()))]
                yield WholeRecord(*tp, key, value, headers, max(0, time_ms))
        if found != len(wanted):
            raise self._lacks(tp, len(wanted) - found, link)

    def _lacks(self, tp: TopicPartition, rows: int, link: Manifest) -> NotRepublishable:
        return NotRepublishable(tp.topic, f"{rows:,} of its rows have no record in {link.name}", BY_EXPORT)

    def _operations(self, tp: TopicPartition, link: Manifest) -> dict[int, list[str]]:
        """The operation ids that are remembered, by the offset of the first row that bore them. (Two rows of one
        transaction may have borne one; by themselves, the second would be taken for a repetition.)"""
        if tp.topic not in self._with_operations:
            return {}
        sql = _OPERATIONS_SQL.format(table=quote(tp.topic))
        return dict(run(self._cursor, sql, [*tp, link.first, link.next]))

    def _origin(self, tp: TopicPartition, offset: int) -> tuple[str, bytes]:
        return Origin.of(self._cluster_id, self._chain(tp).place.topic_id, tp, offset).header


class _Ahead:
    """Offsets in order, taken part by part."""

    def __init__(self, offsets: Iterator[pa.Array]) -> None:
        self._offsets = offsets
        self._held: list[pa.Array] = []

    def below(self, limit: int) -> pa.Array:
        """The next ones, all that lie below *limit*."""
        while not self._held or self._held[-1][-1].as_py() < limit:
            following = next((part for part in self._offsets if len(part)), None)
            if following is None:
                break
            self._held.append(following)
        found = pa.concat_arrays(self._held) if self._held else pa.array([], pa.int64())
        count = pc.sum(pc.less(found, limit)).as_py() or 0
        self._held = [found.slice(count)] if count < len(found) else []
        return found.slice(0, count)


def _lost(chain: Chain) -> Iterator[tuple[int, int]]:
    """Offsets, from and up to, that the archive has not."""
    yield 0, chain.start or 0
    for link in chain.links:
        if link.lost:
            yield link.first, link.next
    yield chain.end, _BEYOND


_BEYOND = 2**62

_HELD_SQL = "SELECT topic, tx, count(*) FROM _merganser.pending WHERE topic = ? GROUP BY ALL ORDER BY ALL"

_REMEMBERED_SQL = "SELECT DISTINCT topic FROM _merganser.operations WHERE kind = 'op'"

_OPERATIONS_SQL = """
SELECT "first", list(id ORDER BY id) FROM (
  SELECT o.id, min(o."offset") AS "first"
  FROM _merganser.operations AS o JOIN {table} AS t ON t._partition = o.partition AND t._offset = o."offset"
  WHERE o.kind = 'op' AND o.state = 'applied' AND o.topic = ? AND o.partition = ? GROUP BY o.id)
WHERE "first" >= ? AND "first" < ? GROUP BY "first"
"""

_FORGOTTEN_SQL = """
SELECT count(*) FROM (
  SELECT o.partition, o.id
  FROM _merganser.operations AS o LEFT JOIN {table} AS t ON t._partition = o.partition AND t._offset = o."offset"
  WHERE o.kind = 'op' AND o.topic = ?
  GROUP BY ALL HAVING NOT bool_or(o.state = 'applied' AND t._offset IS NOT NULL))
"""

#: What leads on where records are lacking.
BY_EXPORT = "`restore` a store from the backup, `export` the table, `import` it into a new one"
