"""The way in docs/replay.md to put rows of the log right runs as it stands, with only the table's name changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import merganser as mg

_PAGE = (Path(__file__).parent.parent.parent / "docs" / "replay.md").read_text()

_SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [
        {"name": "order_id", "type": "long"},
        {"name": "sku", "type": "string"},
        {"name": "cents", "type": "long"},
    ],
}


def test_wrong_rows_are_put_right_in_the_log_unless_somebody_has_written_them_since(
    broker: str, tmp_path: Path
) -> None:
    table = f"orders_{uuid4().hex[:8]}"
    section = _PAGE.partition("### Rows that are wrong in the log")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\S+)[^\n]*\n(.*?)```", section.replace("orders", table), re.DOTALL)
    (_, function), (_, look), (_, program), (_, drop) = blocks
    (tmp_path / "shop.py").write_text(function)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "MERGANSER_BOOTSTRAP_SERVERS": broker, "MERGANSER_HOME": str(tmp_path), "PATH": path}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cents(store: str) -> dict[int, int]:
        with mg.connect(broker) as log, mg.Replica(tmp_path / store, log, group="shop", tables=[table]) as replica:
            return dict(replica.query(f"select order_id, cents from {table}", level="strong").rows())

    with mg.connect(broker) as log, log.producer() as producer:
        log.create_table(table, _SCHEMA, ["order_id"])
        for order_id, wrong in ((1, 125_000), (2, 250_000), (3, 500)):
            producer.put(table, {"order_id": order_id, "sku": "duck", "cents": wrong})
        producer.flush()
        assert cents("shop.duckdb") == {1: 125_000, 2: 250_000, 3: 500}
        assert {line.split()[-1] for line in run("bash", "-euc", look).splitlines()[-2:]} == {"1250", "2500"}
        producer.put(table, {"order_id": 2, "sku": "duck", "cents": 7})
        producer.flush()
    said = run(sys.executable, "-c", program).splitlines()
    assert sorted(line.partition(":")[0] for line in said) == ["applied", "rejected"]
    assert cents("shop.duckdb") == cents("other.duckdb") == {1: 1250, 2: 7, 3: 500}
    run("bash", "-euc", drop)
