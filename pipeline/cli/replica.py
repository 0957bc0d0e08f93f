"""``merganser replica run``: keep tables up with the log, until told to stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...schemas.errors import UsageError
from .options import (
    DEFAULT_TIMEOUT_S,
    ArchiveUrl,
    AsJson,
    Every,
    KeyFile,
    MaybeTimeout,
    RegistryUrl,
    Servers,
    UntilEnd,
    comma_separated,
    open_log,
    option,
)
from .watching import JsonLines, PlainLines, Screen, StatusLine, until_stopped, warnings, watch

if TYPE_CHECKING:
    from ..archive.archive import Archive
    from ..archive.bridged import BridgedLog
    from ..config import NodeConfig
    from ..log import Log

app = typer.Typer(help="Replicas: tables of the log, kept in a DuckDB file.")

StoreFile = Annotated[Path | None, option("--store", "The replica's DuckDB file.", dir_okay=False)]
Group = Annotated[str | None, option("--group", "Name of the copy: a Kafka group id.")]
Tables = Annotated[str | None, option("--tables", "Tables to follow, comma-separated.")]
Config = Annotated[
    Path | None,
    option("--config", "A merganser.toml that says all this, and what to archive and to back up.", dir_okay=False),
]
Http = Annotated[str, option("--http", "Answer SQL over HTTP at HOST:PORT, like 127.0.0.1:8080.")]
Flight = Annotated[str, option("--flight", "Answer Flight SQL (ADBC, JDBC) at HOST:PORT, like 127.0.0.1:8815.")]
UsersFile = Annotated[Path | None, option("--users", "Who may ask: a file of `merganser user`.", dir_okay=False)]
TlsCert = Annotated[Path | None, option("--tls-cert", "Certificate with its chain, in PEM.", dir_okay=False)]
TlsKey = Annotated[Path | None, option("--tls-key", "The certificate's key, in PEM.", dir_okay=False)]
Insecure = Annotated[bool, option("--insecure", "Open the door though there are no users, or no TLS.")]
RequestLog = Annotated[Path | None, option("--request-log", "Write a JSON line a request here.", dir_okay=False)]
Split = Annotated[bool, option("--split", "Share the partitions with the other members of the group.")]
AcceptPartial = Annotated[bool, option("--accept-partial", "Start though the log has lost its oldest rows.")]


@app.callback()
def _group() -> None:
    """Replicas: tables of the log, kept in a DuckDB file."""


@app.command()
def run(
    store: StoreFile = None,
    group: Group = None,
    tables: Tables = None,
    config: Config = None,
    http: Http = "",
    flight: Flight = "",
    users: UsersFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
    request_log: RequestLog = None,
    split: Split = False,
    accept_partial: AcceptPartial = False,
    until_end: UntilEnd = False,
    every: Every = None,
    archive: ArchiveUrl = None,
    key_file: KeyFile = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: MaybeTimeout = None,
    json: AsJson = False,
) -> None:
    """Follow tables until Ctrl-C or SIGTERM. What is applied is exact, whenever the process ends.

    With --archive, rows that the log no longer has come from there. Ends with exit 1 if none of the tables can go on.
    While it runs, no other process can read FILE: ask it over --http or --flight. With --config it also archives, and
    makes backups in time; options go before what that file says.
    """
    from ...consumers.dbfile import Limits
    from ...consumers.replica import Replica
    from ..config import NodeConfig, ServeConfig, read_config
    from ..node import Node

    serve = ServeConfig(http, flight, users, tls_cert, tls_key, insecure, request_log)
    given = NodeConfig(store, group or "", tuple(comma_separated(tables)), serve=serve)
    said = given if config is None else read_config(config).after(given)
    _check(said, split, until_end, archive)
    servers, where = bootstrap_servers or said.bootstrap_servers, registry or said.registry
    screen: Screen = JsonLines() if json else StatusLine() if sys.stdout.isatty() else PlainLines()
    with until_stopped(), open_log(servers, where, timeout or said.timeout_s or DEFAULT_TIMEOUT_S) as log:
        below, source = _archives(said, archive, key_file, log)
        partial = accept_partial or said.accept_partial
        follow = Replica(
            str(said.store), source, said.group, said.tables,
            split=split, accept_partial=partial, limits=Limits(**said.limits),
        )  # fmt: skip
        with follow as replica:
            with screen, warnings(screen, *_LOUD), Node(said, log, replica, below, screen.warn) as node:
                for url in () if node.doors is None else (node.doors.http, node.doors.flight):
                    if url:
                        screen.warn(f"answering at {url}")
                end = log.ends(replica.position) if until_end else None
                watch(replica, log, screen, every, end, beside=node.status)


#: Who tells of a node's work.
_LOUD = ("merganser.apply", "merganser.archive", "merganser.node", "merganser.login")


def _check(said: NodeConfig, split: bool, until_end: bool, archive: str | None) -> None:
    """UsageError unless all of it can be done."""
    for what, value in (("--store", said.store), ("--group", said.group), ("--tables", said.tables)):
        if not value:
            raise UsageError(f"Missing option '{what}': neither given, nor in a file of --config")
    if split and until_end:
        raise UsageError("a member of a split group has no end: its partitions come and go")
    if split and (archive is not None or said.archive is not None):
        raise UsageError("a member of a split group is not filled from an archive: leave --archive or --split out")


def _archives(
    said: NodeConfig, url: str | None, key_file: Path | None, log: Log
) -> tuple[Archive | None, Log | BridgedLog]:
    """The node's own archive, and what the replica reads: the log, over an archive if there is one."""
    from ..archive.archive import Archive, open_archive

    if url is not None:
        below = open_archive(url, key_file)
        return (None if said.archive is None else below), below.under(log)
    if said.archive is None:
        return None, log
    own = Archive(said.archive.url, key_file or said.archive.key_file)
    return own, log if own.cluster_id() is None else own.under(log)
