"""What a user's type checker is told of the package."""

from __future__ import annotations

from pathlib import Path

from mypy import api

_PROGRAM = """\
import merganser as mg


def outcome(replica: mg.Replica, tx: mg.Transaction) -> mg.Outcome:
    return replica.outcome(tx)


def count(client: mg.Client, level: mg.Level) -> int:
    [(n,)] = client.query("select count(*) from orders", level=level).rows()
    return int(n)


log = mg.connect()
with log.producer() as producer:
    with producer.transaction() as tx:
        tx.put("orders", {"order_id": 1}, if_absent=True)
    token: mg.Position | None = tx.position
"""


def checked(folder: Path, program: str) -> tuple[str, int]:
    (folder / "service.py").write_text(program)
    out, _, status = api.run(["--strict", "--cache-dir", str(folder / "cache"), str(folder / "service.py")])
    return out, status


def test_a_strict_type_checker_takes_a_service_and_finds_a_name_that_is_misspelt(tmp_path: Path) -> None:
    out, status = checked(tmp_path, _PROGRAM)
    assert status == 0, out
    out, status = checked(tmp_path, _PROGRAM + "\nmg.Replca\n")
    assert status == 1 and "Replca" in out
