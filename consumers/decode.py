"""The records of one table, decoded: rows, deletes, and what is poison.

Invariant: a record's fate depends on the record, the registry and the table alone, never on its
neighbours: it becomes a row, a delete, or bad with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..schemas.arrowcheck import breaking
from ..schemas.avro import check_key, key_fields
from ..schemas.decode import Decoded as DecodedKeys
from ..schemas.decode import Decoder, KeyDecoder, split_by_schema
from ..schemas.errors import BadSchema
from ..schemas.layout import Layout, conform, layout, migrate
from ..schemas.rowcheck import BoundCheck, bind
from ..schemas.table import SchemaVersion, Table, key_subject, value_subject
from ..schemas.types import MAX_MILLIS, MIN_MILLIS
from .atomic import KeyValues
from .batch import SchemaChange, TableKeys, TableRows
from .chunk import Chunk

#: subject → its versions, read to an end sampled after the call.
Versions = Callable[[str], list[SchemaVersion]]

#: The number of a record in its batch: a column while rows are assembled, under a name no schema can have.
_SEQ = "#"
_LAST = "#_max"

_PLACE = pa.schema(
    [
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_timestamp", pa.timestamp("ms", tz="UTC")),
        (_SEQ, pa.int64()),
    ]
)


@dataclass(frozen=True)
class Piece:
    """Rows of one schema version, as their writer named them; *place* and *keys* are row by row theirs."""

    version: int
    rows: pa.Table
    place: pa.Table
    keys: pa.Table | None


@dataclass
class Decoded:
    """What became of some records: *bad* and *deleted* hold indices into them."""

    puts: list[Piece] = field(default_factory=list)
    deletes: pa.Table | None = None
    deleted: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    nbytes: int = 0


class TableDecoder:
    """Decodes one table's records by the schemas they name, and lays them out in the store's columns.

    *version* is the newest version of the value schema that was met; the store's columns follow it.
    """

    def __init__(self, table: Table, version: int, versions: Versions) -> None:
        check_key(table)
        self.table = table
        self.version = version
        self._stored = version
        self._versions = versions
        self._by_id = {v.id: v for v in table.values}
        self._values = list(table.values)
        self._decoders: dict[int, Decoder] = {}
        self._keys = KeyDecoder(table, versions(key_subject(table.name))) if table.keyed else None
        self._key_fields = key_fields(table)
        self._layout_version: int | None = None
        self._usual: Decoder | None = None
        self._usual_version = version
        self._checked = bool(table.checks)
        self._bound: dict[int, tuple[tuple[BoundCheck, ...], str | None]] = {}

    # -- records to rows ---------------------------------------------------------------------

    def decode(self, chunk: Chunk, first_seq: int) -> Decoded:
        """Rows and deletes of *chunk*, numbered from *first_seq* on.

        LogError if the registry is needed and away; nothing has changed then.
        """
        done = Decoded()
        values = chunk.values
        place = _places(chunk, first_seq)
        if self._usual is None or (rows := self._usual.whole(values)) is None:
            self._decode_mixed(chunk, values, place, done)
        else:
            keys = self._decode_keys(chunk, done)
            self._take_rows(self._usual_version, rows, range(len(values)), place, keys, done)
        return done

    def _decode_mixed(self, chunk: Chunk, values: list[bytes | None], place: pa.Table, done: Decoded) -> None:
        """Values of any schema, deletes, and what is no value."""
        groups, unread = split_by_schema(values)
        self.meet(groups)
        keys = self._decode_keys(chunk, done)
        for i, why in unread:
            if values[i] is not None:
                done.bad.setdefault(i, why)
            elif keys is None:
                done.bad[i] = "a null value in a table without a key"
            elif i not in done.bad:
                done.deleted.append(i)
        if keys is not None and done.deleted:
            at = pa.array(done.deleted, pa.int64())
            done.deletes = _beside(keys.take(at), place.select(["_partition", _SEQ]).take(at))
            done.nbytes += done.deletes.nbytes
        for id_, indices in groups.items():
            self._decode_values(id_, indices, values, place, keys, done)
        self._expect(groups, len(values))

    def _expect(self, groups: Mapping[int, Sequence[int]], count: int) -> None:
        """The next chunk is likely all of the schema that this one is all of: then one look is enough."""
        self._usual = None
        usual = next(iter(groups), None)
        if usual is not None and len(groups[usual]) == count and not self._refusal(usual):
            self._usual, self._usual_version = self._decoder(self._by_id[usual]), self._by_id[usual].version

    def _decode_keys(self, chunk: Chunk, done: Decoded) -> pa.Table | None:
        """The key columns, a row for each record (nulls where the key is bad); None if there are none."""
        if self._keys is None:
            return None
        decoded = self._decoded_keys(self._keys, chunk.keys)
        done.bad.update(decoded.bad)
        if decoded.good is None:
            return decoded.rows
        row_of = {i: row for row, i in enumerate(decoded.good)}
        return decoded.rows.take(pa.array([row_of.get(i) for i in range(len(chunk))], pa.int64()))

    def _decoded_keys(self, decoder: KeyDecoder, keys: Sequence[bytes | None]) -> DecodedKeys:
        decoded = decoder.decode(keys)
        if decoded.bad and decoder.unknown(keys):
            self._keys = KeyDecoder(self.table, self._versions(key_subject(self.table.name)))
            decoded = self._keys.decode(keys)
        return decoded

    def read_keys(self, keys: Sequence[bytes | None]) -> Sequence[KeyValues | None]:
        """What each of *keys* says, equal for keys of one row; None for one that cannot be read, and in a table
        without a key. LogError if the registry is needed and away."""
        if self._keys is None:
            return [None] * len(keys)
        decoded = self._decoded_keys(self._keys, keys)
        said = zip(*map(_values, decoded.rows.columns), strict=True)
        if decoded.good is None:
            return list(said)
        found: list[KeyValues | None] = [None] * len(keys)
        for i, values in zip(decoded.good, said, strict=True):
            found[i] = values
        return found

    def _decode_values(
        self,
        schema_id: int,
        at: Sequence[int],
        values: Sequence[bytes | None],
        place: pa.Table,
        keys: pa.Table | None,
        done: Decoded,
    ) -> None:
        why = self._refusal(schema_id)
        if why is not None:
            for i in at:
                done.bad.setdefault(i, why)
            return
        version = self._by_id[schema_id]
        decoded = self._decoder(version).decode(values if len(at) == len(values) else [values[i] for i in at])
        for i, reason in decoded.bad:
            done.bad.setdefault(at[i], reason)
        good = at if decoded.good is None else [at[i] for i in decoded.good]
        self._take_rows(version.version, decoded.rows, good, place, keys, done)

    def _take_rows(
        self, version: int, rows: pa.Table, good: Sequence[int], place: pa.Table, keys: pa.Table | None, done: Decoded
    ) -> None:
        """Keep *rows*, which are of the records *good*, unless their key is bad or they break a check."""
        if keys is not None:
            rows, good = self._keep_keyed(rows, good, keys, done)
        if self._checked:
            rows, good = self._keep_checked(version, rows, good, done)
        if len(good) < place.num_rows:
            index = pa.array(good, pa.int64())
            place, keys = place.take(index), keys and keys.take(index)
        done.puts.append(Piece(version, rows, place, keys))
        done.nbytes += rows.nbytes + place.nbytes + (keys.nbytes if keys is not None else 0)

    def _keep_keyed(
        self, rows: pa.Table, good: Sequence[int], keys: pa.Table, done: Decoded
    ) -> tuple[pa.Table, Sequence[int]]:
        """Only rows whose key is good and says what the value's key columns say."""
        mine = keys if len(good) == len(keys) else keys.take(pa.array(good, pa.int64()))
        for name in mine.column_names:
            if name in rows.column_names:
                same = _same(rows[name], mine[name])
                if not pc.all(same, min_count=0).as_py():
                    for i, equal in zip(good, same.to_pylist(), strict=True):
                        if not equal:
                            done.bad.setdefault(i, f"the record's key and its column {name!r} differ")
        if not done.bad:
            return rows, good
        kept = [n for n, i in enumerate(good) if i not in done.bad]
        if len(kept) == len(good):
            return rows, good
        return rows.take(pa.array(kept, pa.int64())), [good[n] for n in kept]

    def _keep_checked(
        self, version: int, rows: pa.Table, good: Sequence[int], done: Decoded
    ) -> tuple[pa.Table, Sequence[int]]:
        """Only rows that hold every check; of several that a row breaks, the first is the reason."""
        broken: dict[int, str] = {}
        for check in self._checks(version)[0]:
            for n in breaking(check, rows):
                broken.setdefault(n, check.broken)
        if not broken:
            return rows, good
        done.bad.update((good[n], why) for n, why in broken.items())
        kept = [n for n in range(len(good)) if n not in broken]
        return rows.take(pa.array(kept, pa.int64())), [good[n] for n in kept]

    # -- schemas -----------------------------------------------------------------------------

    def meet(self, schema_ids: Collection[int]) -> None:
        """Have the versions that *schema_ids* name, if the registry has them, and move the layout on. LogError if
        the registry is needed and away."""
        if not self._by_id.keys() >= set(schema_ids):
            self._values = self._versions(value_subject(self.table.name))
            self._by_id = {v.id: v for v in self._values}
        met = [self._by_id[id_].version for id_ in schema_ids if id_ in self._by_id]
        self.version = max([self.version, *met])

    def _refusal(self, schema_id: int) -> str | None:
        """Why records of this schema cannot be rows; None if they can."""
        found = self._by_id.get(schema_id)
        if found is None:
            return f"schema id {schema_id} is no version of {value_subject(self.table.name)}"
        return self.layout.refused.get(found.version) or (self._checks(found.version)[1] if self._checked else None)

    def _checks(self, version: int) -> tuple[tuple[BoundCheck, ...], str | None]:
        """The table's checks on records of *version*, and why they cannot judge those, if so."""
        if version not in self._bound:
            try:
                table = replace(self.table, values=tuple(self._values))
                self._bound[version] = bind(table, self.layout, version), None
            except BadSchema as e:
                self._bound[version] = (), f"schema version {version} cannot be checked: {e.where}: {e.why}"
        return self._bound[version]

    def _decoder(self, version: SchemaVersion) -> Decoder:
        if version.id not in self._decoders:
            self._decoders[version.id] = Decoder(version, self.table.name)
        return self._decoders[version.id]

    @property
    def layout(self) -> Layout:
        """The columns by the value schemas up to the newest one met."""
        if self._layout_version != self.version:
            self._layout = self._layout_upto(self.version)
            self._layout_version = self.version
        return self._layout

    def _layout_upto(self, version: int) -> Layout:
        return layout(self.table.name, self._values, version, self._key_fields)

    # -- rows to what the store takes --------------------------------------------------------

    def schema_change(self) -> SchemaChange | None:
        """What the store has to change before it takes the rows since the last call."""
        if self._stored == self.version:
            return None
        old, self._stored = self._layout_upto(self._stored), self.version
        return SchemaChange(self.table.name, self.version, migrate(old, self.layout))

    def columns(self) -> list[tuple[str, str]]:
        """Name and SQL type of each column of the store."""
        return [(column.name, column.sql) for column in self.layout.columns]

    def part(self, puts: Sequence[Piece], deletes: Sequence[pa.Table]) -> TablePart:
        """What was decoded, with the layout of this moment."""
        return TablePart(self.table.name, self.layout, self.table.key, puts, deletes)


@dataclass(frozen=True)
class TablePart:
    """The decoded records of one table in one batch; :meth:`rows` needs nothing else, on any thread.

    *key* has the key columns, none for an append table.
    """

    table: str
    layout: Layout
    key: Sequence[str]
    puts: Sequence[Piece]
    deletes: Sequence[pa.Table]

    def rows(self, without: Collection[int] = ()) -> TableRows:
        """Rows in the store's columns, as if the records *without* had never been; of a keyed table only
        the last of each key."""
        rows = pa.concat_tables([self._lay_out(piece) for piece in self.puts]) if self.puts else None
        if without and rows is not None:
            rows = _but(rows, without)
        if not self.key:
            return TableRows(self.table, _inserts(rows))
        touched = self._touched()
        if without:
            touched = _but(touched, without)
        key = [*self.key, "_partition"]
        # On one thread it is as fast, and takes 60 MiB less.
        last = touched.group_by(key, use_threads=False).aggregate([(_SEQ, "max")])
        if rows is None:
            return TableRows(self.table, None, key, last.select(key))
        winners = rows.filter(pc.is_in(rows[_SEQ], value_set=last[_LAST]))
        gone = None
        if winners.num_rows < last.num_rows:
            gone = last.filter(pc.invert(pc.is_in(last[_LAST], value_set=winners[_SEQ]))).select(key)
        return TableRows(self.table, _inserts(winners), key, gone, rows.num_rows - winners.num_rows)

    def keys(self, records: Collection[int]) -> TableKeys:
        """The keys of *records*, for an SQL join."""
        touched = self._touched()
        found = touched.filter(pc.is_in(touched[_SEQ], value_set=pa.array(records, pa.int64())))
        return TableKeys(found, [*self.key, "_partition"], _SEQ)

    def _touched(self) -> pa.Table:
        """Key, partition and number of each record of a keyed table."""
        puts = [_beside(p.keys, p.place.select(["_partition", _SEQ])) for p in self.puts]
        return pa.concat_tables([*puts, *self.deletes])

    def _lay_out(self, piece: Piece) -> pa.Table:
        rows = conform(piece.rows, self.layout, piece.version)
        if piece.keys is not None:
            for name in self.key:
                if name not in piece.rows.column_names:
                    at = rows.column_names.index(name)
                    rows = rows.set_column(at, name, piece.keys[name].cast(rows.schema.field(at).type))
        return _beside(rows, piece.place)


def _but(rows: pa.Table, without: Collection[int]) -> pa.Table:
    """*rows*, those of the records *without* left out."""
    return rows.filter(pc.invert(pc.is_in(rows[_SEQ], value_set=pa.array(without, pa.int64()))))


def _inserts(rows: pa.Table | None) -> pa.Table | None:
    """*rows* as the store takes them; None if there are none."""
    return rows.drop_columns([_SEQ]) if rows is not None and rows.num_rows else None


def _places(chunk: Chunk, first_seq: int) -> pa.Table:
    """Where and when each record is in the log, and its number in the batch."""
    columns = [
        pa.array(chunk.partitions, pa.int32()),
        pa.array(chunk.offsets, pa.int64()),
        _instants(chunk.times_ms),
        pa.arange(first_seq, first_seq + len(chunk)),
    ]
    return pa.table(columns, schema=_PLACE)


def _instants(milliseconds: list[int]) -> pa.Array:
    """Record times; NULL for what a producer's clock put outside the years 1 to 9999."""
    numbers = pa.array(milliseconds, pa.int64())
    if milliseconds and not MIN_MILLIS <= min(milliseconds) <= max(milliseconds) <= MAX_MILLIS:
        inside = pc.and_(pc.greater_equal(numbers, MIN_MILLIS), pc.less_equal(numbers, MAX_MILLIS))
        numbers = pc.if_else(inside, numbers, None)
    return numbers.cast(_PLACE.field("_timestamp").type)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a key column; times as numbers, since those are exact, and quick."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
    return column.to_pylist()  # type: ignore[no-any-return]


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    """The columns of both, row by row."""
    return pa.table([*left.columns, *right.columns], names=[*left.column_names, *right.column_names])


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Row by row, true if both are equal or both null. ``check_key`` saw to it that they can be compared."""
    both_null = pc.and_(left.is_null(), right.is_null())
    return pc.or_(pc.fill_null(pc.equal(left, right), False), both_null)
