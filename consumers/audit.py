"""The accounts of a store: every offset below its position, and what became of it (DESIGN, invariant 2).

    live + superseded + deletes + quarantined + rejected + repeated + pending + gaps
        = next offsets - first offsets     (each table)

Three questions, from the cheap to the long one. Do the numbers that the store keeps add up? Do the
rows that are there agree with them (none twice, none from outside the account)? And, with the log at
hand, does it hold exactly as many records as the store accounts for, so that a gap is one?

Pure but for the cursor and the log it is given. It changes nothing, and commits no group offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import duckdb

from ..schemas.headers import is_no_row
from ..schemas.position import Position, TopicPartition
from ..schemas.types import quote
from .digest import Digest, quarantine_digest, table_digest
from .log import Log
from .walk import walk


class Span(NamedTuple):
    """What the store says of one partition, and what its rows say."""

    partition: TopicPartition
    topic_id: str
    first: int
    next: int
    puts: int
    deletes: int
    quarantined: int
    rejected: int
    repeated: int
    pending: int
    gaps: int
    live: int
    lowest: int | None
    """The lowest offset of a live row; *highest* and *distinct* are of them too."""
    highest: int | None
    distinct: int

    @property
    def records(self) -> int:
        """Offsets that carry a record that a reader of committed ones is given."""
        return self.puts + self.deletes + self.quarantined + self.rejected + self.repeated + self.pending


@dataclass(frozen=True)
class Account:
    """What became of every offset of a table. It holds if *wrong* is empty.

    *unproven* says which records the log no longer has, so that they cannot be counted again.
    """

    table: str
    key: tuple[str, ...]
    spans: tuple[Span, ...]
    superseded: int
    digest: Digest | None = None
    quarantine_digest: Digest | None = None
    wrong: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()

    @property
    def offsets(self) -> int:
        return sum(span.next - span.first for span in self.spans)

    @property
    def puts(self) -> int:
        return sum(span.puts for span in self.spans)

    @property
    def live(self) -> int:
        return sum(span.live for span in self.spans)

    @property
    def deletes(self) -> int:
        return sum(span.deletes for span in self.spans)

    @property
    def quarantined(self) -> int:
        return sum(span.quarantined for span in self.spans)

    @property
    def rejected(self) -> int:
        return sum(span.rejected for span in self.spans)

    @property
    def repeated(self) -> int:
        return sum(span.repeated for span in self.spans)

    @property
    def pending(self) -> int:
        return sum(span.pending for span in self.spans)

    @property
    def gaps(self) -> int:
        return sum(span.gaps for span in self.spans)

    @property
    def position(self) -> Position:
        return Position({span.partition: span.next for span in self.spans})


def audit_store(cursor: duckdb.DuckDBPyConnection, digests: bool = True) -> list[Account]:
    """The account of each table, of the one state that *cursor* (inside a transaction) sees."""
    tables = cursor.execute("SELECT topic, key, superseded FROM _merganser.tables ORDER BY topic").fetchall()
    accounts = []
    for table, key, superseded in tables:
        account = Account(table, tuple(key), _spans(cursor, table), superseded)
        account = replace(account, wrong=(*_sums(account), *_rows(account), *_doubled(cursor, account)))
        if digests:
            account = replace(
                account,
                digest=table_digest(cursor, table),
                quarantine_digest=quarantine_digest(cursor, table),
            )
        accounts.append(account)
    return accounts


_SPANS_SQL = """
SELECT p.partition, p.topic_id, first_offset, next_offset, puts, deletes, coalesce(q.n, 0), rejected, repeated,
       coalesce(h.n, 0), gaps,
       coalesce(r.n, 0), r.lowest, r.highest, coalesce(r.distinct_offsets, 0)
FROM (FROM _merganser.positions WHERE topic = $topic) AS p
LEFT JOIN (
    SELECT partition, count(*) AS n FROM _merganser.quarantine WHERE topic = $topic GROUP BY partition
) AS q ON q.partition = p.partition
LEFT JOIN (
    SELECT partition, count(*) AS n FROM _merganser.pending
    WHERE topic = $topic AND resolution IS NULL GROUP BY partition
) AS h ON h.partition = p.partition
LEFT JOIN (
    SELECT _partition, count(*) AS n, min(_offset) AS lowest, max(_offset) AS highest,
           count(DISTINCT _offset) AS distinct_offsets
    FROM {table} GROUP BY _partition
) AS r ON r._partition = p.partition
"""


def _spans(cursor: duckdb.DuckDBPyConnection, table: str) -> tuple[Span, ...]:
    sql = _SPANS_SQL.format(table=quote(table)) + "ORDER BY p.partition"
    rows = cursor.execute(sql, {"topic": table}).fetchall()
    return tuple(Span(TopicPartition(table, row[0]), *row[1:]) for row in rows)


# -- what has to hold --------------------------------------------------------------------------


def _sums(account: Account) -> list[str]:
    """The numbers that the store keeps."""
    wrong = [
        f"{s.partition}: {s.next - s.first} offsets, but {s.records} records and {s.gaps} gaps"
        for s in account.spans
        if s.records + s.gaps != s.next - s.first or min(s.puts, s.deletes, s.rejected, s.repeated, s.gaps) < 0
    ]
    if account.live + account.superseded != account.puts:
        kept = f"{account.live} are live and {account.superseded} superseded"
        wrong.append(f"{account.table}: {account.puts} rows were put, but {kept}")
    return wrong


def _rows(account: Account) -> list[str]:
    """The rows, against the account of their partition."""
    wrong = []
    for span in account.spans:
        if span.distinct != span.live:
            wrong.append(f"{span.partition}: {span.live - span.distinct} rows are of the offset of another row")
        low, high = span.lowest, span.highest
        if low is not None and high is not None and not span.first <= low <= high < span.next:
            wrong.append(
                f"{span.partition}: rows of offsets {low} to {high}, the account has {span.first} to {span.next}"
            )
    return wrong


def _doubled(cursor: duckdb.DuckDBPyConnection, account: Account) -> list[str]:
    """Rows of partitions that are not held, and keys that have two rows."""
    table = quote(account.table)
    held = ", ".join(str(span.partition.partition) for span in account.spans) or "-1"
    [(astray,)] = cursor.execute(f"SELECT count(*) FROM {table} WHERE _partition NOT IN ({held})").fetchall()
    wrong = [f"{account.table}: {astray} rows are of partitions that the store does not hold"] if astray else []
    have = set(cursor.sql(f"SELECT * FROM {table} LIMIT 0").columns)
    if account.key and have.issuperset(account.key):  # a later schema may have renamed a key column
        key = ", ".join(quote(name) for name in (*account.key, "_partition"))
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} GROUP BY {key} HAVING count(*) > 1)"
        [(doubled,)] = cursor.execute(sql).fetchall()
        if doubled:
            wrong.append(f"{account.table}: {doubled} keys have more than one row")
    return wrong


# -- against the log ---------------------------------------------------------------------------


def audit_log(accounts: Sequence[Account], log: Log, timeout_s: float = 30.0) -> list[Account]:
    """The accounts again, with the records that the log has between first and next offset counted.

    NotFreshEnough if nothing comes for *timeout_s* seconds.
    """
    spans = {span.partition: span for account in accounts for span in account.spans}
    facts = log.describe({tp.topic for tp in spans})
    gone = {
        tp: f"{tp}: the topic is no longer the one that the store follows"
        for tp, span in spans.items()
        if tp.topic not in facts or facts[tp.topic].topic_id != span.topic_id
    }
    there = {tp: span for tp, span in spans.items() if tp not in gone}
    starts = log.starts(there)
    froms = Position({tp: max(span.first, starts.get(tp, 0)) for tp, span in there.items()})
    counts = count_records(log, froms, Position({tp: s.next for tp, s in there.items()}), timeout_s)
    compacted = {name for name, topic in facts.items() if topic.compacted}
    return [_against_log(account, gone, starts, counts, compacted) for account in accounts]


def _against_log(
    account: Account,
    gone: Mapping[TopicPartition, str],
    starts: Position,
    counts: Mapping[TopicPartition, int],
    compacted: set[str],
) -> Account:
    wrong, unproven = list(account.wrong), []
    for span in account.spans:
        tp = span.partition
        if tp in gone:
            unproven.append(gone[tp])
        elif counts[tp] > span.records:
            wrong.append(f"{tp}: the log has {counts[tp]} records, the store accounts for {span.records}")
        elif starts.get(tp, 0) > span.first:
            unproven.append(f"{tp}: the log begins at {starts[tp]} now, the store began at {span.first}")
        elif counts[tp] < span.records and account.table in compacted:
            unproven.append(f"{tp}: compaction left {counts[tp]} of {span.records} records in the log")
        elif counts[tp] < span.records:
            wrong.append(f"{tp}: the log has {counts[tp]} records, the store accounts for {span.records}")
    return replace(account, wrong=tuple(wrong), unproven=tuple(unproven))


def count_records(log: Log, start: Position, end: Position, timeout_s: float) -> dict[TopicPartition, int]:
    """How many committed records each partition of *end* has from *start* up to there."""
    counts = dict.fromkeys(end, 0)
    for poll in walk(log, "audit", start, end, timeout_s):
        for topic, chunk in poll.chunks.items():
            ends = {p: end[TopicPartition(topic, p)] for p in chunk.spans}
            no_rows = {i for i, headers in chunk.headers.items() if is_no_row(headers)}
            places = enumerate(zip(chunk.partitions, chunk.offsets, strict=True))
            below = Counter(p for i, (p, offset) in places if offset < ends[p] and i not in no_rows)
            for partition, count in below.items():
                counts[TopicPartition(topic, partition)] += count
    return counts
