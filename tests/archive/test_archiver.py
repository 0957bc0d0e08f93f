"""Each record is archived once: whoever is killed, frozen, overtaken or told to begin again (FAILURES 14, 31)."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from archives import PLACES, SMALL, Gate, archived, copy, extend, history, sound
from child import start

from merganser.pipeline.archive import archiver as archiver_module
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.bounded import BoundedLog
from merganser.pipeline.archive.chain import Manifest
from merganser.pipeline.archive.check import check
from merganser.pipeline.archive.objects import LocalObjects
from merganser.pipeline.archive.publisher import STEPS, Publisher
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas import errors
from merganser.schemas.position import Position
from merganser.schemas.table import SchemaVersion
from support.fakelog import FakeLog
from support.naive import both_ways, caught
from support.waiting import wait_for


def slow(step: str) -> Any:
    """A process of its own takes a second or two."""
    return pytest.param(step, marks=pytest.mark.slow)


# -- naive variants ------------------------------------------------------------------------------


def overwrite(patch: pytest.MonkeyPatch) -> None:
    """Naive: a manifest is written, whoever wrote one of its number before."""

    def create(self: LocalObjects, name: str, data: bytes) -> bool:
        self.put(name, data)
        return True

    patch.setattr(LocalObjects, "create", create)
    patch.setattr(Archive, "claim", lambda self, cluster_id: create_identity(self, cluster_id))


def create_identity(archive: Archive, cluster_id: str) -> None:
    from merganser.pipeline.archive.archive import IDENTITY
    from merganser.pipeline.archive.sealed import seal

    archive.objects.put(IDENTITY, seal({"format": 1, "cluster_id": cluster_id}))


def manifest_first(patch: pytest.MonkeyPatch) -> None:
    """Naive: the manifest is published, then the data is put."""

    def publish(self: Any, course: Any, segment: Any) -> bool:
        self._step("begun")
        manifest, data = self._encoded(course, segment)
        if not self._archive.publish(course.chain, manifest):
            return False
        self._step("published")
        if data:
            self._archive.objects.create(manifest.file, data)
        self._step("data-put")
        return True

    patch.setattr(Publisher, "publish", publish)


class Killed(BaseException):
    """As if the process were killed here."""


def kill_at(step: str, nth: int) -> Any:
    left = [nth]

    def on_step(name: str) -> None:
        if name == step:
            left[0] -= 1
        if left[0] <= 0:
            raise Killed

    return on_step


def run_until_killed(log: FakeLog, archive: Archive, step: str, nth: int) -> None:
    archiver = Archiver(log, archive, ["t"], limits=SMALL, until=log.ends(PLACES), on_step=kill_at(step, nth)).start()
    wait_for("it is killed", lambda: archiver.error is not None, every_s=0.01)
    archiver.stop()


# -- the promise ---------------------------------------------------------------------------------


def test_all_of_a_log_is_in_the_archive_and_reads_back_equal(tmp_path: Path) -> None:
    log, archive = archived(tmp_path, rows=200)
    sound(archive, log)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 4])
def test_killed_at_any_step_the_next_run_goes_on(tmp_path: Path, step: str, nth: int) -> None:
    log, archive = history(60), Archive(tmp_path)
    run_until_killed(log, archive, step, nth)
    assert not check(Archive(tmp_path)).findings
    extend(log, 20, random.Random(2))
    copy(log, Archive(tmp_path))
    sound(Archive(tmp_path), log)


def test_manifest_first_leaves_a_chain_that_names_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest_first(monkeypatch)
    log, archive = history(60), Archive(tmp_path)
    run_until_killed(log, archive, "published", 2)
    assert [finding.kind for finding in check(archive).findings] == ["missing"]


@pytest.mark.parametrize("step", [each if each == "data-put" else slow(each) for each in STEPS])
def test_a_process_that_is_killed_at_a_step_is_followed_by_one_that_goes_on(tmp_path: Path, step: str) -> None:
    child = start(tmp_path, 60, step, 3, signal.SIGKILL)
    assert child.wait(120) == -signal.SIGKILL
    assert not check(Archive(tmp_path)).findings
    log = history(60)
    copy(log, Archive(tmp_path))
    sound(Archive(tmp_path), log)


@both_ways
@pytest.mark.parametrize("step", STEPS)
def test_one_that_was_frozen_and_is_woken_publishes_nothing_that_another_has(
    tmp_path: Path, step: str, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive and not STEPS.index("begun") < STEPS.index(step) < STEPS.index("published"):
        pytest.skip("there the naive variant does no harm: it looks at the chain after, or has published before")
    if naive:
        overwrite(monkeypatch)
    log = history(60)
    frozen, gate = Archive(tmp_path), Gate(step, 2)
    # Of other sizes, so that its segments are others; closed by their sizes alone, not by how fast this goes.
    limits = [SegmentLimits(records=n, age_s=10**6) for n in (7, 5, 3)]
    zombie = Archiver(log, frozen, ["t"], limits=limits[0], until=log.ends(PLACES), on_step=gate).start()
    assert gate.reached.wait(120)
    copy(log, Archive(tmp_path), limits[1])
    extend(log, 20, random.Random(2))
    copy(log, Archive(tmp_path), limits[2])
    gate.open.set()
    with caught(naive):
        zombie.until(log.ends(PLACES))
        zombie.wait(log.ends(PLACES), 5 if naive else 120)
        zombie.stop()
        sound(Archive(tmp_path), log)
    zombie.stop()


@pytest.mark.parametrize("step", [slow("encoded"), "data-put", slow("published")])
def test_a_process_that_was_frozen_and_is_woken_publishes_nothing_twice(tmp_path: Path, step: str) -> None:
    child = start(tmp_path, 80, step, 2, signal.SIGSTOP)
    try:
        wait_for("it is frozen", lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "T")
        log = history(80)
        copy(log, Archive(tmp_path), SegmentLimits(records=5, age_s=0.01))
        child.send_signal(signal.SIGCONT)
        assert child.wait(120) == 0, child.stderr.read() if child.stderr else ""
    finally:
        child.kill()
        child.wait()
    sound(Archive(tmp_path), log)


def test_two_archivers_of_one_topic_make_one_chain(tmp_path: Path) -> None:
    log = history(200)
    ends = log.ends(PLACES)
    limits = [SegmentLimits(records=n, age_s=0.01) for n in (6, 7)]
    both = [Archiver(log, Archive(tmp_path), ["t"], limits=each, until=ends).start() for each in limits]
    for archiver in both:
        archiver.wait(ends, 120)
        archiver.stop()
    sound(Archive(tmp_path), log)


def test_overtaken_in_the_middle_of_a_poll_it_takes_nothing_that_lies_beyond(tmp_path: Path) -> None:
    log, gate = history(0), Gate("begun")
    for n in range(60):
        log.put("t", 0, None, b"%d" % n)
    log.random.randint = lambda low, high: high  # type: ignore[method-assign]  # all of it in one poll
    limits, ends = SegmentLimits(records=7, age_s=10**6), log.ends(PLACES)
    with Archiver(log, Archive(tmp_path), ["t"], limits=limits, until=ends, on_step=gate) as archiver:
        assert gate.reached.wait(120)
        cut = Position({PLACES[0]: 5})
        with Archiver(cast(Any, BoundedLog(log, cut)), Archive(tmp_path), ["t"], until=cut) as other:
            other.wait(cut, 120)
        gate.open.set()
        archiver.wait(ends, 120)
    sound(Archive(tmp_path), log)


def test_two_processes_of_one_topic_make_one_chain(tmp_path: Path) -> None:
    both = [start(tmp_path, 150, "begun", 10**9, signal.SIGKILL) for _ in range(2)]
    assert [child.wait(120) for child in both] == [0, 0], [c.stderr.read() for c in both if c.stderr]
    sound(Archive(tmp_path), history(150))


def test_a_publish_that_was_not_answered_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unanswered = [True]
    publish = Archive.publish

    def lossy(self: Archive, chain: Any, manifest: Manifest) -> bool:
        published = self.objects.create(manifest.name, manifest.encoded())
        if unanswered:
            unanswered.pop()
            raise errors.ArchiveUnavailable(self.url, "the connection broke")
        assert published
        return publish(self, chain, manifest)

    monkeypatch.setattr(Archive, "publish", lossy)
    log, archive = archived(tmp_path)
    sound(archive, log)


def test_while_the_store_is_away_the_archiver_waits_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, away = LocalObjects.create, threading.Event()
    away.set()

    def failing(self: LocalObjects, name: str, data: bytes) -> bool:
        if away.is_set() and name.endswith(".parquet"):
            raise errors.ArchiveUnavailable(self.url, "503 Slow Down")
        return create(self, name, data)

    monkeypatch.setattr(LocalObjects, "create", failing)
    log, archive = history(60), Archive(tmp_path)
    with Archiver(log, archive, ["t"], limits=SMALL, until=log.ends(PLACES)) as archiver:
        wait_for("it says what it waits for", lambda: "503 Slow Down" in (archiver.waiting_for or ""), every_s=0.01)
        away.clear()
        archiver.wait(log.ends(PLACES), 120)
    sound(archive, log)


# -- segments ------------------------------------------------------------------------------------


def rows_of(archive: Archive) -> list[int]:
    return [link.rows for tp in PLACES for link in (archive.log().chain(tp) or pytest.fail("no chain")).links]


def test_a_segment_is_closed_by_age(tmp_path: Path) -> None:
    log, archive = history(0), Archive(tmp_path)
    with Archiver(log, archive, ["t"], limits=SegmentLimits(age_s=0.05)) as archiver:
        for n in range(3):
            extend(log, 5, random.Random(n))
            archiver.wait(log.ends(PLACES), 120)
    assert len(rows_of(archive)) >= 3


@pytest.mark.parametrize(("limits", "most"), [(SegmentLimits(records=50), 50), (SegmentLimits(bytes=6_000), 150)])
def test_a_segment_is_closed_by_rows_and_bytes(
    tmp_path: Path, limits: SegmentLimits, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "_POLL_RECORDS", 100)  # bytes are looked at after each poll
    log, archive = history(0), Archive(tmp_path)
    for n in range(400):
        log.put("t", 0, None, b"x" * 100 + b"%d" % n)
    copy(log, archive, limits)
    assert sum(rows_of(archive)) == 400 and max(rows_of(archive)) <= most
    sound(archive, log)


def test_open_segments_of_all_partitions_are_bounded_together(tmp_path: Path) -> None:
    log = history(0)
    for n in range(4000):
        log.put("t", n % 2, None, b"x" * 1000)
    limits = SegmentLimits(bytes=2**30, age_s=10**6, total_bytes=1_000_000)
    with Archiver(log, Archive(tmp_path), ["t"], limits=limits) as archiver:
        wait_for("segments were closed", lambda: sum(archiver.position.values()) > 2000)
    sound(Archive(tmp_path), log)


def test_a_tail_without_records_is_archived_too(tmp_path: Path) -> None:
    log = history(10)
    log.gap("t", 0, 7)
    archive = Archive(tmp_path)
    copy(log, archive)
    log.gap("t", 0, 3)
    copy(log, archive)
    sound(archive, log)
    assert (archive.log().chain(PLACES[0]) or pytest.fail("no chain")).links[-1].rows == 0


def test_what_was_collected_is_published_at_a_stop(tmp_path: Path) -> None:
    log, archive = history(50), Archive(tmp_path)
    archiver = Archiver(log, archive, ["t"], limits=SegmentLimits(age_s=10**6)).start()
    wait_for(
        "all is collected",
        lambda: sum(c.open.next for c in archiver._courses.values()) == sum(log.ends(PLACES).values()),
    )
    assert not sum(archiver.position.values())
    archiver.stop()
    sound(archive, log)


# -- schemas -------------------------------------------------------------------------------------


@both_ways
def test_a_schema_is_in_the_archive_before_a_segment_that_needs_it(
    tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, archive, gate = history(10), Archive(tmp_path), Gate("begun")
    before = log.ends(PLACES)

    def newer() -> list[Manifest]:
        """The segments that have records of the second version."""
        chains = [chain for tp in PLACES if (chain := archive.log().chain(tp)) is not None]
        return [link for chain in chains for link in chain.links if link.next > before[chain.place.tp]]

    def killed_at_the_first_that_needs_it(step: str) -> None:
        gate(step)
        if step == "published" and newer():
            raise Killed

    archiver = Archiver(log, archive, ["t"], limits=SMALL, on_step=killed_at_the_first_that_needs_it)
    if naive:
        monkeypatch.setattr(Publisher, "describe", lambda self, topic: None)
    archiver.start()
    assert gate.reached.wait(120)
    wider = {**SCHEMA_2, "fields": [*SCHEMA_2["fields"], {"name": "b", "type": "int", "default": 1}]}
    log.register(SchemaVersion("t-value", 2, 77, wider))
    for n in range(20):
        log.put("t", n % 2, None, b"\0\0\0\0\x4d" + b"%d" % n)
    gate.open.set()
    wait_for("it was killed after it published one", lambda: archiver.error is not None)
    archiver.stop()
    with caught(naive):
        assert {link.versions.get("t-value") for link in newer()} == {2}
        assert [v.id for v in archive.versions("t-value")] == [1, 77]


SCHEMA_2: dict[str, Any] = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}


def test_a_registry_that_says_otherwise_than_the_archive_is_refused(tmp_path: Path) -> None:
    log, archive = archived(tmp_path)
    log.registered["t-value"] = [SchemaVersion("t-value", 1, 9, SCHEMA_2)]
    with pytest.raises(errors.WrongArchive, match="another schema for t-value version 1"):
        Archiver(log, archive, ["t"])
