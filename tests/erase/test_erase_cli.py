"""``archive erase`` in a process of its own, where no Kafka is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from erase.people import ADA
from restore.town import Town
from support.cli import MERGANSER


@pytest.fixture
def folder(town: Town, tmp_path: Path) -> Path:
    """The town's archive as files."""
    for name, data in town.memory.files.items():
        (tmp_path / "archive" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "archive" / name).write_bytes(data)
    return tmp_path / "archive"


def run(*args: object, home: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "MERGANSER_BOOTSTRAP_SERVERS"}
    env["MERGANSER_HOME"] = str(home)
    return subprocess.run([*MERGANSER, *map(str, args)], env=env, capture_output=True, text=True, timeout=120)


def test_what_is_said_is_done_and_shows(folder: Path, tmp_path: Path) -> None:
    place = ("--archive", folder)
    shown = run("archive", "erase", "people", f"id={ADA}", *place, home=tmp_path)
    assert (shown.returncode, shown.stdout.splitlines()[0].split()[3]) == (0, "records")
    assert "1 incremental backup" in shown.stderr and "no log at hand" in shown.stderr
    assert shown.stderr.splitlines()[-1] == "nothing was done: --execute does it"
    done = json.loads(run("archive", "erase", "people", ADA, *place, "--execute", "--json", home=tmp_path).stdout)
    assert done["executed"] and done["erased"]["records"] == done["partitions"][0]["records"] > 0
    checked = run("archive", "check", *place, home=tmp_path)
    assert checked.returncode == 0 and f"erasure {done['erased']['id']}" in checked.stderr, checked
    again = run("archive", "erase", "people", ADA, *place, "--execute", home=tmp_path)
    assert again.stdout == "nothing of this key is in the archive, nor in its backups\n"


def test_what_cannot_be_is_one_line_and_a_hint(folder: Path, tmp_path: Path) -> None:
    for words, code, told in (
        (["people", "no-uuid"], 2, "no-uuid"),
        (["nobody", "7"], 2, "nobody"),
        (["orders", "3", "4"], 2, "one key at a time"),
    ):
        done = run("archive", "erase", *words, "--archive", folder, home=tmp_path)
        error, hint = done.stderr.splitlines()
        assert (done.returncode, error[:7], hint[:6]) == (code, "error: ", "hint: ") and told in error
