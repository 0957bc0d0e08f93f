"""How far a new topic is, read back: the first of the expected records, and nothing else, or it is refused."""

from __future__ import annotations

import pytest

from archive.archives import table
from merganser.pipeline.republish.standing import standing
from merganser.schemas.errors import NotRepublishable
from merganser.schemas.headers import Origin
from merganser.schemas.position import TopicPartition
from support.fakelog import FakeLog, FakeRecord

PLACES = [TopicPartition("t", 0), TopicPartition("t", 1)]
Header = tuple[str, bytes]


def header(tp: TopicPartition, offset: int, cluster: str = "old") -> Header:
    return Origin(cluster, "old-id", tp, offset).header


#: Of each partition, rows at these offsets of the old log.
EXPECTED = {PLACES[0]: [0, 3, 4, 9], PLACES[1]: [2, 5]}


def new_log(records: dict[TopicPartition, list[list[Header] | None]], seed: int = 1) -> FakeLog:
    """A log with these headers on its records; None is a gap, as a transaction's marker."""
    log = FakeLog(seed)
    log.add(table())
    for tp, headers in records.items():
        for mine in headers:
            offset = len(log.partitions[tp])
            found = None if mine is None else FakeRecord((*tp, offset), b"k", b"v", 0, tuple(mine))
            log.partitions[tp].append(found)
    return log


def found_in(log: FakeLog) -> dict[TopicPartition, int]:
    told: list[int] = []
    expected = {tp: iter([header(tp, offset) for offset in offsets]) for tp, offsets in EXPECTED.items()}
    found = standing(log, expected, told.append)  # type: ignore[arg-type]
    assert sum(told) == sum(found.values())
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("counts", [(0, 0), (1, 2), (4, 0), (4, 2)])
def test_it_tells_how_many_of_the_rows_are_there(counts: tuple[int, int], seed: int) -> None:
    there = dict(zip(PLACES, counts, strict=True))
    records = {
        tp: [each for offset in EXPECTED[tp][:count] for each in ([header(tp, offset)], None)]
        for tp, count in there.items()
    }
    assert found_in(new_log(records, seed)) == there  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([[]], "offset 0 that somebody else has written"),
        ([[("merganser-op", b"x")]], "somebody else has written"),
        ([[header(PLACES[0], 3)]], "comes from old old-id t/0@3, not from old old-id t/0@0"),
        ([[header(PLACES[0], 0)], [header(PLACES[0], 0)]], "offset 1 that comes from"),
        ([[header(PLACES[0], 0)], [header(PLACES[0], 4)]], "t/0@4, not from .*t/0@3"),
        ([[header(PLACES[0], 0, "another")]], "comes from another"),
        ([[header(PLACES[0], 0), header(PLACES[0], 0)]], "comes from"),
        ([[header(PLACES[0], n)] for n in (0, 3, 4, 9, 11)], "offset 4 that comes after all rows"),
    ],
)
def test_any_other_record_is_refused(headers: list[list[Header] | None], why: str) -> None:
    with pytest.raises(NotRepublishable, match=why):
        found_in(new_log({PLACES[0]: headers}))


def test_a_topic_that_has_lost_records_is_refused() -> None:
    log = new_log({PLACES[0]: [[header(PLACES[0], 0)], [header(PLACES[0], 3)]]})
    log.trim("t", 0, 1)
    with pytest.raises(NotRepublishable, match="begins at offset 1"):
        found_in(log)
