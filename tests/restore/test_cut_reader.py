"""A log that is cut goes on being read, also when all that is waited for lies beyond the cut."""

from __future__ import annotations

from merganser.pipeline.archive.bounded import BoundedLog
from merganser.schemas.position import Position, TopicPartition
from merganser.schemas.table import Table
from stories.world import version
from support.fakelog import FakeLog

P0, P1 = TopicPartition("plain", 0), TopicPartition("plain", 1)


def cut_log() -> BoundedLog:
    log = FakeLog(seed=2)
    log.add(Table("plain", "id-p", 2, (version("plain", 1),)))
    for number in range(20):
        for partition in (0, 1):
            log.put("plain", partition, None, bytes([number]))
    return BoundedLog(log, Position({P0: 3, P1: 15}))


def read(reader: object, polls: int = 200) -> dict[int, int]:
    """How many records of each partition come."""
    found = {0: 0, 1: 0}
    for _ in range(polls):
        for chunk in reader.poll(4, 0).chunks.values():  # type: ignore[attr-defined]
            for partition in chunk.partitions:
                found[partition] += 1
    return found


def test_a_pause_that_leaves_nothing_to_read_is_not_made() -> None:
    """Held back transactions wait for partition 0 alone: what they lack there lies beyond the cut."""
    log = cut_log()
    reader = log.reader("g")
    reader.assign(Position({P0: 0, P1: 0}))
    reader.pause([P1])
    assert read(reader) == {0: 3, 1: 15}


def test_a_pause_is_kept_while_something_else_can_be_read() -> None:
    log = cut_log()
    reader = log.reader("g")
    reader.assign(Position({P0: 0, P1: 0}))
    reader.pause([P0])
    seen = 0
    while seen < 14:
        for chunk in reader.poll(1, 0).chunks.values():
            assert set(chunk.partitions) == {1}
            seen += len(chunk)
