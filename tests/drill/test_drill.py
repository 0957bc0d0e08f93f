"""A live replica backed up, and restored to random positions and times. `make drill-restore` is the long form."""

from __future__ import annotations

from pathlib import Path

from drill.run import drill
from history.run import new_plan


def test_every_point_is_the_fold_of_the_log_up_to_it(broker: str, tmp_path: Path) -> None:
    report = drill(new_plan(broker, tmp_path, seed=7), points=8, rows=400)
    assert not report.wrong, report.text()
    assert report.times and report.held_back and len(report.bases) > 1, report.text()
