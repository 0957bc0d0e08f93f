"""A log read once, from one position to another: by an audit, a retry, a republish, an import.

Invariant: a partition is at its end once the reader has said so, by a record there or by an :class:`End`. Offsets
before it may carry no record (control records, aborted ones, what compaction took), so nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..schemas.errors import NotFreshEnough, TableStopped
from ..schemas.kafka import Deadline
from ..schemas.position import Position, TopicPartition, next_offset
from .chunk import Chunk
from .log import Log, Poll

_POLL_RECORDS = 10_000


def walk(
    log: Log,
    work: str,
    begin: Position,
    end: Position,
    patience_s: float,
    kind: type[Chunk] | None = None,
    told: Callable[[int], None] = lambda offsets: None,
) -> Iterator[Poll]:
    """What *log* has of each partition of *end*, from *begin* up to there and perhaps some more. *work* is what it is
    for; *told* hears how many offsets each poll came on by.

    TableStopped if the log refuses to go on with a partition; NotFreshEnough if nothing comes for *patience_s*
    seconds: an open transaction, mostly.
    """
    at = {tp: begin.get(tp, 0) for tp in end}
    left = {tp for tp, offset in at.items() if offset < end[tp]}
    reader = log.reader(f"merganser-{work}", kind)
    try:
        if left:
            reader.assign(Position({tp: at[tp] for tp in left}))
        deadline = Deadline(patience_s)
        while left:
            poll = reader.poll(_POLL_RECORDS, 0.1)
            moved = _advance(at, poll)
            told(moved)
            yield poll
            for problem in poll.problems:
                hint = "the log has lost that part, or the topic was made anew; an archive of it may have the rest"
                raise TableStopped(problem.partition.topic, f"{problem.partition}: {problem.why}", hint)
            if reached := {tp for tp in left if at[tp] >= end[tp]}:
                reader.drop(reached)
                left -= reached
            if moved:
                deadline = Deadline(patience_s)
            elif deadline.passed:
                raise stuck(log, work, Position(at), end, patience_s)
    finally:
        reader.close()


def _advance(at: dict[TopicPartition, int], poll: Poll) -> int:
    """Note in *at* how far *poll* came; by how many offsets."""
    before = sum(at.values())
    for topic, chunk in poll.chunks.items():
        for partition, span in chunk.spans.items():
            if (tp := TopicPartition(topic, partition)) in at:
                at[tp] = max(at[tp], next_offset(chunk.offsets[span.last]))
    for tp, offset in poll.ends:
        if tp in at:
            at[tp] = max(at[tp], offset)
    return sum(at.values()) - before


def stuck(log: Log, work: str, read: Position, end: Position, patience_s: float) -> NotFreshEnough:
    """Why *log* is not read on from *read* to *end*, as far as it can be found out. LogUnavailable."""
    behind = read.behind(end)
    first = min(behind)
    lacking = f"{sum(behind.values())} offsets lack, {first} is read to {read.get(first, 0)} of {end[first]}"
    hanging = log.open_transactions(list(behind), 1.0)
    hint = "Kafka ends a transaction whose producer is gone, within seconds mostly: try again, or wait longer"
    return NotFreshEnough(work, patience_s, "; ".join([lacking, *map(str, hanging)]), hint)
