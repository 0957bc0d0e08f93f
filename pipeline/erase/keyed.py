"""Which records, and which rows, are of a key: by what it says, as replicas compare it, whatever its bytes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ...consumers.atomic import KeyValues
from ...consumers.chunk import Chunk
from ...consumers.decode import TableDecoder
from ...schemas.encode import RowEncoder
from ...schemas.errors import UsageError
from ...schemas.jsonrows import JsonRows
from ...schemas.table import SchemaVersion, Table

#: Spellings of other keys that are remembered, about.
_REMEMBERED = 65_536


class TheKey:
    """The one key that command-line *words* spell, of *table*. UsageError, InvalidRow."""

    def __init__(self, table: Table, words: Sequence[str], versions: Callable[[str], list[SchemaVersion]]) -> None:
        if not table.keyed:
            raise UsageError(f"table {table.name!r} has no key, so there is no history of one to erase")
        keys = JsonRows(table).key(words)
        if len(keys) != 1:
            raise UsageError("one key at a time: COLUMN=VALUE for each key column, or a JSON object")
        self.table = table
        self._decoder = TableDecoder(table, table.values[0].version, versions)
        self._bytes = RowEncoder(table).key(keys[0], exact=True)
        [said] = self._decoder.read_keys([self._bytes])
        if said is None:
            raise UsageError(f"table {table.name!r}: the key cannot be read back, so its records cannot be found")
        self._said: KeyValues = said
        self._mine = {self._bytes}  # spellings of it that were met, and of others
        self._others: set[bytes] = set()

    def among(self, keys: pa.ChunkedArray | pa.Array) -> list[int]:
        """The indices of those of *keys*, as records have them, that are this one."""
        met = (key for key in keys.unique().to_pylist() if key is not None)
        new = [key for key in met if key not in self._mine and key not in self._others]
        said = self._decoder.read_keys(new)
        found = {key for key, values in zip(new, said, strict=True) if values == self._said or key == self._bytes}
        self._mine |= found
        if len(self._others) > _REMEMBERED:
            self._others = set()
        self._others.update(key for key in new if key not in found)
        found_at = pc.indices_nonzero(pc.is_in(keys, value_set=pa.array(sorted(self._mine), keys.type)))
        return list(found_at.to_pylist())

    def bad(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> set[int]:
        """Which of some records of it no row can be made of. LogError if the schemas are away."""
        return set(self._decoder.decode(_chunk(keys, values), 0).bad) if keys else set()

    @property
    def columns(self) -> pa.Table:
        """The key columns, as a replica deletes by them: one row."""
        deletes = self._decoder.decode(_chunk([self._bytes], [None]), 0).deletes
        assert deletes is not None  # a key that was read, and no value
        return deletes.select(list(self.table.key))


def _chunk(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Chunk:
    chunk = Chunk()
    chunk.keys, chunk.values = list(keys), list(values)
    chunk.partitions, chunk.offsets = [0] * len(keys), list(range(len(keys)))
    chunk.times_ms = [0] * len(keys)
    return chunk
