"""``merganser verify``: do two replicas hold the same?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import MerganserError, UsageError
from .nodes import Authority, UserName, open_client
from .options import AsJson, option
from .output import emit_json, emit_table, say

if TYPE_CHECKING:
    from ..serving.client.client import Client

Replicas = Annotated[tuple[str, str], option("--replicas", "The addresses of two nodes.")]
Patience = Annotated[float, option("--timeout", "Seconds to wait for a common position.", min=0.1)]

#: Between two tries to find both at one position.
_PAUSE_S = 0.2


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    replicas: Replicas,
    user: UserName = None,
    ca: Authority = None,
    timeout: Patience = 60.0,
    json: AsJson = False,
) -> None:
    """Compare the digests of all tables of two nodes.

    Of each table, where both stand at one position. Waits for that, --timeout seconds at most: on a log that never
    rests both are seldom there. For operators. Exit 1 if a table differs, or could not be compared.
    """
    with open_client(replicas[0], user, ca) as left, open_client(replicas[1], user, ca) as right:
        found = compared(asking(left), asking(right), timeout)
    if json:
        emit_json(found.facts())
    else:
        rows = [(name, *shown) for name, shown in found.rows()]
        emit_table(["table", "", "digest", "position"], rows)
    for name in sorted(found.alone):
        say(f"{name} is at one of both only")
    found.check()


@dataclass(frozen=True)
class Facts:
    """A table as one replica has it."""

    position: str
    digest: str
    quarantine: str


#: Asks one replica for its tables, once it has reached a position.
Asking = Callable[[str, float], Mapping[str, Facts]]


@dataclass
class Compared:
    """What came out: of each table that both have, what each said of it at one position."""

    both: dict[str, tuple[Facts, Facts]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)

    @property
    def differing(self) -> list[str]:
        return sorted(name for name, (left, right) in self.both.items() if left != right)

    def check(self) -> None:
        """Raise if anything differs, or could not be compared."""
        if self.differing:
            raise ReplicasDiffer(self.differing)
        if self.waiting:
            names = ", ".join(sorted(self.waiting))
            error = MerganserError(f"the replicas did not come to one position in time, of {names}")
            error.hint = "give a longer --timeout, or try again when less is written"
            raise error

    def rows(self) -> list[tuple[str, tuple[str, str, str]]]:
        rows = []
        for name, (left, right) in sorted(self.both.items()):
            same = left == right
            digest = left.digest if same else f"{left.digest} / {right.digest}"
            rows.append((name, ("same" if same else "DIFFERS", digest, left.position)))
        return rows + [(name, ("not compared", "", "")) for name in sorted(self.waiting)]

    def facts(self) -> dict[str, Any]:
        tables = [
            {"table": name, "same": left == right, "position": left.position, "digests": [left.digest, right.digest],
             "quarantine_digests": [left.quarantine, right.quarantine]}
            for name, (left, right) in sorted(self.both.items())
        ]  # fmt: skip
        return {"tables": tables, "not_compared": sorted(self.waiting), "only_one_has": sorted(self.alone)}


class ReplicasDiffer(MerganserError):
    """Two replicas at one position that do not hold the same: what must never be."""

    def __init__(self, tables: list[str]) -> None:
        super().__init__(f"the replicas differ at one position: {', '.join(tables)}")
        self.hint = "keep both stores for a look at them; `merganser audit --log` tells which one is off"


def compared(left: Asking, right: Asking, timeout_s: float, now: Callable[[], float] = time.monotonic) -> Compared:
    """Ask both until each table that both have was found at one position, for *timeout_s* at most."""
    until_s = now() + timeout_s
    found = Compared()
    first, second, swapped = left, right, False
    while True:
        one = first("", until_s - now())
        # The second waits until it has got there; should it be further by then, it is the first next time.
        other = second(_reached(one), max(0.1, until_s - now()))
        a, b = (other, one) if swapped else (one, other)
        found.alone = set(a) ^ set(b)
        if not set(a) & set(b):
            raise UsageError("the replicas have no table in common")
        for name in set(a) & set(b):
            if a[name].position == b[name].position:
                found.both.setdefault(name, (a[name], b[name]))
        found.waiting = (set(a) & set(b)) - set(found.both)
        if not found.waiting or now() >= until_s:
            return found
        first, second, swapped = second, first, not swapped
        time.sleep(min(_PAUSE_S, max(0.0, until_s - now())))


def _reached(tables: Mapping[str, Facts]) -> str:
    return ",".join(facts.position for facts in tables.values() if facts.position)


def asking(client: Client) -> Asking:
    """Asks the node of *client*."""

    def ask(after: str, timeout_s: float) -> Mapping[str, Facts]:
        body = {"after": after, "timeout": max(0.1, timeout_s)}
        found = client.ask("POST", "/digests", body, timeout=timeout_s + 600)
        return {t["table"]: Facts(t["position"], t["digest"], t["quarantine_digest"]) for t in found["tables"]}

    return ask
