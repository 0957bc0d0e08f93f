"""What each record in quarantine would be if it were written again: as it came, or repaired.

A repair gets a dict: ``partition``, ``offset``, ``timestamp``, ``reason``, ``key`` and ``value`` (bytes or None), and
``row``, the value as a dict if its bytes can be read (a row that breaks a check, for one), else None. It returns the
row to write, as ``Producer.put`` takes it, or None to leave the record where it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...consumers.atomic import KeyValues, Place
from ...consumers.batch import Poison, TableKeys
from ...consumers.chunk import Chunk
from ...consumers.decode import Decoded, TableDecoder, Versions
from ...schemas.arrowrows import row_values
from ...schemas.avro import row_type
from ...schemas.decode import Decoder
from ...schemas.encode import RowEncoder
from ...schemas.errors import InvalidRow, TransformFailed
from ...schemas.partitioner import partition_of
from ...schemas.position import TopicPartition
from ...schemas.read import Damaged, schema_id
from ...schemas.table import Table
from .plan import Candidate

Row = dict[str, Any]
Repair = Callable[[Row], Row | None]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Candidates:
    """Makes candidates of *table*'s records. *repair* is a function of the caller's, *name* what to call it;
    *rows* are rows repaired by hand, by place."""

    def __init__(
        self,
        table: Table,
        versions: Versions,
        repair: Repair | None = None,
        name: str = "",
        rows: Mapping[Place, Row] | None = None,
    ) -> None:
        self._table, self._repair, self._name, self._rows = table, repair, name, rows or {}
        self._encoder = RowEncoder(table)
        self._decoder = TableDecoder(table, table.latest.version, versions)
        self._by_id = {version.id: version for version in table.values}
        self._readers: dict[int, Decoder] = {}

    def of(self, poison: Sequence[Poison]) -> tuple[list[Candidate], TableKeys | None]:
        """A candidate for each, and the keys of those that would be rows, by their index."""
        found = [self._candidate(each) for each in poison]
        said = self.read_keys([each.key for each in found]) if found else []
        found = [replace(each, identity=key) for each, key in zip(found, said, strict=True)]
        decoded, keys = self._decoded(found)
        return [replace(c, bad=c.bad or decoded.bad.get(i, "")) for i, c in enumerate(found)], keys

    def _candidate(self, poison: Poison) -> Candidate:
        row = self._row(poison)
        as_it_came = Candidate(poison, poison.partition, poison.key, poison.value, row=row)
        try:
            if poison.place in self._rows:
                return self._repaired(poison, self._rows[poison.place])
            if self._repair is None:
                return as_it_came
            repaired = self._call(poison, row)
            return replace(as_it_came, left=True) if repaired is None else self._repaired(poison, repaired)
        except InvalidRow as why:
            return replace(as_it_came, bad=str(why))

    def read_keys(self, keys: Sequence[bytes | None]) -> Sequence[KeyValues | None]:
        """What each of *keys* says; see :meth:`TableDecoder.read_keys`."""
        return self._decoder.read_keys(keys)

    def _repaired(self, poison: Poison, row: Row) -> Candidate:
        """*row*, encoded. Its key stays as it was written, and where, if it is the same."""
        value = self._encoder.value(row)
        if not self._table.keyed:
            return Candidate(poison, poison.partition, poison.key, value, row=row)
        key = self._encoder.key(row)
        old, new = self.read_keys([poison.key, key])
        if old is not None and old == new:
            return Candidate(poison, poison.partition, poison.key, value, row=row)
        partition = TopicPartition(self._table.name, partition_of(key, self._table.partitions))
        return Candidate(poison, partition, key, value, row=row)

    def _call(self, poison: Poison, row: Row | None) -> Row | None:
        assert self._repair is not None
        time_ms = poison.timestamp_ms
        record = {
            "partition": poison.partition.partition,
            "offset": poison.offset,
            "timestamp": None if time_ms is None else _EPOCH + dt.timedelta(milliseconds=time_ms),
            "reason": poison.reason,
            "key": poison.key,
            "value": poison.value,
            "row": row,
        }
        try:
            result = self._repair(record)
        except Exception as error:
            raise self._failed(poison, f"{type(error).__name__}: {error}") from error
        if result is not None and not isinstance(result, dict):
            raise self._failed(poison, f"it returned {type(result).__name__}, not a dict or None")
        return result

    def _failed(self, poison: Poison, why: str) -> TransformFailed:
        return TransformFailed(self._name, self._table.name, poison.partition.partition, poison.offset, why)

    def _row(self, poison: Poison) -> Row | None:
        """The value as a dict, if its bytes can be read by the schema that they name."""
        try:
            version = self._by_id.get(schema_id(poison.value))
        except Damaged:
            return None
        if version is None:
            return None
        reader = self._readers.setdefault(version.id, Decoder(version, self._table.name))
        decoded = reader.decode([poison.value])
        if decoded.bad:
            return None
        types = {f.name: f.type.required for f in row_type(self._table.name, version.schema).fields}
        columns = decoded.rows.combine_chunks().to_batches()[0]
        return {name: row_values(columns[name], types[name])[0] for name in columns.schema.names}

    def _decoded(self, found: Sequence[Candidate]) -> tuple[Decoded, TableKeys | None]:
        """What replicas would make of *found*."""
        chunk = Chunk()
        chunk.partitions = [each.partition.partition for each in found]
        chunk.offsets = [each.poison.offset for each in found]
        chunk.times_ms = [each.poison.timestamp_ms or 0 for each in found]
        chunk.keys = [each.key for each in found]
        chunk.values = [each.value for each in found]
        decoded = self._decoder.decode(chunk, 0)
        good = [i for i in range(len(found)) if i not in decoded.bad]
        if not self._table.keyed or not good:
            return decoded, None
        deletes = [decoded.deletes] if decoded.deletes is not None else []
        return decoded, self._decoder.part(decoded.puts, deletes).keys(good)
