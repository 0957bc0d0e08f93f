"""``merganser user``: who may ask a node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...schemas.errors import UsageError
from .options import AsJson, comma_separated, option
from .output import emit, emit_json, emit_table, say

if TYPE_CHECKING:
    from ..serving.users.users import User

app = typer.Typer(help="Users of a node's doors.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who logs in.")]
UsersFile = Annotated[Path, option("--users", "The file of users; made if it is not there.", dir_okay=False)]
Role = Annotated[
    Literal["reader", "operator"], option("--role", "reader: queries. operator: backups and snapshots too.")
]
Tables = Annotated[str | None, option("--tables", "The only tables that the user may read, comma-separated.")]
Token = Annotated[bool, option("--token", "Also make a token, for programs, and print it: it is shown this once.")]
NoPassword = Annotated[bool, option("--no-password", "A token only.")]
Again = Annotated[bool, option("--again", "Replace the user of that name, if there is one.")]

#: Where the password is, for scripts; never among the arguments, which every process can read.
PASSWORD = "MERGANSER_PASSWORD"


@app.callback()
def _group() -> None:
    """Users of a node's doors."""


@app.command()
def add(
    name: Name,
    users: UsersFile,
    role: Role = "reader",
    tables: Tables = None,
    token: Token = False,
    no_password: NoPassword = False,
    again: Again = False,
    json: AsJson = False,
) -> None:
    """Add a user. A node that runs takes the file over within a second.

    The password comes from MERGANSER_PASSWORD, from a prompt, or from stdin (its first line); never from an argument.
    """
    from ..serving.users.secrets import Hash, check_password, new_token, token_hash
    from ..serving.users.users import User, changing

    grants = None if tables is None else frozenset(comma_separated(tables))
    if grants is not None and not grants:
        raise UsageError("--tables names no table")
    if no_password and not token:
        raise UsageError("--no-password leaves nothing to log in with: give --token too")
    User(name, role, grants)  # refused before a password is asked for
    hashed = None if no_password else Hash.of(check_password(_password(name)))
    made = new_token(name) if token else None
    user = User(name, role, grants, hashed, token_hash(made) if made else None)
    with changing(users) as change:
        change.add(user, again=again)
    if json:
        emit_json({**_facts(user), **({"token": made} if made else {})})
        return
    say(f"user {name} ({role}) is in {users}")
    if made:
        emit(made)


@app.command(name="list")
def list_(users: UsersFile, json: AsJson = False) -> None:
    """Every user of a file: role, tables, what they log in with. No secrets."""
    from ..serving.users.users import read_users

    found = [user for _, user in sorted(read_users(users).by_name.items())]
    if json:
        for user in found:
            emit_json(_facts(user))
        return
    emit_table(["user", "role", "tables", "logs in with"], (_row(user) for user in found))


@app.command()
def remove(name: Name, users: UsersFile, json: AsJson = False) -> None:
    """Remove a user. Queries that run go on; the next request is refused."""
    from ..serving.users.users import changing, read_users

    read_users(users)  # a file that is not there is not made
    with changing(users) as change:
        change.remove(name)
    emit_json({"user": name, "removed": True}) if json else say(f"user {name} is removed from {users}")


def _facts(user: User) -> dict[str, Any]:
    return {
        "user": user.name,
        "role": user.role,
        "tables": None if user.tables is None else sorted(user.tables),
        "has_password": user.password is not None,
        "has_token": user.token is not None,
    }


def _row(user: User) -> tuple[str, ...]:
    ways = [way for way, there in (("password", user.password), ("token", user.token)) if there]
    return (user.name, user.role, "all" if user.tables is None else ", ".join(sorted(user.tables)), ", ".join(ways))


def _password(name: str) -> str:
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline(4096).rstrip("\r\n")
