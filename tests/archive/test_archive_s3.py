"""The archive on a real S3 API server: marked slow, since the server is built from source at first."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from archives import PLACES, SMALL, copy, extend, files, history, records, tampering

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.archiver import Archiver
from merganser.pipeline.archive.check import check, sweep
from merganser.pipeline.archive.objects import RemoteObjects, open_objects
from merganser.pipeline.archive.segments import SegmentLimits
from merganser.schemas.errors import ArchiveUnavailable
from support.s3 import S3
from support.waiting import wait_for

pytestmark = pytest.mark.slow


def test_objects_are_created_once_whoever_else_tries(s3_url: str) -> None:
    place = open_objects(s3_url)
    assert isinstance(place, RemoteObjects)
    assert place.read("x/y.json") is None and list(place.list("x")) == []
    with ThreadPoolExecutor(8) as pool:
        for n in range(20):
            made = list(pool.map(lambda who, n=n: place.create(f"x/{n:02d}.json", b"%d" % who), range(8)))  # type: ignore[misc]
            assert made.count(True) == 1 and place.read(f"x/{n:02d}.json") == b"%d" % made.index(True)
    place.put("x/00.json", b"other")
    assert place.read("x/00.json") == b"other" and place.create("x/00.json", b"other")
    assert [f.name for f in sorted(place.list("x", after="x/17.json"))] == ["x/18.json", "x/19.json"]
    place.delete("x/18.json")
    place.delete("x/18.json")
    assert place.read("x/18.json") is None


def test_the_server_itself_refuses_a_second_create(s3_url: str) -> None:
    """Without the archive's own care: the store has to do it."""
    import obstore
    from obstore.exceptions import AlreadyExistsError

    place = RemoteObjects(s3_url)
    obstore.put(place._store, "once", b"1", mode="create", use_multipart=False)
    with pytest.raises(AlreadyExistsError):
        obstore.put(place._store, "once", b"2", mode="create", use_multipart=False)
    assert place.read("once") == b"1"


def test_two_archivers_make_one_chain_and_it_reads_back_equal(s3_url: str) -> None:
    log = history(150)
    ends = log.ends(PLACES)
    both = [
        Archiver(log, Archive(s3_url), ["t"], limits=SegmentLimits(records=n, age_s=0.01), until=ends).start()
        for n in (6, 7)
    ]
    for archiver in both:
        archiver.wait(ends, 120)
        archiver.stop()
    archive = Archive(s3_url)
    report = check(archive)
    assert not report.findings and records(archive.log()) == records(log)
    extend(log, 30, random.Random(2))
    copy(log, Archive(s3_url), SMALL)
    assert records(Archive(s3_url).log()) == records(log)
    sweep(archive, report)
    assert not [note for note in check(Archive(s3_url)).notes if note.kind == "leftover"]


def test_damage_is_found_there_too(s3_url: str) -> None:
    copy(history(30), Archive(s3_url), SMALL)
    archive = Archive(s3_url)
    names = files(archive, (".parquet",))
    tampering(archive, names[0], lambda data: data[:-1] + b"x")
    tampering(archive, names[1], lambda data: None)
    found = {(finding.kind, finding.file) for finding in check(Archive(s3_url)).findings}
    assert found == {("changed", names[0]), ("missing", names[1])}


def test_while_the_server_is_away_the_archiver_waits(
    s3_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merganser.pipeline.broker.local import free_ports

    own = S3(tmp_path_factory.mktemp("own-s3"), free_ports(1)[0])
    for name, value in own.env.items():
        monkeypatch.setenv(name, value)
    own.start()
    try:
        log = history(20)
        with Archiver(log, Archive(s3_url), ["t"], limits=SMALL) as archiver:
            archiver.wait(log.ends(PLACES), 120)
            own.stop()
            extend(log, 20, random.Random(2))
            wait_for("it says what it waits for", lambda: "s3://" in (archiver.waiting_for or ""), timeout_s=90)
            own.start()
            archiver.wait(log.ends(PLACES), 90)
        assert not check(Archive(s3_url)).findings and records(Archive(s3_url).log()) == records(log)
    finally:
        own.stop()


def test_wrong_credentials_are_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ArchiveUnavailable) as caught:
        Archive(s3_url).claim("cluster")
    assert "AWS_*" in caught.value.hint and "\n" not in str(caught.value)
