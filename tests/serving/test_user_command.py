"""Users from the command line: passwords in by prompt, stdin or variable, never out again."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import pytest

from merganser.__main__ import main
from merganser.pipeline.serving.users import secrets
from merganser.pipeline.serving.users.login import Logins
from merganser.pipeline.serving.users.secrets import Cost
from merganser.pipeline.serving.users.users import read_users
from support.cli import Cli, Done

RIGHT = "correct horse"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands that ask no broker, with hashes that cost little."""
    real = secrets.Hash.of
    monkeypatch.setattr(secrets.Hash, "of", lambda password, cost=None: real(password, Cost(4, 8, 1)))
    monkeypatch.delenv("MERGANSER_PASSWORD", raising=False)

    def run(*args: object, stdin: str | bytes = "") -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.json"


def add(cli: Cli, path: Path, name: str, *more: object, stdin: str = RIGHT + "\n") -> Done:
    return cli("user", "add", name, "--users", path, *more, stdin=stdin)


def test_users_are_added_listed_and_removed(cli: Cli, path: Path) -> None:
    assert add(cli, path, "ann").code == 0 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert add(cli, path, "ops", "--role", "operator", "--tables", "a, b").code == 0
    found = cli("user", "list", "--users", path, "--json").json
    assert found == [
        {"user": "ann", "role": "reader", "tables": None, "has_password": True, "has_token": False},
        {"user": "ops", "role": "operator", "tables": ["a", "b"], "has_password": True, "has_token": False},
    ]
    assert "a, b" in cli("user", "list", "--users", path).out
    assert Logins(path).check("ann", RIGHT, "here").name == "ann"
    assert cli("user", "remove", "ann", "--users", path).code == 0
    cli("user", "remove", "ann", "--users", path).failed(2, "no user 'ann'")
    assert list(read_users(path).by_name) == ["ops"]


def test_a_password_comes_from_the_variable_too(cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_PASSWORD", "battery staple")
    assert add(cli, path, "ann", stdin="").code == 0
    assert Logins(path).check("ann", "battery staple", "here")


def test_no_secret_is_printed_but_a_token_once(cli: Cli, path: Path) -> None:
    done = add(cli, path, "bot", "--token")
    token = done.out.strip()
    assert token.startswith("bot.") and Logins(path).check_token(token, "here").name == "bot"
    for said in (
        done.err,
        cli("user", "list", "--users", path).out,
        cli("user", "list", "--users", path, "--json").out,
    ):
        assert RIGHT not in said and token not in said and "scrypt" not in said
    made = json.loads(add(cli, path, "only", "--token", "--no-password", "--json", stdin="").out)
    assert Logins(path).check_token(made["token"], "here") and read_users(path).by_name["only"].password is None


def test_wrong_use_writes_nothing(cli: Cli, path: Path) -> None:
    short = add(cli, path, "ann", stdin="short\n")
    short.failed(2, "8 characters")
    assert "first line of stdin" in short.err
    add(cli, path, "ann", stdin="").failed(2, "8 characters")
    add(cli, path, "a:b").failed(2, "name")
    add(cli, path, "ann", "--tables", ",").failed(2, "no table")
    add(cli, path, "ann", "--no-password").failed(2, "--token")
    add(cli, path, "ann", "--role", "root").failed(2, "root")
    assert not path.exists()
    cli("user", "list", "--users", path).failed(2, "No such file")
    cli("user", "remove", "ann", "--users", path).failed(2, "No such file")
    assert not path.exists()


def test_a_user_is_replaced_only_if_that_is_said(cli: Cli, path: Path) -> None:
    assert add(cli, path, "ann").code == 0
    add(cli, path, "ann", stdin="battery staple\n").failed(2, "already")
    assert add(cli, path, "ann", "--again", stdin="battery staple\n").code == 0
    assert Logins(path).check("ann", "battery staple", "here")


def test_a_password_is_no_option() -> None:
    from typer.main import get_command

    from merganser.pipeline.cli import user

    options = [p.opts[0] for p in get_command(user.app).commands["add"].params]  # type: ignore[attr-defined]
    assert "--password" not in options
