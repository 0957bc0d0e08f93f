"""Each recipe of docs/recipes.md that needs no download runs as it stands, and prints what it says there.

Grafana itself is not run: its dashboards ask for what a node has, metrics with their labels, and SQL through its door.
"""

from __future__ import annotations

import csv
import re
from importlib.metadata import version
from urllib.parse import urlencode

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from clients.boards import GRAFANA, METRICS_PAGE, SERIES, SUMMED_BY, board, documented, fetched, targets
from clients.page import HTTP, PAGE, Room, recipe
from clients.versions import DBT, SHELL, SPARK
from support.jdbc import COORDINATES


def test_curl(fresh: Room) -> None:
    found = recipe("curl")
    assert fresh.sh(found.code("sh")) == found.printed


@pytest.mark.parametrize("name", ["ADBC in Python", "pandas", "Polars"])
def test_python(name: str, fresh: Room) -> None:
    found = recipe(name)
    assert fresh.python(found.code("python")) == found.printed


def test_the_page_says_which_versions_ran() -> None:
    ours = [f"{name} {version(name)}" for name in ("adbc-driver-flightsql", "pandas", "polars")]
    theirs = [requirement.replace("==", " ") for requirement in (SPARK, SHELL, *DBT)]
    page = PAGE.read_text()
    for client in (*ours, *theirs, " ".join(COORDINATES[1:])):
        assert re.search(rf"\| .*\b{re.escape(client)}\b.* \|", page), client


def test_every_metric_on_the_dashboard_exists_with_its_labels(room: Room) -> None:
    url = f"http://{room.addresses[HTTP]}"
    fetched(f"{url}/query?sql=select+1")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(fetched(f"{url}/metrics")):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    labels |= documented("merganser_archive_lag_records", "merganser_backup_last_timestamp_seconds")  # no archive here
    asked = [expr for _, target in targets("replica") for expr in [target["expr"]]]
    asked += [variable["query"]["query"] for variable in board("replica")["templating"]["list"]]
    for expr in asked:
        series = SERIES.findall(expr)
        assert series, expr
        known = {"instance", "job"}.union(*(labels[name] for name, _ in series))
        for _, selector in series:
            assert {part.partition("=")[0].strip() for part in selector.split(",") if part} <= known, expr
        for group in SUMMED_BY.findall(expr):
            assert {name.strip() for name in group.split(",")} <= known, expr


def test_every_metric_on_the_dashboard_is_documented() -> None:
    told = METRICS_PAGE.read_text()
    for title, target in targets("replica"):
        for name, _ in SERIES.findall(target["expr"]):
            assert name.startswith("process_") or f"`{name.removesuffix('_bucket')}`" in told, f"{title}: {name}"


def test_every_panel_of_sql_gets_its_columns(room: Room) -> None:
    """As Infinity asks: parameters in the query string, the time range in milliseconds, columns by their names."""
    january = {"${__from}": "1769731200000", "${__to}": "1769904000000"}
    for title, target in targets("sales"):
        said = {pair["key"]: pair["value"] for pair in target["url_options"]["params"]}
        for name, value in january.items():
            said["sql"] = said["sql"].replace(name, value)
        assert "${" not in said["sql"] and target["url_options"]["method"] == "GET"
        text = fetched(f"http://{room.addresses[HTTP]}{target['url']}?{urlencode(said)}")
        rows = list(csv.DictReader(text.splitlines()))
        assert rows, title
        for column in target["columns"]:
            for row in rows:
                found = row[column["selector"]]
                assert found if column["type"] == "string" else float(found), (title, row)
    assert [dict(row) for row in rows] == [
        {"sku": "duck", "pieces": "5", "revenue": "62.50", "last": "1769850000000"},
        {"sku": "goose", "pieces": "1", "revenue": "30.00", "last": "1769776200000"},
    ]


def test_the_dashboards_name_the_sources_that_are_provisioned() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "merganser.yml").read_text())
    sources = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    for name in ("replica", "sales"):
        for title, target in targets(name):
            assert (target["datasource"]["type"], target["datasource"]["uid"]) in sources, title
        numbers = [panel["id"] for panel in board(name)["panels"]]
        assert len(set(numbers)) == len(numbers)
