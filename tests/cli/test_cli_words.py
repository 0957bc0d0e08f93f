"""The command line as a whole: documented, quick to help, the same everywhere."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from typer.testing import CliRunner

import merganser
import merganser.pipeline.cli.app as app_module
from merganser.pipeline.cli.app import app
from merganser.schemas.errors import UnknownTable
from support.cli import MERGANSER, Cli

DOCS = (Path(__file__).parent.parent.parent / "docs" / "commands.md").read_text()
HEAVY = ("confluent_kafka", "duckdb", "fastavro", "pyarrow", "pandas")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words, command
        else:
            for name, each in inner.items():
                yield from walk(f"{words} {name}", each)

    return walk("merganser", typer.main.get_command(app))


def options(command: Any) -> Iterator[Any]:
    return (p for p in command.params if p.param_type_name == "option" and p.name != "help")


COMMANDS = dict(commands())


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(COMMANDS) == {
        *("merganser demo", "merganser put", "merganser delete", "merganser query", "merganser status"),
        *("merganser audit", "merganser replica run", "merganser tx resolve", "merganser import", "merganser export"),
        *("merganser restore", "merganser verify", "merganser snapshot-file"),
        *(f"merganser user {word}" for word in ("add", "list", "remove")),
        *("merganser replay", "merganser quarantine list", "merganser quarantine retry"),
        *(f"merganser archive {word}" for word in ("run", "check", "erase", "republish")),
        *(f"merganser backup {word}" for word in ("create", "list", "verify", "expire")),
        *(f"merganser broker {word}" for word in ("start", "stop", "status")),
        *(f"merganser table {word}" for word in ("create", "list", "describe", "alter")),
    }


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_is_documented(words: str) -> None:
    sections = {s.splitlines()[0].strip("` "): s for s in re.split(r"^## ", DOCS, flags=re.MULTILINE)[1:]}
    for option in options(COMMANDS[words]):
        assert re.search(rf"{option.opts[0]}(?![\w-])", sections[words]), option.opts[0]
    assert COMMANDS[words].help


def test_no_command_is_documented_that_is_not_there() -> None:
    assert set(re.findall(r"^## `(.*)`$", DOCS, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_also_a_variable(words: str) -> None:
    for option in options(COMMANDS[words]):
        assert option.envvar == "MERGANSER_" + option.opts[0].lstrip("-").replace("-", "_").upper()


def test_a_variable_stands_for_its_option(cli: Cli, orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_JSON", "1")
    assert cli("table", "describe", orders).json[0]["key"] == ["order_id"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["put", "--help"], ["nonsense"]])
def test_help_loads_no_client_and_no_engine(words: list[str]) -> None:
    code = (
        "import sys; from merganser.__main__ import main; code = main(sys.argv[1:])\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"merganser {merganser.__version__}\n"


def test_completion_is_there_for_the_usual_shells() -> None:
    asked = {"_MERGANSER_COMPLETE": "complete_bash", "COMP_WORDS": "merganser bro", "COMP_CWORD": "1"}
    done = subprocess.run(MERGANSER, env={**os.environ, **asked}, capture_output=True, text=True, timeout=300)
    assert "broker" in done.stdout


def test_tables_are_completed_where_a_broker_runs(cli: Cli, orders: str) -> None:
    from merganser.pipeline.cli.options import complete_tables

    assert complete_tables(orders[:-1]) == [orders]


def test_completion_of_tables_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from merganser.pipeline.cli.options import complete_tables

    monkeypatch.delenv("MERGANSER_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path))
    assert complete_tables("") == []
    assert not list(tmp_path.iterdir())


def test_tables_are_made_listed_described_and_altered(cli: Cli, orders: str, schema: Path) -> None:
    made = cli("table", "create", orders, "--schema", schema, "--key", "order_id", "--json").json[0]
    assert (made["partitions"], made["schema_version"], made["key_format"]) == (2, 1, "avro")
    assert orders in cli("table", "list").out
    assert orders in [table["table"] for table in cli("table", "list", "--json").json]
    assert re.search(r"qty +INTEGER", cli("table", "describe", orders).out)
    first = schema.read_text()
    wider = json.loads(first)
    wider["fields"].append({"name": "note", "type": ["null", "string"], "default": None})
    schema.write_text(json.dumps(wider))
    assert cli("table", "alter", orders, "--schema", schema, "--json").json[0]["schema_version"] == 2
    assert "nothing changed" not in cli("table", "alter", orders, "--schema", schema).err
    assert re.search(r"note +VARCHAR +null", cli("table", "describe", orders).out)

    schema.write_text(first)
    again = cli("table", "alter", orders, "--schema", schema)
    assert "schema version 2" in again.out and "nothing changed: that is version 1, and 2 stays" in again.err
    schema.write_text(json.dumps({**json.loads(first), "doc": "without notes again"}))
    assert cli("table", "alter", orders, "--schema", schema, "--json").json[0]["schema_version"] == 3


def test_checks_and_conditions_are_given_and_shown(cli: Cli, schema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"orders-{uuid.uuid4().hex[:8]}"
    create = ["table", "create", name, "--schema", schema, "--key", "order_id", "--json"]
    asked = ["--check", "qty > 0", "--check", "sku in ('a', 'b c')", "--conditions", "partition"]
    made = cli(*create, *asked).json[0]
    assert (made["checks"], made["conditions"]) == (["qty > 0", "sku in ('a', 'b c')"], "partition")
    shown = cli("table", "describe", name).out
    assert "\ncheck: qty > 0\ncheck: sku in ('a', 'b c')\n" in shown and "conditional writes: partition" in shown
    assert cli("table", "describe", name, "--json").json[0]["checks"] == made["checks"]
    monkeypatch.setenv("MERGANSER_CHECK", "qty > 0\nsku in ('a', 'b c')\n")
    assert cli(*create).json[0] == made
    monkeypatch.setenv("MERGANSER_CHECK", "qty > 1")
    cli(*create).failed(2, 'its checks are "qty > 0"', 'not "qty > 1"')
    assert cli(*create, "--check", "qty > 0", "--check", "sku in ('a', 'b c')").json[0] == made


def test_a_pipe_gets_each_row_on_one_line(cli: Cli, store: Path) -> None:
    done = cli("query", "select repeat('long ', 200) as text, 'two\nlines' as lines", "--store", store)
    assert len(done.out.splitlines()) == 3 and "two\\nlines" in done.out


@pytest.mark.parametrize("format_", ["json", "csv", "table"])
def test_no_digit_of_a_time_is_lost_in_silence(cli: Cli, store: Path, format_: str) -> None:
    sql = "select timestamp_ns '2026-01-31 12:34:56.123456789' as at, NULL::timestamp_ns as none, 1 as n"
    out = cli("query", sql, "--store", store, "--format", format_).out
    assert "2026-01-31T12:34:56.123456789" in out
    if format_ == "json":
        assert json.loads(out)["none"] is None


@pytest.mark.parametrize("format_", ["json", "csv", "table"])
def test_dates_that_python_has_not_are_shown(cli: Cli, store: Path, format_: str) -> None:
    sql = "select unnest([date '12000-01-01', 'infinity']) as d, ['-infinity'::timestamp, '290000-03-01'] as t"
    out = cli("query", sql, "--store", store, "--format", format_).out
    assert "12000-01-01" in out and out.count("infinity") == 3 and "290000-03-01T00:00:00" in out


def test_an_interval_has_names(cli: Cli, store: Path) -> None:
    sql = "select interval '1 month 2 days 3 seconds' as i"
    expected = {"months": 1, "days": 2, "nanoseconds": 3_000_000_000}
    assert cli("query", sql, "--store", store, "--format", "json").json == [{"i": expected}]
    assert '"months": 1' in cli("query", sql, "--store", store).out


def test_an_object_a_row_does_not_lose_one_of_two_columns_of_one_name(cli: Cli, store: Path) -> None:
    cli("query", "select 1 as a, 2 as a", "--store", store, "--format", "json").failed(2, "named 'a'")
    assert "1,2" in cli("query", "select 1 as a, 2 as a", "--store", store, "--format", "csv").out


def test_the_local_broker_of_an_empty_home(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGANSER_HOME", str(tmp_path))
    assert cli("broker", "status", "--json").json[0]["running"] is False
    assert "not running" in cli("broker", "status").out
    assert cli("broker", "stop").code == 0
    cli("broker", "start", "--brokers", 2).failed(1, "2 brokers")


def test_a_traceback_ends_with_the_hint() -> None:
    with pytest.raises(UnknownTable) as caught:
        raise UnknownTable("ducks")
    assert str(caught.value).count("\n") == 0
    assert "hint: `merganser table list`" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            ["quarantine", "retry", "t", "--store", "s", "--transform", "os:getcwd", "--repaired", "r"],
            "quarantine retry",
        ),
        (["import"], "import"),
    ],
)
def test_an_error_without_a_hint_of_its_own_names_the_command(words: list[str], command: str, cli: Cli) -> None:
    failed = cli(*words)
    assert failed.err.splitlines()[-1] == f"hint: `merganser {command} --help` lists the options"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EROFS, "check who may"),
        (errno.EIO, "--debug export"),
    ],
)
def test_what_a_disk_says_is_one_line_and_a_hint(
    number: int, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**how: object) -> None:
        raise OSError(number, os.strerror(number), "/some/file")

    group = type("App", (), {"__call__": staticmethod(fails)})()
    monkeypatch.setattr(app_module, "app", group)
    monkeypatch.setattr(app_module, "_words", lambda args: "export")
    assert app_module.main(["export"]) == 1
    error, told = capsys.readouterr().err.splitlines()
    assert error == f"error: /some/file: {os.strerror(number)}" and hint in told


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (duckdb.IOException('Could not write file "/f.new": No space left on device'), "make room there"),
        (duckdb.FatalException("Failed to create checkpoint\n\nLINE 1: ..."), "--debug export"),
    ],
)
def test_what_duckdb_says_is_one_line_and_a_hint(
    error: Exception, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**how: object) -> None:
        raise error

    monkeypatch.setattr(app_module, "app", fails)
    monkeypatch.setattr(app_module, "_words", lambda args: "export")
    assert app_module.main(["export"]) == 1
    said, told = capsys.readouterr().err.splitlines()
    assert said == f"error: {str(error).splitlines()[0]}" and hint in told


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**how: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app_module, "app", fails)
    with pytest.raises(ZeroDivisionError):
        app_module.main(["export"])


GROUPS = sorted({words.split()[1] for words in COMMANDS if words.count(" ") > 1})


@pytest.mark.parametrize("words", [[], *([group] for group in GROUPS)])
def test_a_list_of_commands_cuts_no_sentence(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=80).output.split("Commands:")[1]
    assert "..." not in shown


def test_a_decision_on_what_is_no_transaction_is_not_written(cli: Cli, orders: str) -> None:
    wrong = cli("tx", "resolve", "f935f827", "--tables", orders, "--discard")
    wrong.failed(2, "'f935f827' is no transaction's id")
    assert "`merganser status`" in wrong.err
