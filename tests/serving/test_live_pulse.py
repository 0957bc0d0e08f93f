"""``/live``, which the page of a node asks each second."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.users.secrets import Cost, Hash
from merganser.pipeline.serving.users.users import User, changing
from serving.world import HIDDEN, ORDERS, World, world
from support.waiting import wait_for


class Node:
    def __init__(self, opened: World, url: str, log: Path) -> None:
        self.world, self._url, self.log = opened, url, log

    def live(self, user: str = "ops", **query: str) -> tuple[int, Any]:
        said = "&".join(f"{name}={value}" for name, value in query.items())
        request = urllib.request.Request(f"{self._url}/live?{said}")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:correct horse".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=20) as got:
                return got.status, json.load(got)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("live")
    with changing(folder / "users") as change:
        password = Hash.of("correct horse", Cost(4, 8, 1))
        change.add(User("some", "reader", frozenset({ORDERS}), password))
        change.add(User("ops", "operator", password=password))
    log = folder / "requests.log"
    config = ServeConfig(http="127.0.0.1:0", users=folder / "users", request_log=log)
    with world(folder, rows=30) as opened, Doors(config, opened.replica, opened.log) as doors:
        assert doors.http is not None
        yield Node(opened, doors.http, log)


def test_it_has_rows_records_and_the_place_in_each_partition(node: Node) -> None:
    status, told = node.live(table=ORDERS)
    orders = next(table for table in told["tables"] if table["table"] == ORDERS)
    assert status == 200 and (orders["rows"], orders["puts"], orders["key"]) == (30, 30, ["id"])
    wait_for("a look at the log", lambda: node.live(table=ORDERS)[1]["partitions"][0]["end"] is not None)
    assert node.live(table=ORDERS)[1]["partitions"] == [{"partition": 0, "read": 30, "applied": 30, "end": 30}]


def test_samples_are_given_once(node: Node) -> None:
    wait_for("a few samples", lambda: len(node.live()[1]["pulse"]["at_s"]) >= 2)
    first = node.live()[1]["pulse"]["at_s"]
    wait_for("a later one", lambda: bool(node.live(since=str(first[-1]))[1]["pulse"]["at_s"]))
    later = node.live(since=str(first[-1]))[1]["pulse"]["at_s"]
    assert min(later) > first[-1] - 0.001 and len(later) < len(node.live()[1]["pulse"]["at_s"])


def test_who_may_read_some_tables_hears_of_those_only(node: Node) -> None:
    _, told = node.live("some")
    assert [table["table"] for table in told["tables"]] == [ORDERS] and set(told["pulse"]["tables"]) <= {ORDERS}
    assert HIDDEN not in json.dumps(told) and not told["user"]["reads_all"]
    assert node.live("some", table=HIDDEN)[0] == 404 and node.live("ops", table=HIDDEN)[0] == 200


def test_what_is_asked_wrong_is_refused(node: Node) -> None:
    for wrong in ("soon", "nan", ""):
        status, told = node.live(since=wrong)
        assert status == 400 and told["hint"], wrong
    assert node.live(table="nowhere")[0] == 404


def test_a_page_that_asks_each_second_does_not_fill_the_request_log(node: Node) -> None:
    node.live()
    before = node.log.read_text().count("/live")
    for _ in range(5):
        node.live()
    assert node.live(since="soon")[0] == 400
    lines = [line for line in node.log.read_text().splitlines() if "/live" in line]
    assert len(lines) == before + 1 and json.loads(lines[-1])["status"] == "400"
