"""What a new log says of the files that are in it: pure, so in all cases; and the archive that carries the ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.sources import ledger_table
from merganser.pipeline.loading.ledger import LEDGER, Entry, plan
from merganser.pipeline.republish.imports import Renewed, archived_entries, carried
from merganser.schemas.errors import LoadedOtherwise
from merganser.schemas.kafka import TopicFacts
from merganser.schemas.position import Position, TopicPartition
from support.fakelog import FakeLog

FIRST = Entry("t", "old", "a" * 64, 1, {"null": ""}, 7, "f.csv", chunks=1, rows=10, taken=10, until="t/0:10,t/1:5")
SECOND = replace(FIRST, chunks=2, rows=20, taken=20, until="t/0:20,t/1:9")
DONE = replace(FIRST, chunks=3, rows=25, taken=25, done=True, until="t/0:22,t/1:14")


def renewed(at: str, keyed: bool = False, applied: str | None = None) -> dict[str, Renewed]:
    target = Position.parse(at)
    read = target if applied is None else Position.parse(applied)
    return {"t": Renewed("old", "new", keyed, read, target, Position.parse("t/0:3,t/1:4"))}


def told(found: list[Entry]) -> list[tuple[int, bool, bool]]:
    assert all((e.topic_id, e.until, e.sha256) == ("new", "t/0:3,t/1:4", FIRST.sha256) for e in found)
    return [(entry.rows, entry.done, entry.doubt) for entry in found]


@pytest.mark.parametrize(
    ("at", "append", "keyed"),
    [
        ("t/0:22,t/1:14", [(25, True, False)], [(25, True, False)]),  # all of it
        ("t/0:40,t/1:14", [(25, True, False)], [(25, True, False)]),  # and rows of others
        ("t/0:22,t/1:13", [(20, False, True)], [(20, False, False)]),  # a part of the last chunk
        ("t/0:20,t/1:9", [(20, False, False)], [(20, False, False)]),  # just two chunks
        ("t/0:10,t/1:5", [(10, False, False)], [(10, False, False)]),
        ("t/0:9,t/1:5", [(0, False, True)], []),  # a part of the first
    ],
)
def test_an_import_is_what_is_there_of_it(at: str, append: list[object], keyed: list[object]) -> None:
    history = [FIRST, SECOND, DONE]
    assert told(carried(history, renewed(at))) == append
    assert told(carried(history, renewed(at, keyed=True))) == keyed


def test_a_row_that_is_held_back_is_not_there() -> None:
    at = "t/0:22,t/1:14"
    assert told(carried([FIRST, SECOND, DONE], renewed(at, applied="t/0:22,t/1:12"))) == [(20, False, True)]


def test_imports_of_other_tables_and_topics_are_left_out() -> None:
    others = [replace(DONE, table="u"), replace(DONE, topic_id="older")]
    assert carried([*others, DONE], renewed("t/0:22,t/1:14")) == carried([DONE], renewed("t/0:22,t/1:14"))
    assert carried(others, renewed("t/0:22,t/1:14")) == []


def test_one_of_an_older_version_that_tells_no_place_is_in_doubt() -> None:
    old = Entry.parse(replace(DONE, until="").value.replace(b'"format":2', b'"format":1'), 0)
    assert told(carried([old], renewed("t/0:99,t/1:99"))) == [(0, False, True)]


def test_a_file_in_doubt_is_refused_until_it_is_asked_for_again() -> None:
    [doubtful] = carried([FIRST, DONE], renewed("t/0:22,t/1:13"))
    wanted = replace(FIRST, topic_id="new", chunks=0, rows=0, taken=0, until="")
    with pytest.raises(LoadedOtherwise, match="its log was lost"):
        plan([doubtful], wanted, again=False)
    assert plan([doubtful], wanted, again=True) == replace(wanted, generation=2)
    [twice] = carried([replace(doubtful, topic_id="old")], renewed("t/0:99,t/1:99"))
    assert twice.doubt, "it stays so when that log is lost too"


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=6), st.integers(0, 60))
def test_no_row_is_there_twice_and_none_is_missing(steps: list[tuple[int, int]], cut: int) -> None:
    """Chunks with rows of others between them, in one partition, cut anywhere; then the file is imported again."""
    log: list[int | None] = []  # rows of the file by number, None: another's
    history, taken = [], 0
    for rows, others in steps:
        log += [None] * others + list(range(taken, taken + rows))
        taken += rows
        history.append(replace(FIRST, chunks=len(history) + 1, rows=taken, taken=taken, until=f"t/0:{len(log)}"))
    history[-1] = replace(history[-1], done=True)
    cut = min(cut, len(log))
    at = Position({TopicPartition("t", 0): cut})
    there = [row for row in log[:cut] if row is not None]
    found = carried(history, {"t": Renewed("old", "new", False, at, at, at)})
    wanted = replace(FIRST, topic_id="new", chunks=0, rows=0, taken=0, until="")
    try:
        begun = plan(found, wanted, again=False)
    except LoadedOtherwise:
        ends = [0, *(Position.parse(entry.until)[TopicPartition("t", 0)] for entry in history)]
        assert cut not in ends, "the cut lies between two chunks"
        return
    added = [] if begun.done else list(range(begun.taken, taken))
    assert there + added == list(range(taken))


def test_the_archive_carries_the_ledger_whichever_tables_it_is_of(tmp_path: Path) -> None:
    from archive.archives import PLACES, history

    log: FakeLog = history(30)
    facts = TopicFacts(LEDGER, "ledger-id", 1, log.settings)
    log.add(ledger_table(facts))
    for entry in (FIRST, SECOND, DONE):
        log.put(LEDGER, 0, entry.key, entry.value)
    ends = log.ends([*PLACES, TopicPartition(LEDGER, 0)])
    archive = Archive(tmp_path)
    with Archiver(log, archive, ["t"], until=ends) as archiver:
        archiver.wait(ends, 120)
    assert archive.topics() == ["t"] and [table.name for table in archive.log().tables()] == ["t"]
    assert archived_entries(archive.log()) == [FIRST, SECOND, DONE]
    assert not check(archive).findings
    assert archived_entries(Archive(tmp_path / "none").log()) == []
