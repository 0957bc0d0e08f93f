"""Each layer of the guard holds by itself, and is missed when it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from merganser.consumers import replica as replicas
from merganser.consumers import store as stores
from merganser.consumers.dbfile import Limits, open_file
from merganser.consumers.statements import parsed
from merganser.pipeline.serving.guard import rules
from merganser.pipeline.serving.guard.catalog import MAIN
from merganser.pipeline.serving.guard.checked import Checked, Checker
from merganser.pipeline.serving.guard.growth import Growth
from merganser.pipeline.serving.guard.guard import Guard
from merganser.pipeline.serving.guard.rules import HIDDEN_MAIN
from merganser.pipeline.serving.guard.shape import Shape
from serving.escapes import REFUSED, UNGRANTED
from serving.hostile import LIMITS, assault
from serving.test_escapes import through
from serving.world import ORDERS, World, world
from support.naive import both_ways, caught


@pytest.fixture
def served(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as opened:
        yield opened


def unjudged(self: Checker, sql: str, everything: bool) -> Checked:
    """In the place of Checker.check: no look at the statement's type, nor at its names."""
    return Checked(sql, duckdb.extract_statements("SELECT 1")[0], "SELECT 1", Shape(), Growth())


@both_ways
def test_a_read_only_transaction_alone_stops_writes_in_a_query(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checker, "check", unjudged)
    if naive:
        monkeypatch.setattr(replicas, "parsed", lambda sql: parsed(sql.replace(" READ ONLY", "")))
    with world(tmp_path) as served:
        guard = Guard(served.replica, LIMITS)
        with caught(naive):
            escapes = [e for e in REFUSED if e.group == "writes in a CTE" and "FROM (DELETE" not in e.sql]
            assault(served, through(guard), escapes, refused=True)
        guard.close()


class Unlocked:
    """A connection that is never locked down."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def sql(self, text: str) -> Any:
        return None if "access" in text or "lock" in text else self._con.sql(text)


@both_ways
def test_an_instance_that_is_locked_down_alone_reads_no_file_and_takes_no_setting(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checker, "check", unjudged)
    if naive:
        monkeypatch.setattr(stores, "open_file", lambda path, limits: Unlocked(open_file(path, limits)))
    with world(tmp_path, limits=Limits(memory=100 * 2**20)) as served:
        guard = Guard(served.replica, LIMITS)
        with caught(naive):
            escapes = [e for e in REFUSED if e.group == "files read" or e.sql.startswith(("SET GLOBAL", "RESET lock"))]
            assault(served, through(guard), escapes, refused=True)
        guard.close()


@both_ways
def test_names_are_judged_by_the_syntax_tree(naive: bool, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naive: by DuckDB's own list of the tables that a query names, which lacks what functions read."""
    guard = Guard(served.replica, LIMITS)
    if naive:

        def listed(shape: Shape, catalog: str, granted: Any, stored: Any) -> None:
            with served.replica.reading() as cursor:
                names = cursor.get_table_names(latest[0])
            if granted is not None and not names <= set(granted):
                raise rules.NotAllowed("not granted")

        latest = [""]
        check = Checker.check
        monkeypatch.setattr("merganser.pipeline.serving.guard.guard.grant", listed)
        monkeypatch.setattr(rules, "allow", lambda *args: None)
        monkeypatch.setattr(Checker, "check", lambda s, sql, e: (latest.__setitem__(0, sql), check(s, sql, e))[1])
    with caught(naive):
        assault(served, through(guard, frozenset({ORDERS})), UNGRANTED, refused=True)
    guard.close()


def test_no_function_and_no_view_of_duckdb_is_new() -> None:
    """What reaches beyond its arguments was looked for in these. When DuckDB has more, look again (rules.py)."""
    with duckdb.connect(":memory:") as con:
        volatile = {
            name
            for (name,) in con.sql(
                "SELECT DISTINCT function_name FROM duckdb_functions()"
                " WHERE function_type = 'scalar' AND (stability = 'VOLATILE' OR has_side_effects)"
            ).fetchall()
        }
        views = {n for (n,) in con.sql("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main'").fetchall()}
    harmless = {
        *("error", "gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"),
        *("current_connection_id", "current_query_id", "current_transaction_id"),
    }
    assert volatile - harmless <= rules._REFUSED
    told = {"duckdb_columns", "duckdb_constraints", "duckdb_indexes", "duckdb_schemas", "duckdb_tables"}
    assert views == HIDDEN_MAIN | told | {"duckdb_types", "duckdb_views", "sqlite_master", "sqlite_schema"}
    assert MAIN == "main"
