"""The options that several commands share, so that one name means one thing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...schemas.errors import MerganserError

if TYPE_CHECKING:
    from ..archive.archive import Archive
    from ..log import Log


def option(name: str, help_: str, **more: Any) -> Any:
    """An option that is also an environment variable: ``--key-format`` is ``MERGANSER_KEY_FORMAT``."""
    variable = "MERGANSER_" + name.lstrip("-").replace("-", "_").upper()
    return typer.Option(name, help=help_, envvar=variable, show_envvar=False, **more)


def complete_tables(incomplete: str) -> list[str]:
    """Table names of the log that runs; starts nothing, and says nothing if it cannot know."""
    from ..broker import LocalBroker
    from ..log import connect

    try:
        servers = os.environ.get("MERGANSER_BOOTSTRAP_SERVERS")
        if not servers:
            status = LocalBroker().status()
            servers = status.bootstrap_servers if status.running else None
        if not servers:
            return []
        with connect(servers, timeout_s=2) as log:
            return [table.name for table in log.tables() if table.name.startswith(incomplete)]
    except MerganserError:
        return []


Servers = Annotated[
    str | None,
    option("--bootstrap-servers", "Kafka's address. Without it: the local broker, started if it does not run."),
]
ServersAtHand = Annotated[
    str | None, option("--bootstrap-servers", "Kafka's address. Without it: the local broker, if it runs.")
]
RegistryUrl = Annotated[
    str | None, option("--registry", "URL of a schema registry. Without it: schemas live in the log.")
]
Timeout = Annotated[float, option("--timeout", "Seconds to wait for Kafka.", min=0.1)]
MaybeTimeout = Annotated[float | None, option("--timeout", "Seconds to wait for Kafka (15).", min=0.1)]
UntilEnd = Annotated[bool, option("--until-end", "End once it has all that the log had at the start.")]
Every = Annotated[
    float | None, option("--every", "Seconds between looks at how far it is (1; on a terminal 0.5).", min=0.05)
]
AsJson = Annotated[bool, option("--json", "JSON instead of text.")]
Store = Annotated[Path, option("--store", "The replica's DuckDB file.", dir_okay=False)]
TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A table.", autocompletion=complete_tables)]
ArchiveUrl = Annotated[str | None, option("--archive", "An archive: a folder, s3://bucket/prefix, gs://… or az://….")]
KeyFile = Annotated[
    Path | None, option("--key-file", "File with the key of an encrypted archive (64 hex digits).", dir_okay=False)
]
Execute = Annotated[bool, option("--execute", "Do it. Without this, only say what would be done.")]
SchemaFile = Annotated[Path, option("--schema", "Avro schema of a row: a record, as JSON.")]

TheArchive = Annotated[str, option("--archive", "The archive: a folder, s3://bucket/prefix, gs://… or az://….")]

To = Annotated[str, option("--to", "latest, a position (orders/0:120,orders/1:98), or a time (2026-01-31T12:00:00Z).")]
SomeTables = Annotated[str | None, option("--tables", "Only these tables, comma-separated.")]
Base = Annotated[
    str | None, option("--base", "Id of the backup to begin with, or none. Without it: the newest that fits.")
]
DryRun = Annotated[bool, option("--dry-run", "Say what would be done, and do nothing.")]

KeyFormat = Literal["avro", "string", "int", "long"]
Level = Literal["eventual", "session", "bounded", "strong"]
Format = Literal["table", "json", "csv", "arrow"]

DEFAULT_TIMEOUT_S = 15.0


def comma_separated(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def one_a_line(variable: str, given: list[str] | None) -> list[str] | None:
    """The values of an option that may be repeated. Typer makes one of each word in its *variable*; we
    mean one a line. (No value that is meant has one word only, or the two could not be told apart.)"""
    text = os.environ.get(variable, "")
    if given and given == text.split():
        return [line.strip() for line in text.splitlines() if line.strip()]
    return given or None


def open_log_if_there(servers: str | None, registry: str | None, timeout_s: float) -> Log | None:
    """The log, if it answers. Starts no broker. UsageError if what was said of it is wrong."""
    from ...schemas.errors import LogError
    from ..broker import LocalBroker
    from ..log import connect

    try:
        if not servers:
            status = LocalBroker().status()
            servers = status.bootstrap_servers if status.running else None
        return connect(servers, registry=registry, timeout_s=timeout_s) if servers else None
    except LogError:
        return None


def open_log_above(archive: Archive, servers: str | None, registry: str | None, timeout_s: float) -> Log | None:
    """The log that *archive* is of, if it answers; None, and it is said, if the archive has to do alone."""
    from .output import say

    log = open_log_if_there(servers, registry, timeout_s)
    if log is None:
        say("Kafka does not answer: the archive alone is used")
    elif not servers and log.cluster_id != archive.cluster_id():
        log.close()  # a local broker that has nothing to do with it
        return None
    return log


def open_log(servers: str | None, registry: str | None, timeout_s: float) -> Log:
    from ..log import connect

    return connect(servers, registry=registry, timeout_s=timeout_s)
