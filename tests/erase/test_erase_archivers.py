"""Archivers and readers that are at work while a key is erased (FAILURES 14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from archive.archives import Gate
from erase.erased import forget_ada
from erase.people import ADA, TABLE, People, records_of_ada, tells_of_ada
from merganser.consumers.chunk import WholeChunk
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check, sweep
from merganser.pipeline.archive.objects import PART
from merganser.pipeline.archive.publisher import Publisher
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.pipeline.erase.chains import Partition
from merganser.schemas.position import Position, TopicPartition
from support.memory import MemoryObjects
from support.naive import both_ways, caught
from support.waiting import wait_for

SMALL = SegmentLimits(records=8, age_s=60)


def without_conditions(seed: int = 5) -> People:
    """Nothing has to be restored to know what was rejected."""
    return People(seed, events=0).lived(40)


def copy(people: People, objects: MemoryObjects) -> None:
    """Archive all that there is."""
    with running(people, objects) as archiver:
        archiver.wait(ends(people), 120)


@contextmanager
def running(
    people: People,
    objects: MemoryObjects,
    on_step: Callable[[str], None] = lambda step: None,
    limits: SegmentLimits = SMALL,
) -> Iterator[Archiver]:
    tables = sorted(people.log.tables)
    with Archiver(people.log, Archive(objects), tables, limits=limits, until=ends(people), on_step=on_step) as archiver:
        yield archiver


def ends(people: People) -> Position:
    return people.log.ends(list(people.log.partitions))


def texts(objects: MemoryObjects) -> set[str]:
    """The objects in which a record of hers is."""
    from erase.erased import cells

    return {name.split()[0] for name, data in cells(objects) if tells_of_ada(data)}


Facts = tuple[int, bytes | None, bytes | None]


def records(log: object, places: list[TopicPartition]) -> dict[TopicPartition, list[Facts]]:
    """Offset, key and value of each record that has a key."""
    reader = log.reader("g", WholeChunk)  # type: ignore[attr-defined]
    reader.assign(Position(dict.fromkeys(places, 0)))
    found: dict[TopicPartition, list[Facts]] = {tp: [] for tp in places}
    told: set[TopicPartition] = set()

    def done() -> bool:
        poll = reader.poll(100, 0.1)
        assert not poll.problems
        for topic, chunk in poll.chunks.items():
            for i, partition in enumerate(chunk.partitions):
                if chunk.keys[i] is not None:
                    facts = (chunk.offsets[i], chunk.keys[i], chunk.values[i])
                    found[TopicPartition(topic, partition)].append(facts)
        told.update(end.partition for end in poll.ends)
        return told >= set(places)

    wait_for("all records", done, every_s=0)
    return found


def the_rest(people: People) -> dict[TopicPartition, list[Facts]]:
    hers = {record.at for record in records_of_ada(people.log)}
    return {
        tp: [(r.offset(), r.key_bytes, r.value_bytes) for r in each if r is not None and r.at not in hers]
        for tp, each in people.log.partitions.items()
    }


def part_of(name: str) -> str:
    """What a local store calls *name* while it is written."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/.{last}.{'0a' * 6}{PART}"


def sound(people: People, objects: MemoryObjects) -> None:
    """One chain, without gap and double, that has all but hers."""
    archive = Archive(objects)
    assert not check(archive).findings
    assert archive.log().ends(list(people.log.partitions)) == ends(people)
    assert records(archive.log(), list(people.log.partitions)) == the_rest(people)
    assert not texts(objects)


# -- zombies -------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("frozen_at", ["encoded", "data-put"])
def test_an_archiver_that_wakes_later_leaves_nothing_of_it(
    frozen_at: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:  # the one that was overtaken leaves its data, and nobody sweeps
        monkeypatch.setattr(Publisher, "_take_back", lambda self, chain, lost: None)
        monkeypatch.setattr(Partition, "_sweep", lambda self: None)
    people, objects = without_conditions(), MemoryObjects()
    gate = Gate(frozen_at, 2)
    with running(people, objects, gate, SegmentLimits(records=5, age_s=60)) as zombie:
        assert gate.reached.wait(120)
        copy(people, objects)
        forget_ada(Archive(objects))
        gate.open.set()
        zombie.wait(ends(people), 120)
    with caught(naive):
        sound(people, objects)


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half-written"])
def test_what_one_leaves_that_is_killed_as_it_wakes_is_a_finding_and_swept(half: bool) -> None:
    people, objects = without_conditions(), MemoryObjects()
    copy(people, objects)
    old = dict(objects.files)
    forget_ada(Archive(objects))
    gone = sorted(name for name in old.keys() - objects.files.keys() if name.endswith(".parquet"))
    left = {part_of(name) if half else name: old[name] for name in gone}
    objects.files |= left
    back = sorted(left)
    archive = Archive(objects)
    report = check(archive)
    assert [(finding.kind, finding.file) for finding in report.findings] == [("leftover", name) for name in back]
    assert sweep(archive, report) == back and not report.findings
    sound(people, objects)


# -- at the same time ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["staged", "published", "replaced"])
def test_an_archiver_publishes_in_the_middle(step: str) -> None:
    people, objects = without_conditions(), MemoryObjects()
    copy(people, objects)
    left = [1]

    def more(name: str) -> None:
        if name == step and left:
            left.pop()
            for n in range(20):
                people.write("kim", n)
                people.write("bob", n)
            copy(people, objects)

    forget_ada(Archive(objects), more)
    assert not left
    sound(people, objects)


def test_one_that_runs_goes_on_and_takes_her_up_if_she_comes_back() -> None:
    people, objects = without_conditions(), MemoryObjects()
    with running(people, objects) as archiver:
        archiver.wait(ends(people), 120)
        forget_ada(Archive(objects))
        sound(people, objects)
        people.write("bob", 1)
        people.write("ada", 2)
        archiver.until(ends(people))
        archiver.wait(ends(people), 120)
    assert not check(Archive(objects)).findings and len(texts(objects)) == 1
    people.delete("ada")
    copy(people, objects)
    forget_ada(Archive(objects))
    sound(people, objects)


def test_an_older_topic_of_that_name_is_erased_too() -> None:
    people, objects = without_conditions(), MemoryObjects()
    people.write("ada", 1)  # nobody can delete that any more
    copy(people, objects)
    people.log.recreate(TABLE)
    people.lived(20)
    copy(people, objects)
    assert len({name.split("/")[2] for name in texts(objects)}) == 2
    forget_ada(Archive(objects))
    sound(people, objects)


@both_ways
def test_a_reader_that_had_begun_comes_to_its_end(naive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if naive:
        monkeypatch.setattr(Archive, "_instead", lambda self, link: None)
    people, objects = without_conditions(), MemoryObjects()
    copy(people, objects)
    log, places = Archive(objects).log(), list(people.log.partitions)
    log.ends(places)  # it knows the chains
    forget_ada(Archive(objects))
    with caught(naive):
        assert records(log, places) == the_rest(people)


def test_a_time_is_where_the_first_record_is_that_is_left() -> None:
    people, objects = without_conditions(), MemoryObjects()
    copy(people, objects)
    forget_ada(Archive(objects))
    left = the_rest(people)
    places, log = list(people.log.partitions), Archive(objects).log()
    base = 1_700_000_000_000  # the script's clock: a millisecond a record
    for n in range(0, 60, 3):
        at = log.at_time(places, base + n)
        for tp in places:
            stand_ins = [o for o in range(n, len(people.log.partitions[tp])) if (tp, o) in standing(objects)]
            later = [offset for offset, _, _ in left[tp] if offset >= n] + stand_ins
            assert at[tp] == min(later, default=ends(people)[tp])


def standing(objects: MemoryObjects) -> set[tuple[TopicPartition, int]]:
    from merganser.pipeline.erase.keyed import TheKey

    archive = Archive(objects)
    below = archive.log()
    key = TheKey(below.table(TABLE), [ADA], below.versions)
    found = set()
    for place in archive.declared(TABLE)[-1].places:
        partition = Partition(archive, archive.chain(place), key)
        partition.look()
        found |= {(place.tp, offset) for offset in partition.stand_ins}
    return found
