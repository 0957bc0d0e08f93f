"""Kafka values and keys to Arrow rows.

Invariants: each input is a row, or bad with a reason, never neither and never both; good rows keep
their order; what becomes of a value depends on its bytes and its schema alone, not on the batch it
came in nor on which reader decoded it.

Whole batches go through ``columns.py``. Where that is in doubt, the batch is cut into parts until the
doubtful values stand alone, and ``read.py`` decides those one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from .arrow import arrow_schema
from .avro import row_type
from .columns import ColumnReader, common_schema_id, supported
from .errors import BadSchema
from .keys import as_record
from .read import NULL, Damaged, RowReader, schema_id
from .table import SchemaVersion, Table

#: A doubtful batch is cut into this many parts, and each doubtful part again: with one bad value in
#: a hundred thousand, all is decoded about twice.
_PARTS = 16

#: At most this many doubtful values are decided one by one without another cut.
_FEW = 32

_NULL_KEY = "null key"


@dataclass(frozen=True)
class Decoded:
    """*rows* holds the good ones, in order; *bad* the index and reason of each other value.

    *good* has the index of each row, None if every value is good.
    """

    rows: pa.Table
    bad: list[tuple[int, str]]
    good: list[int] | None


class Decoder:
    """Decodes values of one schema version. Safe to share between threads.

    *rows* of the result has the writer's fields as columns, in the Arrow types of ``arrow.py``.
    """

    def __init__(self, writer: SchemaVersion, table_name: str) -> None:
        self.type = row_type(table_name, writer.schema)
        self.schema = arrow_schema(self.type)
        self._one = RowReader(self.type, writer.id)
        self._all = ColumnReader(self.type, writer.id) if supported(self.type) else None

    def whole(self, values: Sequence[bytes | None]) -> pa.Table | None:
        """All of *values* as rows, by one look; None if one of them needs `decode`'s closer one."""
        batch = self._all.rows(list(values)) if self._all else None  # type: ignore[arg-type]  # None is in doubt
        return None if batch is None else pa.Table.from_batches([batch])

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """*values* complete with their five-byte prefix."""
        batches: list[pa.RecordBatch] = []
        bad: list[tuple[int, str]] = []
        for start, part, batch in self._parts(0, list(values)):
            if batch is None:
                rows, reasons = self._one_by_one(start, part)
                bad += reasons
                batch = pa.RecordBatch.from_pylist(rows, self.schema)
            batches.append(batch)
        return _decoded(pa.Table.from_batches(batches, self.schema), bad, len(values))

    def _parts(self, start: int, values: list[Any]) -> Iterator[tuple[int, list[Any], pa.RecordBatch | None]]:
        if not values:
            return
        batch = self._all.rows(values) if self._all else None
        if batch is not None or self._all is None or len(values) <= _FEW:
            yield start, values, batch
            return
        step = max(_FEW, -(-len(values) // _PARTS))
        for at in range(0, len(values), step):
            yield from self._parts(start + at, values[at : at + step])

    def _one_by_one(self, start: int, values: list[Any]) -> tuple[list[Any], list[tuple[int, str]]]:
        rows, bad = [], []
        for i, value in enumerate(values, start):
            try:
                rows.append(self._one.row(value))
            except Damaged as e:
                bad.append((i, str(e)))
        return rows, bad


class KeyDecoder:
    """Decodes the keys of *table* to its key columns. *versions* are further ones of its key schema."""

    def __init__(self, table: Table, versions: Sequence[SchemaVersion] = ()) -> None:
        self._plain = _PLAIN.get(table.key_encoding)
        self._decoders: dict[int, Decoder] = {}
        self._refused: dict[int, str] = {}
        if self._plain is None:
            if table.key_schema is None:
                raise ValueError(f"table {table.name!r} has Avro keys and no key schema")
            first = Decoder(table.key_schema, table.name)
            for version in versions:
                why = self._add(table, version, first.schema)
                if why is not None:
                    self._refused[version.id] = why
            self._decoders[table.key_schema.id] = first
            self.schema: pa.Schema = first.schema
        else:
            self.schema = pa.schema([(table.key[0], _PLAIN_TYPES[table.key_encoding])])

    def _add(self, table: Table, version: SchemaVersion, columns: pa.Schema) -> str | None:
        """Decode keys of *version* too; or why they are none of this table, whose keys have *columns*."""
        try:
            decoder = Decoder(as_record(version, table.key), table.name)
        except BadSchema as error:
            return f"key schema version {version.version}: {error.why}"
        if decoder.schema != columns:
            return f"key schema version {version.version} has other columns, or of other types, than the first"
        self._decoders[version.id] = decoder
        return None

    def decode(self, keys: Sequence[bytes | None]) -> Decoded:
        """*keys* as Kafka has them; None is bad."""
        if self._plain is None:
            return self._avro(keys)
        return _plain_keys(self._plain, keys, self.schema)

    def unknown(self, keys: Sequence[bytes | None]) -> bool:
        """True if one of *keys* names a schema that this decoder was not given."""
        if self._plain is not None:
            return False
        groups, _ = split_by_schema(keys)
        return not (self._decoders.keys() | self._refused.keys()) >= groups.keys()

    def _avro(self, keys: Sequence[bytes | None]) -> Decoded:
        if len(self._decoders) == 1 and not self._refused:
            (decoder,) = self._decoders.values()
            decoded = decoder.decode(keys)
            return replace(decoded, bad=[(i, _key_reason(keys[i], why)) for i, why in decoded.bad])
        groups, unread = split_by_schema(keys)
        bad = [(i, _key_reason(keys[i], why)) for i, why in unread]
        found: list[tuple[list[int], pa.Table]] = []
        for id_, at in groups.items():
            if id_ not in self._decoders:
                why = self._refused.get(id_, f"schema id {id_} is no version of this key")
                bad += [(i, why) for i in at]
                continue
            decoded = self._decoders[id_].decode([keys[i] for i in at] if len(at) < len(keys) else keys)
            bad += [(at[i], why) for i, why in decoded.bad]
            found.append(([at[i] for i in _good(decoded, len(at))], decoded.rows))
        return _decoded(_in_order(found, self.schema), sorted(bad), len(keys))


def _key_reason(key: bytes | None, why: str) -> str:
    return _NULL_KEY if key is None else why


def split_by_schema(values: Sequence[bytes | None]) -> tuple[dict[int, Sequence[int]], list[tuple[int, str]]]:
    """The indices of *values* by schema id, and those without a Confluent prefix, each with the reason."""
    present: list[Any] = values if isinstance(values, list) else list(values)
    at: Sequence[int] = range(len(values))
    if None in values:
        at = [i for i in at if values[i] is not None]
        present = [values[i] for i in at]
    common = common_schema_id(present)
    if common is not None:
        return {common: at}, [(i, NULL) for i, v in enumerate(values) if v is None] if len(at) < len(values) else []
    groups: dict[int, list[int]] = {}
    bad = []
    for i, value in enumerate(values):
        try:
            groups.setdefault(schema_id(value), []).append(i)
        except Damaged as e:
            bad.append((i, str(e)))
    return dict(groups), bad


def _good(decoded: Decoded, count: int) -> Sequence[int]:
    return range(count) if decoded.good is None else decoded.good


def _decoded(rows: pa.Table, bad: list[tuple[int, str]], count: int) -> Decoded:
    if not bad:
        return Decoded(rows, bad, None)
    without = {i for i, _ in bad}
    return Decoded(rows, bad, [i for i in range(count) if i not in without])


def _in_order(found: list[tuple[list[int], pa.Table]], schema: pa.Schema) -> pa.Table:
    """The rows of several tables, ordered by the index that each row has."""
    if len(found) == 1:
        return found[0][1]
    rows = pa.concat_tables([table for _, table in found]) if found else schema.empty_table()
    index = [i for at, _ in found for i in at]
    order = sorted(range(len(index)), key=index.__getitem__)
    return rows.take(pa.array(order, pa.int64()))


# -- the plain keys of Kafka's own serializers -----------------------------------------------


def _plain_keys(read: Callable[[bytes], Any], keys: Iterable[bytes | None], schema: pa.Schema) -> Decoded:
    values, bad, count = [], [], 0
    for i, key in enumerate(keys):
        count += 1
        try:
            if key is None:
                raise Damaged(_NULL_KEY)
            values.append(read(key))
        except Damaged as e:
            bad.append((i, str(e)))
    rows = pa.table([pa.array(values, schema.field(0).type)], schema=schema)
    return _decoded(rows, bad, count)


def _string_key(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as e:
        raise Damaged(f"a key that is not UTF-8: {e.reason}") from None


def _number_key(form: struct.Struct) -> Callable[[bytes], int]:
    def read(key: bytes) -> int:
        if len(key) != form.size:
            raise Damaged(f"a key of {len(key)} bytes, not {form.size}")
        number: int = form.unpack(key)[0]
        return number

    return read


_PLAIN = {"string": _string_key, "int": _number_key(struct.Struct(">i")), "long": _number_key(struct.Struct(">q"))}
_PLAIN_TYPES = {"string": pa.string(), "int": pa.int32(), "long": pa.int64()}
