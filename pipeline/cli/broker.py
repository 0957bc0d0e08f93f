"""``merganser broker``: the local Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, option
from .output import count, emit, emit_json, say

if TYPE_CHECKING:
    from ..broker import BrokerStatus

app = typer.Typer(help="The local broker: real Kafka, no Docker, no Java.")

Brokers = Annotated[int | None, option("--brokers", "1 or 3, in a new home. Later starts take what is there.")]
Wait = Annotated[float, option("--timeout", "Seconds to wait for it.", min=1)]


@app.command()
def start(brokers: Brokers = None, timeout: Wait = 60, json: AsJson = False) -> None:
    """Start the local broker, or say where it already runs. The first time fetches Kafka (45 MB)."""
    from ..broker import LocalBroker, stderr_progress

    _show(LocalBroker().start(brokers, wait_s=timeout, progress=stderr_progress()), json)


@app.command()
def stop(timeout: Wait = 30, json: AsJson = False) -> None:
    """Stop the local broker. Its data stays."""
    from ..broker import LocalBroker

    _show(LocalBroker().stop(wait_s=timeout), json, "stopped")


@app.command()
def status(json: AsJson = False) -> None:
    """What runs, where, and how large it is. Starts nothing."""
    from ..broker import LocalBroker

    _show(LocalBroker().status(), json)


def _show(status: BrokerStatus, json: bool, at_rest: str = "not running") -> None:
    if json:
        emit_json(_fields(status))
        return
    if status.running:
        emit(f"running at {status.bootstrap_servers} (Kafka {status.kafka_version}, cluster {status.cluster_id})")
        pids = ", ".join(map(str, status.pids))
        emit(f"  {count(status.brokers, 'broker')}, pid {pids}, {status.resident_bytes / 2**20:.0f} MiB of memory")
    else:
        emit(at_rest if status.brokers else "not running, no data yet")
    emit(f"  home {status.home}, {status.data_bytes / 2**20:.1f} MiB of data")
    for problem in status.problems:
        say(f"warning: {problem}")


def _fields(status: BrokerStatus) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(status), "home": str(status.home)}
