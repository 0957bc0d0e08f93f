"""The recipes of docs/recipes.md whose clients are a large download run as they stand, too."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

import merganser as mg
from clients.boards import answered, fetched, targets
from clients.page import HTTP, Room, recipe
from clients.versions import DBT, SHELL, SPARK
from merganser.pipeline.broker.local import free_ports
from support.jdbc import driver
from support.venvs import venv
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


#: Where the clock shows another time than in UTC: what shifts times by it is seen to do so.
ELSEWHERE = "America/New_York"


def had(room: Room, *requirements: str) -> Path:
    """The ``bin`` of an environment with *requirements*."""
    found, why = venv(room.folder / "venv", *requirements)
    if found is None:
        pytest.skip(why)
    return found


@pytest.mark.skipif(shutil.which("javac") is None, reason="a JDK compiles the program that reads")
def test_jdbc_from_java(fresh: Room) -> None:
    found = recipe("JDBC")
    (fresh.folder / driver().name).symlink_to(driver())
    (fresh.folder / "Sales.java").write_text(fresh.there(found.code("java")))
    assert fresh.sh(found.code("sh"), TZ=ELSEWHERE) == found.printed


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark runs on Java")
def test_spark(fresh: Room) -> None:
    found, bin_ = recipe("Spark"), had(fresh, SPARK)
    (fresh.folder / driver().name).symlink_to(driver())
    env = {"PYSPARK_PYTHON": str(bin_ / "python"), "SPARK_LOCAL_IP": "127.0.0.1", "TZ": ELSEWHERE}
    assert fresh.python(found.code("python"), str(bin_ / "python"), timeout=300, **env) == found.printed


def test_the_duckdb_shell_on_a_snapshot_file(fresh: Room) -> None:
    found = recipe("A snapshot file")
    shell = had(fresh, SHELL) / "duckdb"
    printed = fresh.sh(found.code("sh").replace("\nduckdb ", f"\n{shell} "))
    assert printed == found.printed


def test_dbt_on_a_snapshot_file(fresh: Room) -> None:
    found, dbt = recipe("dbt"), had(fresh, *DBT) / "dbt"
    found.write_files(fresh.folder)
    code = found.code("sh").replace("\ndbt ", f"\n{dbt} ")
    env = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
    assert fresh.sh(code, timeout=300, **env) == found.printed


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus (Debian's package prometheus)")
def test_prometheus_scrapes_a_node_and_every_panel_shows_something(fresh: Room) -> None:
    """By the recipe's own configuration."""
    (fresh.folder / "prometheus.yml").write_text(fresh.there(recipe("On `/metrics`").code("yaml")))
    [port] = free_ports(1)
    line = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (fresh.folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            [*line, "--storage.tsdb.path=data"], cwd=fresh.folder, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    sale = {"sale_id": 15, "sku": "swan", "qty": 1, "price": 80, "sold_at": datetime(2026, 2, 1, tzinfo=UTC)}
    try:
        with mg.connect(fresh.broker) as log, log.producer() as producer:
            for title, target in targets("replica"):
                expr = target["expr"].replace("$node", ".*").replace("$__rate_interval", "1m")

                def shows(expr: str = expr) -> bool:
                    producer.put("sales", sale)
                    producer.flush()
                    fetched(f"http://{fresh.addresses[HTTP]}/query?sql=select+1")
                    return any(value != "NaN" for value in answered(url, expr))

                wait_for(f"{title} to show something", shows, timeout_s=60, every_s=0.5)
    finally:
        server.terminate()
        server.wait(30)
