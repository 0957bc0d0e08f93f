"""What a write asks for besides its row: a condition, an operation id. Pure: checks, and headers' contents."""

from __future__ import annotations

from ..schemas.errors import UsageError
from ..schemas.headers import Condition, Marks, check_id
from ..schemas.partitioner import partition_of
from ..schemas.table import Table


def marks_of(
    table: Table,
    op: str | None = None,
    if_version: int | None = None,
    if_absent: bool = False,
    if_present: bool = False,
) -> Marks:
    """The marks of a write to *table*; UsageError if they are none, or the table cannot take them."""
    marks = Marks(condition=_condition(table, if_version, if_absent, if_present), ops=ops_of(op))
    check_ops(table, marks.ops)
    return marks


def ops_of(op: str | None) -> tuple[str, ...]:
    if op is None:
        return ()
    if why := check_id(op):
        raise UsageError(f"op={op!r}: {why}")
    return (op,)


def check_ops(table: Table, ops: tuple[str, ...]) -> None:
    """UsageError if *table* cannot remember *ops*."""
    if ops and table.compacted:
        why = "Kafka would keep a repeated write and drop the first one before it"
        raise UsageError(f"no operation ids on table {table.name!r}, it is compacted: {why}")


def home_of(table: Table, key: bytes | None, ops: tuple[str, ...]) -> int | None:
    """The one partition where a record belongs; None if any will do.

    An operation id is remembered per partition, so a row without a key goes where its id hashes to: a
    repeated write must meet the first one. The first id decides, if a record has several.
    """
    if key is not None:
        return partition_of(key, table.partitions)
    return partition_of(ops[0].encode(), table.partitions) if ops else None


def _condition(table: Table, if_version: int | None, if_absent: bool, if_present: bool) -> Condition | None:
    if (if_version is not None) + bool(if_absent) + bool(if_present) > 1:
        raise UsageError("give one of if_version, if_absent and if_present")
    if if_version is not None:
        if isinstance(if_version, bool) or not isinstance(if_version, int) or not 0 <= if_version < 2**63:
            raise UsageError(f"if_version={if_version!r}: a version is the row's _offset, a whole number from 0")
        condition = Condition("version", if_version)
    elif if_absent or if_present:
        condition = Condition("absent" if if_absent else "present")
    else:
        return None
    if table.conditions_refused:
        raise UsageError(f"no conditions on table {table.name!r}: {table.conditions_refused}")
    return condition
