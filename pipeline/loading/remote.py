"""Files in object stores: read and written as streams, never as a whole in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ...schemas.errors import BadInput, MerganserError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Where S3 clients look for another endpoint than Amazon's.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

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


def open_store(url: str) -> ObjectStore:
    """The object store at *url*: ``s3://``, ``gs://``, ``az://`` … Credentials come from the usual variables."""
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    plain = urlsplit(endpoint).scheme == "http" and urlsplit(endpoint).hostname in _LOOPBACK
    retry = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
    client = {"timeout": "60s", "connect_timeout": "10s", **({"allow_http": True} if plain else {})}
    config = {"endpoint": endpoint} if endpoint and url.startswith("s3") else {}
    try:
        # The stubs list each store's settings; which store it is, the URL says.
        store: ObjectStore = from_url(url, client_options=client, retry_config=retry, **config)  # type: ignore[call-overload]
        return store
    except (BaseError, ValueError, TypeError) as error:
        raise UsageError(f"no object store's URL: {url!r}: {_one_line(error)}") from error


def _split(url: str) -> tuple[str, str]:
    """The URL of the folder, and the name in it."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    if not name:
        raise UsageError(f"{url!r} names no object")
    return urlunsplit(parts._replace(path=folder or "/")), name


@contextmanager
def _named(url: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        failed = MerganserError(f"{url}: {_one_line(error)}")
        failed.hint = "check the URL, the credentials (AWS_* and the like) and the network"
        raise failed from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).partition("Debug source:")[0].split())[:300] or type(error).__name__
