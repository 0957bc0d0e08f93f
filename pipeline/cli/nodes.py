"""Asking a node: the options that say where it is and who asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ...schemas.errors import UsageError
from .options import comma_separated, option

if TYPE_CHECKING:
    from ..serving.client.client import Client

Url = Annotated[
    str | None, option("--url", "A node's address, http://HOST:PORT; several, comma-separated: the first that answers.")
]
UserName = Annotated[
    str | None, option("--user", "Who asks. The password is in MERGANSER_PASSWORD; or a token in MERGANSER_TOKEN.")
]
Authority = Annotated[
    Path | None, option("--ca", "PEM file of the authority that signed the node's certificate.", dir_okay=False)
]
MaybeStore = Annotated[Path | None, option("--store", "The replica's DuckDB file.", dir_okay=False)]


def open_client(url: str, user: str | None, authority: Path | None) -> Client:
    """A client of the nodes at *url*. UsageError."""
    try:
        from ..serving.client.client import Client
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing: pip install 'merganser[client]'") from error

    token, password = os.environ.get("MERGANSER_TOKEN"), os.environ.get("MERGANSER_PASSWORD")
    if user is not None and password is None:
        raise _without("--user needs a password", "it is read from MERGANSER_PASSWORD")
    if authority is not None and not authority.is_file():
        raise UsageError(f"--ca {authority}: there is no such file")
    auth = (user, password) if user is not None and password is not None else token or None
    return Client(comma_separated(url), auth, ca=authority)


def one_of(store: Path | None, url: str | None) -> None:
    """UsageError unless exactly one of both is said."""
    if (store is None) == (not url):
        raise _without(
            "either --store FILE or --url URL says what to ask",
            "--store for a file that no process has open, --url for a node that runs",
        )


def _without(what: str, hint: str) -> UsageError:
    error = UsageError(what)
    error.hint = hint
    return error
