"""What a query comes to: rows, and the position that they are of. Needs Arrow and no DuckDB: clients have it too."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from ..schemas.position import Position


class Result:
    """The rows of one query. ``position`` says which state of the log they are of; ``applied`` stops
    before the first record that is held back there, since its transaction is not whole yet.

    Safe to share between threads; holds no connection.
    """

    def __init__(self, table: pa.Table, types: Sequence[str], position: Position, applied: Position) -> None:
        self._table = table
        self._types = types
        self.position = position
        self.applied = applied

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    def arrow(self) -> pa.Table:
        """The rows as a pyarrow Table, as DuckDB exports them."""
        return self._table

    def df(self) -> Any:
        """The rows as a pandas DataFrame (needs pandas)."""
        return self._table.to_pandas()

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values.

        HUGEINT comes as int, UUID as uuid.UUID, MAP as dict, nanosecond times cut to microseconds.
        """
        columns = [_python(column, type_) for column, type_ in zip(self._table.columns, self._types, strict=True)]
        return list(zip(*columns, strict=True))

    def head(self, rows: int) -> Result:
        """The first *rows* of it."""
        return Result(self._table.slice(0, rows), self._types, self.position, self.applied)

    def __len__(self) -> int:
        return int(self._table.num_rows)


def _python(column: pa.ChunkedArray, sql_type: str) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    convert = _CONVERT.get(sql_type.partition("(")[0])
    return values if convert is None else [None if v is None else convert(v) for v in values]


_CONVERT: dict[str, Callable[[Any], Any]] = {"HUGEINT": int, "UHUGEINT": int, "UUID": uuid.UUID, "MAP": dict}
