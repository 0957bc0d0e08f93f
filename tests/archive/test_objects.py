"""``create`` is what the archive's exactness rests on: whole or not at all, and once."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.objects import LocalObjects, open_objects
from merganser.schemas.errors import ArchiveUnavailable, UsageError, WrongArchive
from support.naive import both_ways, caught

LOOKED = threading.Barrier(8)


def overwrite(self: LocalObjects, name: str, data: bytes) -> bool:
    """Naive: look whether it is there, then write. All look before the first writes, as chance has it elsewhere."""
    if self.read(name) is not None:
        return self.read(name) == data
    LOOKED.wait(20)
    self.put(name, data)
    return True


@both_ways
def test_of_many_who_create_one_name_one_succeeds(tmp_path: Path, naive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if naive:
        monkeypatch.setattr(LocalObjects, "create", overwrite)
    place = LocalObjects(tmp_path)
    with caught(naive), ThreadPoolExecutor(8) as pool:
        for n in range(60):
            made = list(pool.map(lambda who, n=n: place.create(f"{n}.json", b"%d" % who), range(8)))
            assert made.count(True) == 1 and place.read(f"{n}.json") == b"%d" % made.index(True)


def test_create_put_read_list_delete(tmp_path: Path) -> None:
    place = open_objects(str(tmp_path / "a b"))
    assert place.url.endswith("a%20b") and open_objects(place.url).url == place.url
    assert place.read("x/y.json") is None and list(place.list("x")) == []
    assert place.create("x/y.json", b"1") and place.create("x/y.json", b"1") and not place.create("x/y.json", b"2")
    place.put("x/z/1.json", b"22")
    assert place.read("x/y.json") == b"1" and place.read("x/y.json/none") is None
    assert sorted((f.name, f.size) for f in place.list("")) == [("x/y.json", 1), ("x/z/1.json", 2)]
    assert [f.name for f in place.list("x", after="x/y.json")] == ["x/z/1.json"]
    place.delete("x/y.json")
    place.delete("x/y.json")
    assert [f.name for f in place.list("x")] == ["x/z/1.json"]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expiry that saw no backup would take all files for nobody's, and a restore for none that was made."""
    place, scandir = LocalObjects(tmp_path), os.scandir
    place.create("backups/1/manifest.json", b"1")
    place.create("files/1.parquet", b"1")

    def refused(folder: str) -> object:
        if str(folder).endswith("backups"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    assert [found.name for found in place.list("files")] == ["files/1.parquet"]
    assert list(place.list("none")) == []
    for folder in ("backups", ""):
        with pytest.raises(ArchiveUnavailable, match="Permission denied"):
            list(place.list(folder))


def test_a_folder_that_lies_elsewhere_is_a_part_of_it(tmp_path: Path) -> None:
    """Moved to a larger disk, and linked: what is read by name is in the list too."""
    place = LocalObjects(tmp_path / "archive")
    place.create("log/a/1.json", b"1")
    (tmp_path / "archive" / "log").rename(tmp_path / "disk")
    (tmp_path / "archive" / "log").symlink_to(tmp_path / "disk")
    assert place.read("log/a/1.json") == b"1"
    assert [found.name for found in place.list("")] == ["log/a/1.json"] == [f.name for f in place.list("log")]


def test_files_and_their_folders_are_on_the_disk_before_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    LocalObjects(tmp_path).create("a/b/c.json", b"1")
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")} <= set(synced)
    assert any(Path(name).parent == tmp_path / "a/b" and name.endswith(".part") for name in synced)
    assert synced[-1] == str(tmp_path / "a/b"), "the folder comes last: it has the name then"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = LocalObjects(tmp_path)
    place.create("a/1.json", b"1")
    monkeypatch.setattr(os, "fsync", full)
    for write in (place.create, place.put):
        with pytest.raises(ArchiveUnavailable, match="No space left"):
            write("a/2.json", b"2")
    assert [f.name for f in place.list("")] == ["a/1.json"]


@pytest.mark.parametrize("url", ["", "  ", "file://host/x", "nonsense://x/y", "s3://"])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(UsageError, match=r"no (archive URL|store of objects)"):
        open_objects(url)


def test_a_store_that_replaces_what_it_should_create_is_refused(tmp_path: Path) -> None:
    class Replaces(LocalObjects):
        def create(self, name: str, data: bytes) -> bool:
            self.put(name, data)
            return True

    with pytest.raises(WrongArchive, match="created twice"):
        Archive(Replaces(tmp_path)).claim("cluster")
    assert list(LocalObjects(tmp_path).list("")) == []


def test_an_archive_is_of_one_cluster(tmp_path: Path) -> None:
    Archive(tmp_path).claim("one")
    Archive(tmp_path).claim("one")
    with pytest.raises(WrongArchive, match="cluster one, this is cluster two"):
        Archive(tmp_path).claim("two")
