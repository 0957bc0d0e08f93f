"""For any log: what an archive reads as, after an erasure, is what it read as before, less the key's records."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from erase.erased import forget_ada
from erase.people import NAMES, TABLE, People, records_of_ada
from merganser.consumers.chunk import WholeChunk
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.pipeline.erase import keyed
from merganser.schemas.headers import Marks, decode, stands_in
from merganser.schemas.position import Position
from support.memory import MemoryObjects
from support.waiting import wait_for

EVENTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["row", "row", "op", "tx", "delete", "bad", "gap"])), max_size=40
)

Record = tuple[object, ...]


def lived(events: list[tuple[str, str]]) -> People:
    people = People(1, events=0)
    for n, (name, kind) in enumerate(events):
        match kind:
            case "delete":
                people.delete(name)
            case "bad":
                people.bad(name)
            case "gap":
                people.log.gap(*people.place(name))
            case "tx":
                people.write(name, n, Marks(f"tx-{n}", {people.place(name): 1}))
            case _:
                people.write(name, n, Marks(ops=(f"op-{n % 3}",)) if kind == "op" else None)
    people.delete("ada")
    return people


def read(archive: Archive, people: People) -> list[Record]:
    """Every fact of every record, those of our headers among them."""
    log, places = archive.log(), [tp for tp in people.log.partitions if tp.topic == TABLE]
    reader, found, ends = log.reader("g", WholeChunk), [], set()
    reader.assign(Position(dict.fromkeys(places, 0)))

    def done() -> bool:
        poll = reader.poll(50, 0.1)
        for chunk in poll.chunks.values():
            facts = (getattr(chunk, fact) for fact in WholeChunk.facts if fact != "all_headers")
            found.extend(zip(*facts, map(tuple, (each or () for each in chunk.all_headers)), strict=True))
        ends.update(end.partition for end in poll.ends)
        return ends >= set(places)

    wait_for("all records", done, every_s=0)
    return sorted(found, key=lambda record: record[:2])


@settings(max_examples=15, deadline=None)
@given(EVENTS, st.integers(1, 9))
def test_the_rest_reads_as_before(events: list[tuple[str, str]], rows: int) -> None:
    people, objects = lived(events), MemoryObjects()
    archive, ends = Archive(objects), people.log.ends(list(people.log.partitions))
    with Archiver(people.log, archive, [TABLE], limits=SegmentLimits(rows, age_s=60), until=ends) as archiver:
        archiver.wait(ends.of({TABLE}), 30)
    before = read(archive, people)
    forget_ada(Archive(objects))
    assert not check(Archive(objects)).findings
    hers = {record.at[1:]: record for record in records_of_ada(people.log)}
    after = read(Archive(objects), people)
    left = [record for record in after if not stands_in(record[-1])]  # type: ignore[arg-type]
    assert left == [record for record in before if record[:2] not in hers]
    stand_ins = {record[:2]: record for record in after if stands_in(record[-1])}  # type: ignore[arg-type]
    assert stand_ins.keys() == {at for at, record in hers.items() if record.marks}
    for at, record in stand_ins.items():
        said, had = decode(record[-1]), decode(hers[at].marks)  # type: ignore[arg-type]
        assert record[2:4] == (None, None) and record[4] == hers[at].time_ms
        assert said is not None and had is not None
        assert (said.tx, said.manifest, said.ops) == (had.tx, had.manifest, had.ops)


def test_however_many_keys_there_are_hers_is_known_again(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "_REMEMBERED", 1)
    people, objects = People(1, events=0).lived(30), MemoryObjects()
    archive, ends = Archive(objects), people.log.ends(list(people.log.partitions))
    with Archiver(people.log, archive, [TABLE], limits=SegmentLimits(2, age_s=60), until=ends) as archiver:
        archiver.wait(ends.of({TABLE}), 30)
    assert forget_ada(Archive(objects)).records == len(records_of_ada(people.log)) > 5
