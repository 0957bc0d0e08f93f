"""The dashboards of examples/grafana, as a test reads them. Grafana itself is not run."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

GRAFANA = Path(__file__).parents[2] / "examples" / "grafana"
METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

#: What is in a series' braces, and what is summed by.
SERIES = re.compile(r"\b((?:merganser|process)_\w+)(?:\{(.*?)\})?")
SUMMED_BY = re.compile(r"\bby \((.*?)\)")


def board(name: str) -> dict[str, Any]:
    return dict(json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text()))


def targets(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in board(name)["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode())


def answered(url: str, expr: str) -> list[str]:
    """The values of *expr* now; nothing while Prometheus is not there yet."""
    try:
        found = json.loads(fetched(f"{url}/api/v1/query?{urlencode({'query': expr})}"))
    except OSError:
        return []
    return [series["value"][1] for series in found["data"]["result"]]


def documented(*names: str) -> dict[str, set[str]]:
    """The labels of these metrics, by docs/metrics.md."""
    rows = [[cell.strip() for cell in line.split("|")] for line in METRICS_PAGE.read_text().splitlines()]
    told = {row[1].strip("`"): set(re.findall(r"`(\w+)`", row[3])) for row in rows if len(row) > 4}
    return {name: told[name] for name in names}
