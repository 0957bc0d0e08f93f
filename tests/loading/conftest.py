"""The session's broker as a log; a table name for each test."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Iterator

import pytest

import merganser as mg
from merganser.__main__ import main
from support.cli import Cli, Done


@pytest.fixture(scope="session")
def log(broker: str) -> Iterator[mg.Log]:
    with mg.connect(broker) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    """A table, and a group, that no other test has."""
    return f"t-{uuid.uuid4().hex[:10]}"


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
