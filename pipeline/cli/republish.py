"""``merganser archive republish``: a new log, made of what an archive holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    Base,
    Execute,
    KeyFile,
    RegistryUrl,
    Servers,
    SomeTables,
    TheArchive,
    Timeout,
    To,
    comma_separated,
    open_log,
    option,
)
from .output import count, emit, emit_json, emit_table, number, say

if TYPE_CHECKING:
    from ..republish.republish import Table

Scratch = Annotated[
    Path | None, option("--scratch", "Folder for the store that rows are resolved in.", file_okay=False)
]


def register(app: typer.Typer) -> None:
    app.command()(republish)


def republish(
    archive: TheArchive,
    to: To = "latest",
    tables: SomeTables = None,
    base: Base = None,
    execute: Execute = False,
    scratch: Scratch = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Make a new log of an archive, on a new cluster.

    Tables, schemas, and a record for each row. Says what it would do, unless --execute. Killed in the middle, run
    it again. Tables show once all of them are whole.
    """
    from ..archive.archive import open_archive
    from ..broker.home import merganser_home
    from ..republish.republish import Republisher
    from ..restore.sources import Wish
    from .bars import Bars

    place, folder = open_archive(archive, key_file), scratch or merganser_home() / "republish"
    with open_log(bootstrap_servers, registry, timeout) as log, Bars() as bars:
        republisher = Republisher(place, log, folder, watch=bars)
        plan = republisher.plan(Wish(to, tuple(comma_separated(tables)), base))
        done = republisher.run(plan) if execute else None
    if json:
        emit_json({**plan.fields(), "executed": execute, "republished": [table.fields() for table in done or ()]})
    elif done is None:
        emit("\n".join(plan.lines()))
        say("nothing was done: --execute does it")
    else:
        _show(done)


def _show(done: Sequence[Table]) -> None:
    names = ["table", "rows", "written", "columns_digest", "quarantined", "rejected", "operations_forgotten"]
    counts = names[1:3] + names[4:]
    rows = ([number(v) if name in counts else v for name in names for v in [table.fields()[name]]] for table in done)
    emit_table(names, rows, numeric=counts)
    for table in done:
        for held in table.left_out.held:
            whose = f"of transaction {held.tx}, which is not whole in the archive" if held.tx else "behind one of those"
            say(f"note: {table.name}: {count(held.records, 'record')} {whose}: not published")
