"""Files in object stores: read and written as streams, never as a whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from ...schemas.errors import BadInput, MerganserError, UsageError
from ..remote import one_line, open_store

_PART = 8 * 2**20


def download(url: str, into: IO[bytes]) -> None:
    """Copy the object at *url*. BadInput."""
    import obstore

    folder, name = _split(url)
    with _named(url):
        try:
            for part in obstore.get(open_store(folder), name).stream(min_chunk_size=_PART):
                into.write(part)
        except FileNotFoundError as error:
            raise BadInput(url, "no such object", "check the URL and the credentials (AWS_* and the like)") from error


def upload(path: Path, url: str) -> None:
    """Copy the file *path* to *url*, which is there whole or not at all."""
    import obstore

    folder, name = _split(url)
    with _named(url), path.open("rb") as source:
        obstore.put(open_store(folder), name, source, chunk_size=_PART)


def listed(folder: str) -> list[str]:
    """The names of all objects below the URL *folder*, relative to it."""
    import obstore

    with _named(folder):
        return [meta["path"] for page in obstore.list(open_store(folder)) for meta in page]


def exists(url: str) -> bool:
    """True if there is an object at *url*."""
    import obstore

    folder, name = _split(url)
    with _named(url):
        try:
            obstore.head(open_store(folder), name)
        except FileNotFoundError:
            return False
    return True


def remove(url: str) -> None:
    """Have no object at *url*."""
    import obstore

    folder, name = _split(url)
    with _named(url), suppress(FileNotFoundError):
        obstore.delete(open_store(folder), name)


def path_of(url: str) -> str:
    """The path in *url*, after its host or bucket, as it is written: ``?`` and ``#`` may be in an object's name."""
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https"):
        return urlsplit(url).path
    return rest.partition("/")[1] + rest.partition("/")[2]


def _split(url: str) -> tuple[str, str]:
    """The URL of the folder, and the name in it."""
    path = path_of(url)
    folder, _, name = path.rpartition("/")
    if not name:
        raise UsageError(f"{url!r} names no object")
    if url.startswith(("http://", "https://")):
        return urlunsplit(urlsplit(url)._replace(path=folder or "/")), name
    place = (folder or "/").replace("#", "%23").replace("?", "%3F")
    return url.removesuffix(path) + place, name


@contextmanager
def _named(url: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        failed = MerganserError(f"{url}: {one_line(error)}")
        failed.hint = "check the URL, the credentials (AWS_* and the like) and the network"
        raise failed from error
