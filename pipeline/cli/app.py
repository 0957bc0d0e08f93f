"""The ``merganser`` command: its groups put together, and what becomes of an error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ...schemas.disk import hint_of
from ...schemas.errors import MerganserError, UsageError
from . import (
    archive,
    audit,
    backup,
    broker,
    demo,
    erase,
    loading,
    quarantine,
    query,
    replay,
    replica,
    republish,
    restore,
    rows,
    snapshot,
    status,
    tables,
    tx,
    user,
    verify,
)
from .options import option
from .output import emit, say

INTERRUPTED = 130

app = typer.Typer(
    name="merganser",
    help="SQL replicas of a Kafka log: rows in, exact DuckDB tables out.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich alone takes as long to load as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)

demo.register(app)
app.add_typer(broker.app, name="broker")
app.add_typer(tables.app, name="table")
rows.register(app)
loading.register(app)
app.add_typer(replica.app, name="replica")
republish.register(archive.app)
erase.register(archive.app)
app.add_typer(archive.app, name="archive")
query.register(app)
status.register(app)
audit.register(app)
tx.register(app)
app.add_typer(backup.app, name="backup")
restore.register(app)
verify.register(app)
snapshot.register(app)
app.add_typer(user.app, name="user")
replay.register(app)
app.add_typer(quarantine.app, name="quarantine")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        emit(f"merganser {version('merganser')}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, option("--debug", "Tracebacks of errors, and all log lines.")] = False,
) -> None:
    if debug:
        os.environ["MERGANSER_DEBUG"] = "1"
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    else:
        # An error is told once, by its command; `replica run` shows warnings in its own way.
        logging.getLogger("merganser").addHandler(logging.NullHandler())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. An error is one line on stderr and a hint, never a traceback."""
    try:
        result = app(args=None if args is None else list(args), prog_name="merganser", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TyperException as error:
        return _wrong_use(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MerganserError.exit_code
    except Exception as error:
        ours = _ours(error)
        if ours is None or os.environ.get("MERGANSER_DEBUG"):
            raise
        return _failed(ours, _words(sys.argv[1:] if args is None else args))


def _ours(error: Exception) -> MerganserError | None:
    """What to tell of *error*: ours, the system's, or DuckDB's. None of one that is a mistake in the program."""
    if isinstance(error, MerganserError):
        return error
    if isinstance(error, OSError):
        return _of_the_system(error)
    if (duckdb := sys.modules.get("duckdb")) is not None and isinstance(error, duckdb.Error):
        return _of_duckdb(error)
    return None


def _of_the_system(error: OSError) -> MerganserError:
    """What a disk says, a full one or one that cannot be written to."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return MerganserError(": ".join([*names, error.strerror or str(error)])).hinted(hint_of(error))


def _of_duckdb(error: Exception) -> MerganserError:
    """What the system says, in DuckDB's words."""
    return MerganserError(str(error).partition("\n\n")[0]).hinted(hint_of(error))


def _failed(error: MerganserError, command: str) -> int:
    say(f"error: {' '.join(str(error).split())}")
    wrong = f"`merganser {command} --help` lists the options"
    failed = f"`merganser --debug {command} …` shows where it failed"
    say(f"hint: {error.hint or (wrong if isinstance(error, UsageError) else failed)}")
    return error.exit_code


def _words(args: Sequence[str]) -> str:
    """The command among *args*: ``archive check``."""
    command, words = typer.main.get_command(app), []
    for word in args:
        if word in (inner := getattr(command, "commands", {})):
            command = inner[word]
            words.append(word)
    return " ".join(words)


def _wrong_use(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # Typer's own words
    say(f"error: {said}")
    say(f"hint: `{context.command_path if context else 'merganser'} --help` lists the options")
    return UsageError.exit_code
