"""Who may read some tables only hears nothing of the others: no name, no position, not what has become of them."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import merganser as mg
from merganser.pipeline.serving.guard import guard as guards
from merganser.pipeline.serving.guard.ask import Ask
from merganser.pipeline.serving.guard.guard import Guard
from merganser.pipeline.serving.http import app, health
from merganser.pipeline.serving.users.secrets import Hash
from merganser.pipeline.serving.users.users import User, changing
from merganser.schemas.errors import (
    BadQuery,
    MerganserError,
    NotAllowed,
    NotFreshEnough,
    RetentionLost,
    TornTransaction,
)
from serving.test_http_door import CHEAP, served
from serving.world import HIDDEN, ORDERS, World, world
from support.naive import both_ways, caught

MINE = frozenset({ORDERS})


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, rows=5) as opened:
        yield opened


def told(guard: Guard, ask: Ask, tables: frozenset[str] | None = MINE) -> MerganserError:
    with pytest.raises(MerganserError) as raised:
        guard.ask(ask, tables=tables)
    return raised.value


def later(served: World, monkeypatch: pytest.MonkeyPatch, table: str, offsets: int) -> None:
    """The log's end of *table* is so much further than what it gives."""
    ends = served.log.ends

    def further(partitions: Any, timeout_s: float | None = None) -> mg.Position:
        return mg.Position({tp: n + offsets * (tp.topic == table) for tp, n in ends(partitions).items()})

    monkeypatch.setattr(served.log, "ends", further)


@both_ways
def test_an_error_of_freshness_tells_of_granted_tables_only(
    naive: bool, alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(guards, "heard", lambda error, granted: error)
    later(alone, monkeypatch, HIDDEN, 4321)
    guard = Guard(alone.replica)
    asks = (
        Ask("SELECT 1", level="strong", timeout=0.1),
        Ask("SELECT 1", level="bounded", max_staleness=0.001, timeout=0.1),
    )
    for ask in asks:
        everything = told(guard, ask, None)
        assert isinstance(everything, NotFreshEnough) and f"{HIDDEN}/0 by 4321" in str(everything)
        with caught(naive):
            error = told(guard, ask)
            assert isinstance(error, NotFreshEnough)
            assert HIDDEN not in str(error) and "4321" not in str(error)
    error = told(guard, Ask("SELECT 1", after=f"{HIDDEN}/0:4322,{ORDERS}/0:105", timeout=0.1))
    assert f"100 offsets behind, {ORDERS}/0 by 100" in str(error) and HIDDEN not in str(error)
    guard.close()


@both_ways
@pytest.mark.parametrize("token", [f"{HIDDEN}/0:1", f"{HIDDEN}/0:4322", f"{HIDDEN}/9:1", "nowhere/0:1"])
def test_a_token_does_not_find_out_how_far_other_tables_are(
    naive: bool, token: str, alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor whether there are any: it is answered alike, and the answer reaches it."""
    if naive:
        monkeypatch.setattr(guards, "waited_for", lambda after, granted: after)
    guard = Guard(alone.replica)
    late = naive and token != f"{HIDDEN}/0:1"
    with caught(late):
        with guard.ask(Ask("SELECT 1", after=token, timeout=0.1 if late else 30), tables=MINE) as answer:
            assert answer.applied.reaches(mg.Position.parse(token)) and str(answer.applied).startswith(token)
    guard.close()


def test_a_table_without_a_grant_is_refused_before_anything_is_waited_for(
    alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(alone, monkeypatch, HIDDEN, 4321)
    guard = Guard(alone.replica)
    asked = threading.Event()
    monkeypatch.setattr(alone.replica, "goal", lambda *args: asked.set())
    assert isinstance(told(guard, Ask(f"SELECT * FROM {HIDDEN}", level="strong")), NotAllowed)
    assert not asked.is_set()
    guard.close()


@both_ways
def test_why_a_table_stopped_is_told_to_who_may_know_it(
    naive: bool, alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if naive:
        monkeypatch.setattr(guards, "heard", lambda error, granted: error)
    guard = Guard(alone.replica)
    progress = alone.replica._progress
    progress.stop_table(RetentionLost(HIDDEN, "its next record 41 is gone"))
    progress.stop_table(TornTransaction(ORDERS, f"transaction t lacks records for good: 1 in {HIDDEN}/0", tx="t"))
    with caught(naive):
        mine = told(guard, Ask("SELECT 1", after=f"{ORDERS}/0:1000"))
        assert isinstance(mine, TornTransaction) and mine.table == ORDERS and HIDDEN not in str(mine)
    assert HIDDEN in str(told(guard, Ask("SELECT 1", after=f"{ORDERS}/0:1000"), None))
    guard.close()


@both_ways
def test_duckdb_does_not_say_which_names_are_alike(naive: bool, alone: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if naive:
        monkeypatch.setattr(guards, "heard", lambda error, granted: error)
    guard = Guard(alone.replica)
    misspelt = HIDDEN.replace("dd", "d")
    assert HIDDEN in str(told(guard, Ask(f"SELECT * FROM {misspelt}"), None))
    with caught(naive):
        error = told(guard, Ask(f"SELECT * FROM {misspelt}"), MINE | {misspelt})
        assert isinstance(error, BadQuery) and misspelt in str(error) and HIDDEN not in str(error)
    guard.close()


@both_ways
def test_no_path_of_the_http_door_tells_of_other_tables(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the apply loop waits for, and what it ended with, may name any table; so may an error."""
    if naive:
        monkeypatch.setattr(health, "_plainly", lambda what, user, plain: what)
        monkeypatch.setattr(app, "heard", lambda error, granted: error)
        monkeypatch.setattr(guards, "heard", lambda error, granted: error)
    with changing(tmp_path / "users") as change:
        change.add(User("some", "operator", MINE, Hash.of("correct horse", CHEAP)))
        change.add(User("ops", "operator", password=Hash.of("correct horse", CHEAP)))
    mine, all_ = ({"Authorization": "Basic " + base64.b64encode(f"{user}:correct horse".encode()).decode()}
                  for user in ("some", "ops"))  # fmt: skip
    with served(tmp_path, users=tmp_path / "users") as door:
        progress = door.world.replica._progress
        progress.waiting_for(f"the schema of {HIDDEN}-value")
        progress.stop_table(TornTransaction(ORDERS, f"transaction t lacks records for good: 1 in {HIDDEN}/0"))
        progress.fail(RetentionLost(HIDDEN, "all of it is gone"))
        late = b'{"after": "%s/0:9999", "timeout": 0.1}' % HIDDEN.encode()
        paths = (("GET", "/status"), ("GET", "/live"), ("GET", "/position"), ("GET", "/tables"), ("POST", "/digests"),
                 ("GET", "/readyz"), ("GET", f"/query?sql=select+1&after={ORDERS}%2F0%3A9999&timeout=0.1"))  # fmt: skip
        shown = []
        for method, path in paths:
            body = late if method == "POST" else None
            if path != "/readyz":
                assert HIDDEN in door.ask(method, path, body, **all_).body.decode(), path
            shown.append(door.ask(method, path, body, **mine).body.decode())
        with caught(naive):
            assert [text for text in shown if HIDDEN in text or "-value" in text] == []
        assert '"ready":false' in shown[0] and '"failed":"' in shown[0]
