"""Object stores by their URLs, through obstore."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..schemas.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Where S3 clients look for another endpoint than Amazon's.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def open_store(url: str) -> ObjectStore:
    """The object store at *url*: ``s3://``, ``gs://``, ``az://`` … Credentials come from the usual variables
    (``AWS_ACCESS_KEY_ID`` …). UsageError."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing: pip install 'merganser[replica]'") from error

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
        known = "a path, file:///path, s3://bucket/prefix, gs://…, az://…"
        raise UsageError(f"no store of objects at {url!r} ({known}): {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """obstore's message, without its picture of the request."""
    return " ".join(str(error).partition("Debug source:")[0].split())[:300] or type(error).__name__
