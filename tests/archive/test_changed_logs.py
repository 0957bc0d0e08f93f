"""The log is not what the archive thinks it is: the table stops by name, or begins a chain of its own."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from archives import PLACES, SMALL, Gate, Listed, archived, copy, extend, files, history, records, sound, table

from merganser.consumers.checks import digest
from merganser.pipeline.archive import publisher as publisher_module
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.chain import Place
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas import errors
from merganser.schemas.position import TopicPartition
from support.naive import both_ways, caught
from support.waiting import wait_for


def test_a_topic_made_anew_begins_a_chain_of_its_own(tmp_path: Path) -> None:
    log, archive = history(30), Archive(tmp_path)
    old = records(log)
    with Archiver(log, archive, ["t"], limits=SMALL) as archiver:
        archiver.wait(log.ends(PLACES), 120)
        log.recreate("t")
        extend(log, 40, random.Random(3))
        archiver._done_at["look"] = 0.0  # now, rather than in some seconds
        wait_for("the new one is archived", lambda: archiver.position == log.ends(PLACES))
    sound(archive, log)
    from merganser.pipeline.archive.log import ArchiveLog

    assert records(ArchiveLog(archive, {"t": "i+d/9"})) == old
    assert [each.facts.topic_id for each in archive.declared("t")] == ["i+d/9", "i+d/9-again"]


def test_nothing_of_a_topic_made_anew_comes_into_the_chain_of_the_old_one(tmp_path: Path) -> None:
    log, archive = history(0), Archive(tmp_path)
    gate = Gate("begun")
    with Archiver(log, archive, ["t"], limits=SMALL, on_step=gate) as archiver:
        log.put("t", 0, None, b"old")
        assert gate.reached.wait(120)
        log.recreate("t")
        log.put("t", 0, None, b"new")
        gate.open.set()
        wait_for("the new one is archived", lambda: archiver.position == log.ends(PLACES))
    assert archive.chain(Place("t", "i+d/9", 0)).links == []
    sound(archive, log)


@both_ways
def test_what_the_log_lost_before_it_was_archived_stops_the_table(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = archived(tmp_path)
    extend(log, 60, random.Random(2))
    end = archive.log().ends(PLACES)[PLACES[0]]
    log.trim("t", 0, end + 5)
    if naive:
        from merganser.pipeline.archive import sources

        monkeypatch.setattr(sources, "next_start", lambda table, tp, stored, starts, *_: starts[tp])
    with caught(naive):
        with pytest.raises(errors.RetentionLost, match=f"t/0 begins at {end + 5}, the store needs {end}"):
            Archiver(log, archive, ["t"])


def test_a_gap_that_is_accepted_is_written_down_and_never_jumped(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    extend(log, 60, random.Random(2))
    end = archive.log().ends(PLACES)[PLACES[0]]
    log.trim("t", 0, end + 5)
    with Archiver(log, archive, ["t"], limits=SMALL, until=log.ends(PLACES), accept_gap=True) as archiver:
        archiver.wait(log.ends(PLACES), 120)
    report = check(archive)
    assert not report.findings and [note.kind for note in report.notes] == ["lost"]
    reader = archive.log().reader("g")
    reader.assign(archive.log().starts(PLACES))
    problems: list[Any] = []
    wait_for("the gap", lambda: bool(problems.extend(reader.poll(100, 0.1).problems) or problems), every_s=0)
    assert problems[0].partition == PLACES[0] and f"offsets {end} to {end + 5}" in problems[0].why


def test_away_too_long_from_a_compacted_topic_deletes_are_not_missed_in_silence(tmp_path: Path) -> None:
    log, archive = history(0), Archive(tmp_path)
    log.add(replace(table(), compacted=True, delete_retention_ms=60_000))
    extend(log, 20, random.Random(1))
    copy(log, archive)
    chain = archive.log().chain(PLACES[0])
    assert chain is not None and archive.caught_up_ms(chain.place) > 0
    extend(log, 20, random.Random(2))
    copy(log, archive)
    archive.refresh(chain)
    long_ago = archive.caught_up_ms(chain.place) - 61_000
    archive.note(chain, long_ago)
    copy(log, archive)  # nothing is new, so nothing can be missed
    assert archive.caught_up_ms(chain.place) > long_ago
    archive.note(chain, long_ago)
    extend(log, 20, random.Random(3))
    with pytest.raises(errors.TombstonesLost) as caught_:
        Archiver(log, archive, ["t"])
    assert "--accept-gap" in caught_.value.hint
    ends = log.ends(PLACES)
    with Archiver(log, archive, ["t"], limits=SMALL, until=ends, accept_gap=True) as archiver:
        archiver.wait(ends, 120)
    report = check(archive)
    assert not report.findings and [note.kind for note in report.notes] == ["lost"]
    assert archive.under(log).starts(PLACES)[PLACES[0]] == 0  # the log has all of it
    reader = archive.log().reader("g")
    reader.assign(archive.log().starts(PLACES))
    problems: list[Any] = []
    wait_for("the gap", lambda: bool(problems.extend(reader.poll(100, 0.1).problems) or problems), every_s=0)
    assert "deletes before" in problems[0].why


def test_trimmed_under_a_running_archiver_the_table_stops_by_name(tmp_path: Path) -> None:
    log, archive = history(20), Archive(tmp_path)
    gate = Gate("begun")
    with Archiver(log, archive, ["t"], limits=SMALL, on_step=gate) as archiver:
        assert gate.reached.wait(120)
        extend(log, 500, random.Random(2))
        for tp in PLACES:
            log.trim(*tp, log.ends(PLACES)[tp] - 1)
        gate.open.set()
        wait_for("it has stopped", lambda: archiver.error is not None)
        assert isinstance(archiver.error, errors.RetentionLost) and "--accept-gap" in archiver.error.hint
    assert not check(archive).findings


@both_ways
def test_another_record_where_the_last_archived_one_was_stops_the_table(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive = archived(tmp_path)
    chain = archive.log().chain(PLACES[0])
    assert chain is not None and chain.tip is not None
    at = chain.tip.last_offset
    was = log.partitions[PLACES[0]][at]
    assert was is not None and chain.tip.last_digest == digest(was.key_bytes, was.value_bytes).hex()
    log.partitions[PLACES[0]][at] = type(was)(was.at, b"other", b"other")
    extend(log, 20, random.Random(2))
    if naive:
        monkeypatch.setattr(publisher_module, "still_there", lambda table, tp, last, record: None)
    with Archiver(log, archive, ["t"], limits=SMALL) as archiver, caught(naive):
        wait_for("it has stopped", lambda: archiver.error is not None, timeout_s=2 if naive else 30)
        assert isinstance(archiver.error, errors.LogTruncated)


def test_a_log_that_ends_before_the_archive_stops_the_table(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    del log.partitions[PLACES[0]][-3:]
    with pytest.raises(errors.LogTruncated):
        Archiver(log, archive, ["t"])


def test_partitions_that_were_added_stop_the_table(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    log.add(table(partitions=3))
    with pytest.raises(errors.PartitionsChanged, match="3 partitions, it was archived with 2"):
        Archiver(log, archive, ["t"])


def test_all_tables_are_archived_those_made_later_too(tmp_path: Path) -> None:
    log, archive = history(20), Archive(tmp_path)
    with Archiver(cast(Any, Listed(log)), archive, None, limits=SMALL) as archiver:
        log.add(table("u", "id-u"))
        log.put("u", 0, None, b"x")
        archiver._done_at["look"] = 0.0
        wait_for("u is archived", lambda: archiver.position.get(TopicPartition("u", 0)) == 1)
    assert archive.topics() == ["t", "u"] and not check(archive).findings


def test_a_deleted_topic_stops_and_the_others_go_on(tmp_path: Path) -> None:
    log, archive = history(20), Archive(tmp_path)
    log.add(table("u", "id-u"))
    with Archiver(log, archive, ["t", "u"], limits=SMALL) as archiver:
        archiver.wait(log.ends(PLACES), 120)
        del log.tables["u"]
        archiver._done_at["look"] = 0.0
        wait_for("u has stopped", lambda: "u" in archiver.stopped)
        extend(log, 20, random.Random(2))
        archiver.wait(log.ends(PLACES), 120)
    sound(archive, log)
    assert files(archive, ("table.json",)) == ["tables/t/i-d_9/table.json", "tables/u/id-u/table.json"]


def test_an_archiver_warns_in_time_before_retention(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, archive = archived(tmp_path)
    log.settings["retention.ms"] = "86400000"  # the scripted records are years old
    waiting = SegmentLimits(age_s=10**6)
    with Archiver(log, archive, ["t"], limits=waiting) as archiver:
        wait_for("it has looked", lambda: archiver._done_at["retention"] > 0)
        assert archiver.risks == [], "all is archived"
        extend(log, 20, random.Random(2))
        for _ in range(2):
            archiver._done_at["retention"] = 0.0
            wait_for("it has looked again", lambda: archiver._done_at["retention"] > 0)
        wait_for("it warns", lambda: len(archiver.risks) == 2)
    told = [record.getMessage() for record in caplog.records if "retention.ms" in record.getMessage()]
    assert len(told) == 2 and "keeps records for 24.0 h" in told[0], "each partition once"
