"""Commands run in this process, as a shell would run them."""

from __future__ import annotations

import io
import json
import sys
import uuid
from pathlib import Path

import pytest

import merganser as mg
from merganser.__main__ import main
from support.cli import Cli, Done, Shop

ORDER = {
    "type": "record",
    "name": "order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "qty", "type": "int"},
    ],
}


@pytest.fixture
def cli(broker: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("MERGANSER_BOOTSTRAP_SERVERS", broker)

    def run(*args: object, stdin: str | bytes = "") -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "order.avsc"
    path.write_text(json.dumps(ORDER))
    return path


@pytest.fixture
def orders(cli: Cli, schema: Path) -> str:
    """A keyed table of this test alone."""
    name = f"orders-{uuid.uuid4().hex[:8]}"
    assert cli("table", "create", name, "--schema", schema, "--key", "order_id", "--partitions", 2).code == 0
    return name


@pytest.fixture
def store(orders: str, tmp_path: Path, broker: str) -> Path:
    """A store of *orders* at rest, up to date with three rows and a delete."""
    return fill(orders, tmp_path / "shop.duckdb", broker)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Shop:
    """A table and its store that tests share, to read."""
    table, path = f"orders-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("shop") / "shop.duckdb"
    with mg.connect(broker) as log:
        log.create_table(table, ORDER, ["order_id"], partitions=2)
    return Shop(table, fill(table, path, broker))


def fill(table: str, path: Path, broker: str) -> Path:
    with mg.connect(broker) as log:
        with log.producer() as producer:
            for i in (1, 2, 3):
                producer.put(table, {"order_id": i, "sku": "a", "qty": 2})
            producer.delete(table, {"order_id": 3})
            token = producer.flush()
        with mg.Replica(path, log, "shop", [table]) as replica:
            replica.wait(token)
    return path
