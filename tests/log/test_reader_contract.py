"""One contract for every Reader (consumers/log.py): the scripted log's, Kafka's, the archive's, and of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from log_scripts import Script, at
from log_scripts import script as made

from merganser.consumers.log import Reader
from merganser.schemas.position import Position, TopicPartition
from support.waiting import wait_for


@pytest.fixture(params=["fake", "kafka", "archive", "bridged"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Script]:
    with made(request.param, lambda: request.getfixturevalue("broker"), tmp_path) as script:
        yield script


@dataclass
class Told:
    """What a reader brought: each partition's (offset, value), the last end told of it, the problems."""

    records: dict[int, list[tuple[int, bytes | None]]]
    ends: dict[TopicPartition, int]
    problems: list[TopicPartition]


def read_to(reader: Reader, end: Position) -> Told:
    told = Told({0: [], 1: []}, {}, [])

    def done() -> bool:
        poll = reader.poll(3, 0.2)
        for chunk in poll.chunks.values():
            for partition, offset, value in zip(chunk.partitions, chunk.offsets, chunk.values, strict=True):
                told.records[partition].append((offset, value))
        told.ends.update(poll.ends)
        told.problems += [problem.partition for problem in poll.problems]
        return bool(told.problems) or all(told.ends.get(tp, 0) >= n for tp, n in end.items())

    wait_for(f"the reader at {end}", done, every_s=0)
    return told


def test_a_partition_comes_in_order_each_record_once_and_committed_ones_only(script: Script) -> None:
    script.write(0, [b"a", b"b"], True)
    script.write(1, [b"x"], True)
    script.write(0, [b"lost"] * 3, False)
    script.write(0, [b"c"], True)
    zero, one = at(script, 0), at(script, 1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0, one: 0}))
    of = read_to(reader, script.log.ends([zero, one])).records
    assert [value for _, value in of[0]] == [b"a", b"b", b"c"] and [value for _, value in of[1]] == [b"x"]
    assert [offset for offset, _ in of[0]] == sorted({offset for offset, _ in of[0]})
    reader.close()


def test_a_paused_partition_waits_and_loses_nothing(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    script.write(1, [b"x", b"y"], True)
    zero, one = at(script, 0), at(script, 1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0, one: 0}))
    reader.pause([zero])
    told = read_to(reader, script.log.ends([one]))
    assert [value for _, value in told.records[1]] == [b"x", b"y"] and told.records[0] == []
    reader.pause([one])
    script.write(1, [b"z"], True)
    told = read_to(reader, script.log.ends([zero]))
    assert [value for _, value in told.records[0]] == [b"a", b"b", b"c"] and told.records[1] == []
    reader.pause([])
    assert [value for _, value in read_to(reader, script.log.ends([one])).records[1]] == [b"z"]
    reader.close()


def test_a_tail_without_records_still_ends_where_the_log_does(script: Script) -> None:
    script.write(0, [b"a"], True)
    script.write(0, [b"lost"] * 4, False)
    zero = at(script, 0)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    told = read_to(reader, script.log.ends([zero]))
    assert told.ends[zero] == script.log.ends([zero])[zero] > 2
    reader.close()


def test_reading_begins_where_it_was_assigned_and_stops_where_it_was_dropped(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    script.write(1, [b"x"], True)
    zero, one = at(script, 0), at(script, 1)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 2, one: 0}))
    reader.drop([one])
    told = read_to(reader, script.log.ends([zero]))
    assert told.records == {0: [(2, b"c")], 1: []}
    reader.close()


def test_what_is_no_longer_there_is_a_problem_and_not_a_jump(script: Script) -> None:
    script.write(0, [b"a", b"b", b"c"], True)
    zero = at(script, 0)
    script.trim(0, 2)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    told = read_to(reader, Position({zero: 10**9}))
    assert told.records == {0: [], 1: []} and told.problems == [zero]
    reader.close()


def test_a_poll_takes_what_is_there_without_waiting_for_more(script: Script) -> None:
    script.write(0, [b"%d" % n for n in range(1500)], True)
    zero = at(script, 0)
    reader = script.log.reader("contract")
    reader.assign(Position({zero: 0}))
    sizes: list[int] = []

    def done() -> bool:
        sizes.append(sum(map(len, reader.poll(1000, 0.2).chunks.values())))
        return sum(sizes) == 1500

    wait_for("all records", done, every_s=0.1)
    assert max(sizes) > 500
    reader.close()
