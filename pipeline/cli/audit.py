"""``merganser audit``: is every offset accounted for?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import AuditFailed, WrongCluster
from .options import DEFAULT_TIMEOUT_S, AsJson, RegistryUrl, Servers, Store, Timeout, open_log, option
from .output import emit, emit_json, emit_table, say

if TYPE_CHECKING:
    from ...consumers.audit import Account

AgainstLog = Annotated[bool, option("--log", "Read the log again and count its records, so that a gap is proven one.")]

_TERMS = ("live", "superseded", "deletes", "quarantined", "rejected", "repeated", "pending", "gaps")

#: Of transactions, conditions and operation ids: shown where there are any.
_RARE = {"rejected", "repeated", "pending"}


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    store: Store,
    log: AgainstLog = False,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Account for every offset of a store at rest. Prints a digest of each table.

    live + superseded + deletes + quarantined + rejected + repeated + pending + gaps = offsets, for each
    table; no offset and no key has two rows. Two stores at one position have the same digests. Exit 1 names
    what is off.
    """
    from ...consumers.audit import audit_log, audit_store
    from ...consumers.storefile import StoreFile

    with StoreFile(store) as found:
        with found.reading() as cursor:
            accounts = audit_store(cursor)
        derived = sorted(found.derived())
        path, cluster_id = str(found.path), found.cluster_id
    if log:
        with open_log(bootstrap_servers, registry, timeout) as kafka:
            if kafka.cluster_id != cluster_id:
                raise WrongCluster(path, cluster_id, kafka.cluster_id)
            accounts = audit_log(accounts, kafka, timeout)
    if json:
        for account in accounts:
            emit_json(fields(account))
    else:
        show(accounts, log)
        if derived:
            say(f"left out, since no log accounts for them: derived tables {', '.join(derived)}")
    wrong = [line for account in accounts for line in account.wrong]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise AuditFailed(path, wrong[0] + more)


def show(accounts: list[Account], with_log: bool) -> None:
    terms = [term for term in _TERMS if term not in _RARE or any(getattr(a, term) for a in accounts)]
    rows = [(a.table, f"{a.offsets:,}", "=", *(f"{getattr(a, term):,}" for term in terms)) for a in accounts]
    emit_table(["table", "offsets", "", *terms], rows, numeric=["offsets", *terms])
    for account in accounts:
        emit(f"digest of {account.table}: {account.digest}")
        if account.quarantine_digest and account.quarantine_digest.rows:
            emit(f"digest of {account.table} in quarantine: {account.quarantine_digest}")
    for account in accounts:
        for line in account.wrong:
            say(f"off: {line}")
        for line in account.unproven:
            say(f"unproven: {line}")
    if not any(a.wrong for a in accounts):
        proven = with_log and not any(a.unproven for a in accounts)
        emit("Every offset is accounted for." + (" The log has exactly these records." if proven else ""))


def fields(account: Account) -> dict[str, Any]:
    return {
        "table": account.table,
        "position": str(account.position),
        "offsets": account.offsets,
        **{term: getattr(account, term) for term in _TERMS},
        "digest": str(account.digest),
        "quarantine_digest": str(account.quarantine_digest),
        "wrong": list(account.wrong),
        "unproven": list(account.unproven),
    }
