"""Clients of killed writers and replicas see what the log allows, in short: `make history` is the long form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from history.journal import LEFT, RIGHT
from history.run import Report, new_plan, run


def proven(report: Report, ways: Sequence[str] = ("inside",)) -> None:
    """No violation, and none of what was to be proven left out."""
    assert report.findings.none, report.text()
    assert report.history is not None
    reads = [read for read in report.history.reads if read.kind != "outcome"]
    assert {read.way for read in reads} == set(ways), report.text()
    assert {read.level for read in reads if read.kind == "scan"} > {"eventual"}, report.text()
    through = [read for read in reads if read.way != "inside"] or reads
    assert {read.level for read in through} == {"eventual", "session", "bounded", "strong", "after"}, report.text()
    assert report.kills["writer"] and report.kills["reader"], report.text()


def test_every_read_is_what_the_log_says(broker: str, tmp_path: Path) -> None:
    """Beside the replicas, and through the doors of their nodes; one client goes to whichever is there."""
    plan = new_plan(broker, tmp_path, seed=3, writers=2, readers=2, doors=True)
    report = run(plan, operations=2_000, kills=2)
    proven(report, ("inside", "http", "flight", "anywhere"))
    counts = report.findings.counts
    for kind in ("put", "delete", "conditional", "event", "transaction", "transfer-op"):
        assert counts[f"write {kind}: ok"], report.text()
    assert counts["write rollback: rolled back"], report.text()


def test_no_query_ever_finds_money_missing(broker: str, tmp_path: Path) -> None:
    """The bank: accounts in 16 partitions of two tables, and readers that add them all up."""
    plan = new_plan(broker, tmp_path, seed=4, writers=2, readers=2, bank=True)
    assert len({tp.topic for tp in plan.partitions[:16]}) == 2 and (LEFT, RIGHT) == (0, 1)
    report = run(plan, operations=400, kills=2)
    proven(report)
    counts = report.findings.counts
    for kind in ("transfer", "transfer-if", "transfer-op"):
        assert counts[f"write {kind}: ok"], report.text()
