"""``merganser tx``: transactions that need an operator's decision."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ...schemas.errors import UsageError
from .options import DEFAULT_TIMEOUT_S, RegistryUrl, Servers, Timeout, comma_separated, open_log, option
from .output import say

Id = Annotated[str, typer.Argument(metavar="ID", help="The transaction's id, as the stopped table's error names it.")]
Tables = Annotated[str, option("--tables", "All tables that it wrote to: those that stopped, comma-separated.")]
Apply = Annotated[bool, option("--apply", "Show what there is of it.")]
Discard = Annotated[bool, option("--discard", "Show nothing of it; its records are listed as rejected.")]


#: What a producer gives a transaction. Anything else would be written into the log for good, and decide nothing.
_ID = re.compile(r"[0-9a-f]{32}")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Transactions that need a decision.")
    group.command()(resolve)
    app.add_typer(group, name="tx")


def resolve(
    id: Id,
    tables: Tables,
    apply: Apply = False,
    discard: Discard = False,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Decide on a transaction that lacks records for good.

    The decision is written into the log, for every replica alike. Replicas whose tables stopped take it when they
    are started again.
    """
    if apply == discard:
        raise UsageError("say either --apply or --discard")
    names = comma_separated(tables)
    if not names:
        raise UsageError("--tables names no table")
    if not _ID.fullmatch(id):
        error = UsageError(f"{id!r} is no transaction's id, which has 32 hexadecimal digits")
        error.hint = "the error of the stopped table names it: `merganser status` shows that"
        raise error
    with open_log(bootstrap_servers, registry, timeout) as log:
        log.resolve(id, names, "apply" if apply else "discard")
    say(f"transaction {id}: {'apply' if apply else 'discard'}. Start the replicas that stopped again.")
