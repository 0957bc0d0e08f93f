"""Real clients read their own writes by token from a node that takes many rows a second meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.load import load
from clients.readers import LARGE, READERS


def test_each_client_reads_its_own_writes_while_rows_come_in(broker: str, tmp_path: Path) -> None:
    report = load(broker, tmp_path, READERS, rate=5_000, rounds=3)
    assert not report.wrong and not report.missing, report.text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_client_reads_its_own_writes_while_rows_come_in(broker: str, tmp_path: Path) -> None:
    report = load(broker, tmp_path, READERS | LARGE, rate=50_000, rounds=20)
    print(report.text())
    assert not report.wrong, report.text()
