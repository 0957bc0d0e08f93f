"""What was done to an archive is found, and nothing damaged is read (FAILURES 31)."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from archives import PLACES, SMALL, archived, copy, extend, files, history, records, tampering

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.chain import Head
from merganser.pipeline.archive.check import check, sweep
from merganser.pipeline.archive.log import ArchiveLog
from merganser.pipeline.archive.objects import Objects
from merganser.pipeline.archive.retention import risk
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas import errors


class Memory:
    """An object store in memory: thousands of damaged archives a minute."""

    url = "memory://"

    def __init__(self, held: dict[str, bytes] | None = None) -> None:
        self.held = dict(held or {})

    def create(self, name: str, data: bytes) -> bool:
        return self.held.setdefault(name, data) == data

    def put(self, name: str, data: bytes) -> None:
        self.held[name] = data

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def list(self, folder: str, after: str = "") -> Any:
        from merganser.pipeline.archive.objects import Found

        prefix = folder.rstrip("/") + "/" if folder else ""
        return [Found(n, len(d), 0.0) for n, d in list(self.held.items()) if n.startswith(prefix) and n > after]

    def delete(self, name: str) -> None:
        self.held.pop(name, None)


@pytest.fixture(scope="module")
def small() -> Memory:
    """A small archive: two segments in each partition."""
    store: Objects = Memory()
    copy(history(12), Archive(store), SegmentLimits(records=4, age_s=0.01))
    assert isinstance(store, Memory) and not check(Archive(store)).findings
    return store


def refused(store: Memory, truth: Any) -> None:
    """What is damaged is named by a check; and a reader refuses, or gives what was written."""
    assert check(Archive(store)).findings
    with suppress(errors.ArchiveError, errors.UnknownTable):
        assert records(ArchiveLog(Archive(store))) == truth


def test_every_bit_of_a_small_archive(small: Memory) -> None:
    truth = records(Archive(small).log())
    rng = random.Random(1)
    places = [(name, n) for name, data in small.held.items() for n in range(len(data) * 8)]
    # Here some; `make test-long` flips each.
    chosen = [p for p in places if not p[0].endswith(".parquet")]
    chosen = rng.sample(chosen, 150) + rng.sample([p for p in places if p[0].endswith(".parquet")], 30)
    for name, n in chosen:
        refused(Memory(small.held | {name: flipped(small.held[name], n)}), truth)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_bit_of_a_small_archive_without_exception(small: Memory) -> None:
    for name, data in small.held.items():
        for n in range(len(data) * 8):
            found = check(Archive(Memory(small.held | {name: flipped(data, n)}))).findings
            assert found, (name, n)


def flipped(data: bytes, n: int) -> bytes:
    changed = bytearray(data)
    changed[n // 8] ^= 1 << n % 8
    return bytes(changed)


@pytest.mark.parametrize("count", [150, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_random_cuts_swaps_deletions_and_renames(small: Memory, count: int) -> None:
    truth = records(Archive(small).log())
    rng = random.Random(7)
    for _ in range(count):
        held, names = dict(small.held), sorted(small.held)
        one, other = rng.sample(names, 2)
        what = rng.choice(["cut", "swap", "delete", "rename"])
        if what == "cut":
            held[one] = held[one][: rng.randrange(len(held[one]))]
        elif what == "swap":
            held[one], held[other] = held[other], held[one]
        else:
            data = held.pop(one)
            if what == "rename":
                held[f"{one.rpartition('/')[0]}/{rng.randrange(100)}-{one.rpartition('/')[2]}"] = data
        if held != small.held:
            refused(Memory(held), truth)


@pytest.mark.parametrize(
    ("ending", "nth", "kind"),
    [
        ("archive.json", 0, "missing"),
        ("table.json", 0, "missing"),
        ("000001.json", 0, "missing"),
        ("head.json", 0, "missing"),
        ("0000000000.json", 0, "missing"),
        ("0000000001.json", 0, "missing"),  # the newest: only the head knows of it
        (".parquet", 0, "missing"),
        (".parquet", 3, "missing"),
    ],
)
def test_no_file_can_be_taken_away(small: Memory, ending: str, nth: int, kind: str) -> None:
    archive = Archive(Memory(small.held))
    name = files(archive, (ending,))[nth]
    archive.objects.delete(name)
    found = check(archive).findings
    assert kind in [finding.kind for finding in found] and all(str(f).count("\n") == 0 for f in found)
    refused(Memory(archive.objects.held), records(Archive(small).log()))  # type: ignore[attr-defined]


def test_one_manifest_that_is_wrong_does_not_make_the_others_so(tmp_path: Path) -> None:
    _, archive = archived(tmp_path)
    name = files(archive, ("0000000001.json",))[0]
    tampering(archive, name, lambda data: data[:-2])
    found = check(archive).findings
    assert [(f.kind, f.file) for f in found if f.kind != "missing"] == [("changed", name)] and len(found) <= 2


def test_a_file_that_belongs_to_nothing_is_named(small: Memory) -> None:
    archive = Archive(Memory(small.held | {"log/t/i-d_9/0/notes.txt": b"hello", "backups/x/y.json": b"others'"}))
    assert [(f.kind, f.file) for f in check(archive).findings] == [("unknown", "log/t/i-d_9/0/notes.txt")]


def test_a_quick_check_reads_no_data_and_still_sees_what_is_gone_or_cut(small: Memory) -> None:
    archive = Archive(Memory(small.held))
    name = files(archive, (".parquet",))[0]
    assert check(archive, quick=True).read_bytes == 0 < check(archive).read_bytes
    tampering(archive, name, lambda data: flipped(data, 99))
    assert not check(archive, quick=True).findings and check(archive).findings
    tampering(archive, name, lambda data: data[:-1])
    assert [finding.kind for finding in check(archive, quick=True).findings] == ["changed"]


def test_a_damaged_segment_is_refused_by_name_and_the_others_are_read(tmp_path: Path) -> None:
    _, archive = archived(tmp_path)
    chain = archive.log().chain(PLACES[0])
    assert chain is not None
    bad = chain.links[2]
    tampering(archive, bad.file, lambda data: flipped(data, len(data) * 4))
    reader = ArchiveLog(Archive(tmp_path)).reader("g")
    reader.assign(ArchiveLog(Archive(tmp_path)).starts(PLACES[:1]))
    seen: list[int] = []
    with pytest.raises(errors.ArchiveDamaged, match=bad.file) as caught:
        while True:
            seen += [n for chunk in reader.poll(100, 0.1).chunks.values() for n in chunk.offsets]
    assert "archive check" in caught.value.hint and seen and max(seen) < bad.first


def test_a_head_that_is_missing_is_mended_by_the_next_run(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    for name in files(archive, ("head.json",)):
        archive.objects.delete(name)
    assert {finding.kind for finding in check(archive).findings} == {"missing"}
    extend(log, 10, random.Random(2))
    copy(log, Archive(tmp_path))
    assert not check(archive).findings


def test_a_head_that_lags_is_worth_a_note(tmp_path: Path) -> None:
    _, archive = archived(tmp_path)
    chain = archive.log().chain(PLACES[0])
    assert chain is not None
    archive.objects.put(chain.place.head, Head(0, chain.links[0].hash).encoded())
    report = check(archive)
    assert not report.findings and [note.kind for note in report.notes] == ["behind"]


# -- leftovers -----------------------------------------------------------------------------------


def test_what_a_loser_left_is_swept_only_when_nobody_can_come_to_need_it(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    end = archive.log().ends(PLACES)[PLACES[0]]
    old, pending = f"log/t/i-d_9/0/0-3-{'a' * 16}.parquet", f"log/t/i-d_9/0/{end}-{end + 3}-{'b' * 16}.parquet"
    part, fresh = "log/t/i-d_9/0/.x.parquet.1.part", "log/t/i-d_9/0/.y.parquet.2.part"
    for name in (old, pending, part, fresh):
        archive.objects.put(name, b"x")
    day_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / part, (day_ago, day_ago))
    report = check(archive)
    assert not report.findings and {note.file for note in report.notes} == {old, pending, part, fresh}
    assert sorted(sweep(archive, report)) == sorted([old, part])
    assert {note.file for note in check(archive).notes} == {pending, fresh}
    assert records(archive.log()) == records(log)


# -- retention -----------------------------------------------------------------------------------

DAY = 86_400_000


@pytest.mark.parametrize(
    ("settings", "archived_to", "age_ms", "start", "end", "lost", "told"),
    [
        ({"retention.ms": "-1"}, 50, 9 * DAY, 0, 100, False, None),
        ({"retention.ms": str(7 * DAY)}, 50, 1 * DAY, 0, 100, False, None),
        ({"retention.ms": str(7 * DAY)}, 50, 5 * DAY, 0, 100, False, "retention.ms keeps records for 168.0 h"),
        ({"retention.ms": str(7 * DAY)}, 100, 5 * DAY, 0, 100, False, None),
        ({"retention.bytes": "1000"}, 60, 0, 50, 100, False, "the log has dropped all below 50"),
        ({"retention.bytes": "1000"}, 90, 0, 50, 100, False, None),
        ({"retention.bytes": "1000"}, 40, 0, 50, 100, True, "offsets 40 to 50 are gone"),
        ({"cleanup.policy": "compact", "delete.retention.ms": str(DAY)}, 50, DAY, 0, 100, False, "deletes"),
        ({"cleanup.policy": "compact", "delete.retention.ms": str(DAY)}, 50, DAY // 4, 0, 100, False, None),
    ],
)
def test_retention_is_warned_of_in_time(
    settings: dict[str, str], archived_to: int, age_ms: int, start: int, end: int, lost: bool, told: str | None
) -> None:
    found = risk(PLACES[0], settings, archived_to, 10 * DAY, start, end, 10 * DAY + age_ms)
    assert (found is None) == (told is None)
    if found is not None and told is not None:
        assert told in found.why and found.lost == lost


def test_a_check_with_the_log_at_hand_names_what_is_gone_from_both(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    assert not check(archive, log).findings
    extend(log, 40, random.Random(2))
    end = log.ends(PLACES)[PLACES[0]]
    log.trim("t", 0, end)
    assert [(f.kind, f.file) for f in check(archive, log).findings] == [("retention", "t/0")]
    other = history(5)
    other.cluster_id = "another"
    with pytest.raises(errors.WrongArchive, match="cluster another"):
        check(archive, other)


def test_a_check_while_an_archiver_runs_finds_nothing(tmp_path: Path) -> None:
    from merganser.pipeline.archive.archiver import Archiver

    log, archive = history(400), Archive(tmp_path)
    with Archiver(log, archive, ["t"], limits=SMALL, until=log.ends(PLACES)) as archiver:
        while archiver.position != log.ends(PLACES):
            assert not check(Archive(tmp_path)).findings
