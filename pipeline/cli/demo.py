"""``merganser demo``: the whole way, on real data."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import DEFAULT_TIMEOUT_S, RegistryUrl, Servers, Timeout, open_log, option

Once = Annotated[bool, option("--once", "End by itself; exit 0 only if every comparison held.")]
Fresh = Annotated[bool, option("--fresh", "Write all rows again, into new topics.")]


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    once: Once = False,
    fresh: Fresh = False,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """A year of flights through Kafka into SQL, with crashes.

    Writes the rows to a log, follows them in a replica that is killed hard on the way, asks some
    questions, and compares the replica with the CSV files, row by row. Later runs use the rows that the
    log has, and build the replica anew. All it keeps is under MERGANSER_HOME.
    """
    from ..demo.story import tell

    with open_log(bootstrap_servers, registry, timeout) as log:
        tell(log, once=once, fresh=fresh, registry=registry)
