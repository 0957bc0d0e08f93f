"""Hostile SQL over HTTP: all of it, and it gets nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

import merganser as mg
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.users.secrets import new_token, token_hash
from merganser.pipeline.serving.users.users import User, changing
from serving.escapes import BOUNDED, REFUSED, UNGRANTED, Escape
from serving.hostile import GROUPS, Door, assault
from serving.world import ORDERS, World


@pytest.fixture(scope="module")
def clients(served: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, mg.Client]]:
    """Of one who may read all, and of one who may read orders only; of the first one again, where queries have time."""
    users, tokens = tmp_path_factory.mktemp("users") / "users", {name: new_token(name) for name in ("all", "some")}
    with changing(users) as change:
        change.add(User("all", "reader", token=token_hash(tokens["all"])))
        change.add(User("some", "reader", frozenset({ORDERS}), token=token_hash(tokens["some"])))
    hasty, patient = (
        Doors(ServeConfig(http="127.0.0.1:0", users=users, query_s=seconds), served.replica, served.log)
        for seconds in (1.5, 60)
    )
    with hasty, patient:
        opened = {name: mg.Client(str(hasty.http), auth=token) for name, token in tokens.items()}
        opened["patient"] = mg.Client(str(patient.http), auth=tokens["all"])
        yield opened
        for client in opened.values():
            client.close()


def through(client: mg.Client) -> Door:
    def door(sql: str) -> pa.Table:
        return client.query(sql).arrow()

    return door


def _of(escapes: list[Escape]) -> list[str]:
    return list(dict.fromkeys(escape.group for escape in escapes))


def _refused() -> list[object]:
    """Each group; the endless ones take their time-out each, and are for the long form."""
    return [pytest.param(group, marks=[pytest.mark.slow] if group == "endless" else []) for group in _of(REFUSED)]


@pytest.mark.parametrize("group", _refused())
def test_hostile_sql_is_refused(group: str, served: World, clients: dict[str, mg.Client]) -> None:
    assault(served, through(clients["all"]), GROUPS[group], refused=True)


@pytest.mark.parametrize("group", _of(BOUNDED))
def test_what_only_looks_hostile_changes_nothing(group: str, served: World, clients: dict[str, mg.Client]) -> None:
    assert assault(served, through(clients["patient"]), GROUPS[group], refused=False) <= 2


@pytest.mark.parametrize("group", _of(UNGRANTED))
def test_a_table_without_a_grant_is_not_read_in_any_way(
    group: str, served: World, clients: dict[str, mg.Client]
) -> None:
    assault(served, through(clients["some"]), GROUPS[group], refused=True)
