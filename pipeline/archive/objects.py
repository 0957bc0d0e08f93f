"""Where an archive's files lie: an object store, by its URL.

Invariants
- ``create`` is atomic: a name is there with all of its bytes, or not at all; of several who create one name
  with different bytes, one succeeds. All of the archive's exactness rests on this.
- What ``create`` or ``put`` returned from is durable: local files are fsynced, and so are their folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from ...schemas.errors import ArchiveUnavailable, UsageError
from ..files import sync_folder
from ..remote import one_line, open_store

#: Files under these names are being written, or were when a process died. They are nobody's.
PART = ".part"

_PART = re.compile(rf"\.(.+)\.[0-9a-f]{{12}}{re.escape(PART)}")

#: How often a name is created that is said to be there and is not.
_TRIES = 5


class Found(NamedTuple):
    """One object, as a listing has it."""

    name: str
    size: int
    modified_s: float


def finished(name: str) -> str:
    """What a part, *name* without its folder, was to be called; *name* itself if it is no part."""
    part = _PART.fullmatch(name)
    return name if part is None else part[1]


class Objects(Protocol):
    """Named bytes under one URL. Names have folders: ``log/orders/0.json``. Safe across threads."""

    @property
    def url(self) -> str: ...

    def create(self, name: str, data: bytes) -> bool:
        """Write *name* if it is not there. True if it holds *data* now, whoever wrote that; False if it
        holds something else. ArchiveUnavailable leaves open whether it was written: call again."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write *name*, in place of what it held."""
        ...

    def read(self, name: str) -> bytes | None:
        """All of *name*; None if it is not there."""
        ...

    def list(self, folder: str, after: str = "") -> Iterator[Found]:
        """What is under *folder*, however deep, whose name comes after the name *after*; in no order."""
        ...

    def delete(self, name: str) -> None:
        """Remove *name*; a no-op if it is not there."""
        ...


def open_objects(url: str) -> Objects:
    """The object store at *url*: a path or ``file://`` for local files, or what obstore knows: ``s3://``,
    ``gs://``, ``az://``. Credentials come from the usual variables (``AWS_ACCESS_KEY_ID`` …)."""
    scheme = urlsplit(url).scheme
    if scheme in ("", "file") or len(scheme) == 1:  # one letter is a drive
        path = Path(unquote(urlsplit(url).path) if scheme == "file" else url)
        if not url.strip() or (scheme == "file" and urlsplit(url).netloc):
            raise UsageError(f"no archive URL: {url!r} (a path, file:///path, s3://bucket/prefix, gs://…, az://…)")
        return LocalObjects(path.absolute())
    return RemoteObjects(url)


class LocalObjects:
    """Files under a folder of this machine, or of a mounted one that has hard links."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def create(self, name: str, data: bytes) -> bool:
        path = self._root / name
        with self._named(name):
            part = self._written(path, data)
            try:
                os.link(part, path)  # unlike rename, refuses to replace
                return True
            except FileExistsError:
                return path.read_bytes() == data
            finally:
                part.unlink()
                sync_folder(path.parent)

    def put(self, name: str, data: bytes) -> None:
        path = self._root / name
        with self._named(name):
            self._written(path, data).replace(path)
            sync_folder(path.parent)

    def read(self, name: str) -> bytes | None:
        with self._named(name):
            try:
                return (self._root / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, folder: str, after: str = "") -> Iterator[Found]:
        with self._named(folder):
            for place, _, names in os.walk(self._root / folder, onerror=_unlisted, followlinks=True):
                for each in names:
                    path = Path(place) / each
                    name = path.relative_to(self._root).as_posix()
                    if name > after:
                        try:
                            facts = path.stat()
                        except FileNotFoundError:
                            continue  # a part that was finished meanwhile
                        yield Found(name, facts.st_size, facts.st_mtime)

    def delete(self, name: str) -> None:
        with self._named(name):
            (self._root / name).unlink(missing_ok=True)

    def _written(self, path: Path, data: bytes) -> Path:
        """A part with *data*, on the disk, beside *path*."""
        _make_folder(path.parent)
        part = path.with_name(f".{path.name}.{uuid4().hex[:12]}{PART}")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArchiveUnavailable(self.url, f"{name}: {error.strerror or error}") from error


def _unlisted(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one: to whom it is, all files in others are nobody's."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _make_folder(folder: Path) -> None:
    """Make *folder* and what is missing above it, each known to the folder that holds it for good."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


class RemoteObjects:
    """A bucket, or a part of one, through obstore."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._store = open_store(self.url)

    def create(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        for _ in range(_TRIES):
            with self._named(name):
                try:
                    obstore.put(self._store, name, data, mode="create", use_multipart=False)
                    return True
                except AlreadyExistsError:
                    pass  # of an earlier try of ours, perhaps: obstore repeats what was not answered
            held = self.read(name)
            if held is not None:
                return held == data
            # S3 answers so too when two create one name at the same time, and then neither may have it.
        raise ArchiveUnavailable(self.url, f"{name}: it is said to be there, and cannot be read")

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with self._named(name):
            obstore.put(self._store, name, data, use_multipart=False)

    def read(self, name: str) -> bytes | None:
        import obstore
        from obstore.exceptions import NotFoundError

        with self._named(name):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except (NotFoundError, FileNotFoundError):
                return None

    def list(self, folder: str, after: str = "") -> Iterator[Found]:
        import obstore

        with self._named(folder):
            for page in obstore.list(self._store, folder.rstrip("/") or None, offset=after or None):
                for meta in page:
                    yield Found(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        import obstore
        from obstore.exceptions import NotFoundError

        with self._named(name):
            with suppress(NotFoundError, FileNotFoundError):
                obstore.delete(self._store, name)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise ArchiveUnavailable(self.url, f"{name}: {one_line(error)}") from error
