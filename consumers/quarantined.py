"""The records of a store that are in quarantine, as they came: to list them, and to try them again; and the keys
that have to wait.

They are facts of the log, and stay: what is written again is another record.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from ..schemas.position import TopicPartition
from .atomic import KeyValues, Place
from .batch import Poison
from .labels import ReadKeys
from .statements import count, run

_BATCH = 256


def quarantined(
    cursor: duckdb.DuckDBPyConnection,
    table: str | None = None,
    reason: str = "",
    limit: int = 100,
    since: Place | None = None,
) -> Iterator[Poison]:
    """Those of *table* (None: of all) whose reason has *reason* in it, whatever its case, by place; *limit* at most,
    from *since* on."""
    where, params = _where(table, reason, since)
    sql = f"""
        SELECT topic, partition, "offset", epoch_ms(timestamp), key, value, reason FROM _merganser.quarantine
        WHERE {where} ORDER BY topic, partition, "offset" LIMIT {int(limit)}
    """
    found = cursor.execute(sql, params)
    while rows := found.fetchmany(_BATCH):
        for topic, partition, *facts in rows:
            yield Poison(TopicPartition(topic, partition), *facts)


def how_many(
    cursor: duckdb.DuckDBPyConnection, table: str | None = None, reason: str = "", since: Place | None = None
) -> int:
    """How many there are of these."""
    where, params = _where(table, reason, since)
    return count(cursor, f"SELECT count(*) FROM _merganser.quarantine WHERE {where}", params)


def _where(table: str | None, reason: str, since: Place | None) -> tuple[str, list[object]]:
    parts, params = ["true"], list[object]()
    if table is not None:
        parts.append("topic = ?")
        params.append(table)
    if reason:
        parts.append("contains(lower(reason), lower(?))")
        params.append(reason)
    if since is not None:
        parts.append('(partition > ? OR (partition = ? AND "offset" >= ?))')
        params += [since.partition.partition, since.partition.partition, since.offset]
    return " AND ".join(parts), params


def held_back(
    cursor: duckdb.DuckDBPyConnection, table: str, read_keys: ReadKeys
) -> set[tuple[TopicPartition, KeyValues]]:
    """What the keys of *table* say of which records are held back."""
    sql = "SELECT partition, key FROM _merganser.pending WHERE topic = ? AND key IS NOT NULL"
    waiting = run(cursor, sql, [table])
    said = read_keys([key for _, key in waiting]) if waiting else []
    places = (TopicPartition(table, partition) for partition, _ in waiting)
    return {(tp, key) for tp, key in zip(places, said, strict=True) if key is not None}
