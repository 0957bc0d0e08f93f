"""``archive erase`` where no Kafka is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from erase.people import ADA
from merganser.pipeline.cli.app import main
from restore.town import Town
from support.cli import MERGANSER, Cli, Done


@pytest.fixture
def folder(town: Town, tmp_path: Path) -> Path:
    """The town's archive as files."""
    for name, data in town.memory.files.items():
        (tmp_path / "archive" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "archive" / name).write_bytes(data)
    return tmp_path / "archive"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    monkeypatch.delenv("MERGANSER_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path / "home"))

    def run(*args: object, stdin: str = "") -> Done:
        code = main([str(arg) for arg in args])
        return Done(code, *capsys.readouterr())

    return run


def test_what_is_said_is_done_and_shows(cli: Cli, folder: Path) -> None:
    place = ("--archive", folder)
    shown = cli("archive", "erase", "people", f"id={ADA}", *place)
    assert (shown.code, shown.out.splitlines()[0].split()[3]) == (0, "records")
    assert "1 incremental backup" in shown.err and "no log at hand" in shown.err
    assert "may be in quarantine" in shown.err
    assert shown.err.splitlines()[-1] == "nothing was done: --execute does it"
    done = cli("archive", "erase", "people", ADA, *place, "--execute", "--json").json[0]
    assert done["executed"] and done["erased"]["records"] == done["partitions"][0]["records"] > 0
    again = cli("archive", "erase", "people", ADA, *place, "--execute")
    assert again.out == "nothing of this key is in the archive, nor in its backups; check how it is spelt\n"
    # In a process of its own, which has imported nothing by the way.
    checked = subprocess.run([*MERGANSER, "archive", "check", *map(str, place)], capture_output=True, text=True)
    assert checked.returncode == 0 and f"erasure {done['erased']['id']}" in checked.stderr, checked


def test_what_cannot_be_is_one_line_and_a_hint(cli: Cli, folder: Path) -> None:
    for words, told in (
        (["people", "no-uuid"], "no-uuid"),
        (["nobody", "7"], "nobody"),
        (["orders", "3", "4"], "one key"),
    ):
        cli("archive", "erase", *words, "--archive", folder).failed(2, told)
