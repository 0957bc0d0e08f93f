"""``merganser snapshot-file``: a DuckDB file for tools that want one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...schemas.errors import UsageError
from .nodes import Authority, MaybeStore, Url, UserName, one_of, open_client
from .options import DEFAULT_TIMEOUT_S, AsJson, option
from .output import count, emit, emit_json, say

if TYPE_CHECKING:
    from ..serving.jobs.snapshot import Made

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file to make.", dir_okay=False)]
Force = Annotated[bool, option("--force", "Replace the file if it is there.")]
Patience = Annotated[float, option("--timeout", "Seconds until the node begins to send.", min=0.1)]


def register(app: typer.Typer) -> None:
    app.command(name="snapshot-file")(snapshot_file)


def snapshot_file(
    out: Out,
    store: MaybeStore = None,
    url: Url = None,
    user: UserName = None,
    ca: Authority = None,
    force: Force = False,
    timeout: Patience = DEFAULT_TIMEOUT_S * 40,
    json: AsJson = False,
) -> None:
    """Make a plain DuckDB file of all tables at one position.

    For the duckdb shell, dbt, or SQL that nobody checks. Of a node that runs (--url, for operators) or of a store
    at rest (--store). Table _merganser.snapshot says the position. Prints the position.
    """
    one_of(store, url)
    if out.exists() and not force:
        error = UsageError(f"{out} is there already")
        error.hint = "--force replaces it"
        raise error
    if not out.resolve().parent.is_dir():
        raise UsageError(f"the folder of {out} does not exist")
    made = _of_store(store, out) if store is not None else _of_node(str(url), user, ca, out, timeout)
    if json:
        emit_json({"file": str(out), "position": str(made.position), "tables": made.tables})
        return
    emit(str(made.position))
    say(f"{count(len(made.tables), 'table')}, {count(sum(made.tables.values()), 'row')} in {out}")


def _of_store(store: Path, out: Path) -> Made:
    from ...consumers.storefile import StoreFile
    from ..serving.jobs.snapshot import spooled, write_file

    with ExitStack() as stack:
        source = stack.enter_context(StoreFile(store))
        if out.resolve() == source.path:
            raise UsageError("a store is not replaced by a snapshot of itself")
        found = spooled(source, lambda table: True)
        return write_file(stack.enter_context(found.file), out)


def _of_node(url: str, user: str | None, ca: Path | None, out: Path, timeout: float) -> Made:
    from ..serving.jobs.snapshot import write_file

    with open_client(url, user, ca) as client, client.stream("/snapshot", timeout=timeout) as response:
        return write_file(response, out)
