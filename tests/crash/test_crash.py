"""Invariants 1 to 3 under SIGKILL, in short: `make crash` is the long form."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from crash.cycles import Plan, run
from merganser.consumers.store import STEPS
from merganser.pipeline.broker import LocalBroker


def test_killed_at_every_step_a_replica_loses_and_doubles_nothing(broker: str, tmp_path: Path) -> None:
    deaths = ("start", "work", *["step"] * len(STEPS))
    report = run(broker, tmp_path, Plan(cycles=len(deaths), deaths=deaths, seed=18, rows_per_s=800))
    assert report.findings.none, report.text()
    assert set(STEPS) <= set(report.kills)


@pytest.mark.parametrize(("naive", "step"), [("rows-first", "moved"), ("offsets-first", "begun")])
def test_a_store_with_offsets_beside_the_rows_is_caught(broker: str, tmp_path: Path, naive: str, step: str) -> None:
    report = run(broker, tmp_path, Plan(cycles=2, seed=2, naive=naive, steps=[step], rows_per_s=800))
    assert report.findings.doubled if naive == "rows-first" else report.findings.lost, report.text()


@pytest.mark.slow
def test_a_killed_broker_costs_no_row(tmp_path: Path) -> None:
    own = LocalBroker(tmp_path / "home")

    def kill_broker() -> None:
        for pid in own.status().pids:
            os.kill(pid, signal.SIGKILL)
        own.start(wait_s=120)

    try:
        plan = Plan(cycles=9, seed=9, broker_every=8)
        report = run(own.start(wait_s=120).bootstrap_servers, tmp_path, plan, kill_broker)
    finally:
        own.stop()
    assert report.findings.none, report.text()
    assert report.kills["broker"] == 1
