"""``merganser status``: how far a store, or a node, is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...schemas.errors import LogError, MerganserError, WrongCluster
from ...schemas.position import Position
from .nodes import Authority, MaybeStore, Url, UserName, one_of, open_client
from .options import DEFAULT_TIMEOUT_S, AsJson, RegistryUrl, Servers, Timeout, open_log
from .output import emit, emit_json, emit_table, number
from .watching import past

if TYPE_CHECKING:
    from ...consumers.derived import Derived
    from ...consumers.storefile import StoreFile
    from ...schemas.hanging import OpenTransaction


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    store: MaybeStore = None,
    url: Url = None,
    user: UserName = None,
    ca: Authority = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """How far a store at rest (--store) or a node (--url) is.

    Position, lag against the log, stopped tables, records in quarantine and held back. If the log does not answer, the
    rest is shown, and the exit code is 1.
    """
    one_of(store, url)
    if store is not None:
        _of_store(store, bootstrap_servers, registry, timeout, json)
    else:
        _of_node(str(url), user, ca, timeout, json)


def _of_node(url: str, user: str | None, ca: Path | None, timeout: float, json: bool) -> None:
    with open_client(url, user, ca) as client:
        facts = client.status(timeout)
    emit_json(facts) if json else _show_node(url, facts)
    if facts["log_away"]:
        error = LogError(f"the node's log does not answer: {facts['log_away']}")
        error.hint = "reads at level eventual go on; the node itself waits for the log"
        raise error


def _of_store(store: Path, bootstrap_servers: str | None, registry: str | None, timeout: float, json: bool) -> None:
    from ...consumers.storefile import StoreFile

    with StoreFile(store) as found:
        ends, stuck, problem = _ends(found, bootstrap_servers, registry, timeout)
        facts = [_facts(found, table, ends) for table in found.tables()]
        if json:
            emit_json(
                {
                    "store": str(found.path),
                    "group": found.group,
                    "cluster": found.cluster_id,
                    "position": str(found.position),
                    "tables": facts,
                    "derived": [_derived(each) for each in found.derived().values()],
                    "open_transactions": [
                        {"table": each.partition.topic, "partition": each.partition.partition, "offset": each.offset}
                        for each in stuck
                    ],
                }
            )
        else:
            _show(found, facts)
            for each in stuck:
                emit(past(each))
    if problem is not None:
        raise problem


def _ends(
    store: StoreFile, servers: str | None, registry: str | None, timeout_s: float
) -> tuple[Position | None, list[OpenTransaction], MerganserError | None]:
    """The ends of the store's partitions in its log, and what is open before them; None, and why, if they cannot be
    known."""
    try:
        with open_log(servers, registry, timeout_s) as log:
            if log.cluster_id != store.cluster_id:
                return None, [], WrongCluster(str(store.path), store.cluster_id, log.cluster_id)
            ends = log.ends(store.position)
            behind = list(store.position.behind(ends))
            return ends, log.open_transactions(behind) if behind else [], None
    except LogError as error:
        return None, [], error


def _facts(store: StoreFile, table: str, ends: Position | None) -> dict[str, Any]:
    stored = store.tables()[table]
    position = store.position.of(frozenset([table]))
    lag = None if ends is None else sum(position.behind(ends.of(frozenset([table]))).values())
    return {
        "table": table,
        "partitions": len(position),
        "applied": sum(position.values()),
        "lag": lag,
        "quarantined": store.quarantined().get(table, 0),
        "pending": store.pending().get(table, 0),
        "stopped": stored.stopped,
    }


def _derived(table: Derived) -> dict[str, Any]:
    return {
        "table": table.name,
        "source": table.source,
        "from": str(table.since),
        "to": str(table.until),
        "transform": table.transform or None,
        "rows": table.rows,
        "whole": table.whole,
    }


def _show(store: StoreFile, facts: list[dict[str, Any]]) -> None:
    emit(f"store {store.path}, group {store.group}, cluster {store.cluster_id}")
    names = ["table", "partitions", "applied", "lag", "quarantined", "pending"]
    rows = [
        (fact["table"], *(number(fact[name]) for name in names[1:]), fact["stopped"] or "follows") for fact in facts
    ]
    emit_table([*names, "state"], rows, numeric=names[1:])
    for table in store.derived().values():
        made = "not whole: its replay did not end" if not table.whole else f"{table.rows:,} rows, {table.made_of}"
        emit(f"{table.name}: derived from {table.source}, {made}")
    emit(f"position {store.position}")


def _show_node(url: str, facts: dict[str, Any]) -> None:
    ready = "ready" if facts["ready"] else f"not ready: {facts['not_ready']}"
    emit(f"node {url}, group {facts['group']}, cluster {facts['cluster']}: {ready}")
    away = facts["log_away"]  # then its lags are of before
    names = ["table", "partitions", "lag", "quarantined", "pending"]
    rows = []
    for table in facts["tables"]:
        figures = {**table, "lag": None if away else table["lag"]}
        rows.append((table["table"], *(number(figures.get(name)) for name in names[1:]), table["stopped"] or "follows"))
    emit_table([*names, "state"], rows, numeric=names[1:])
    emit(f"position {facts['position']}")
    for line in _beside(facts):
        emit(line)


def _beside(facts: dict[str, Any]) -> Iterator[str]:
    """What else a node says of itself. Who may read some tables only is not told of archive and backups."""
    if facts["failed"]:
        yield f"failed: {facts['failed']}"
    if facts["waiting_for"]:
        yield f"waiting for {facts['waiting_for']}"
    for table in facts["tables"]:
        if table.get("way_out"):  # which nodes of before do not say
            yield f"{table['table']} stopped ({table['error']}): {table['way_out']}"
        for stuck in table["open_transactions"]:
            where = f"{table['table']}/{stuck['partition']}"
            since = f"since offset {stuck['offset']}, for {stuck['seconds']:.0f} s"
            yield past(f"{where} has had a transaction open {since}")
    if facts["unfollowed"]:
        yield f"in the store, and not followed: {', '.join(facts['unfollowed'])}"
    if archive := facts.get("archive"):
        yield f"archive up to {archive['position']}"
        yield from (f"archive: {table} stopped: {why}" for table, why in archive["stopped"].items())
        yield from (f"archive: {word}" for word in _trouble(archive))
    if backup := facts.get("backup"):
        then = f"{backup['next_type']} at {backup['next']}" if backup["next"] else "none"
        yield f"backup: last {backup['last'] or 'none'}, next {then}"
        yield from (f"backup: {word}" for word in _trouble(backup))


def _trouble(part: dict[str, Any]) -> Iterator[str]:
    if part.get("waiting_for"):
        yield f"waiting for {part['waiting_for']}"
    if part["failed"]:
        yield f"failed: {part['failed']}"
