"""What a query comes to when it is planned, counted from its syntax tree."""

from __future__ import annotations

import json

import duckdb
import pytest

from merganser.pipeline.serving.guard.growth import Growth, growth_of


def growth(sql: str) -> Growth:
    with duckdb.connect(":memory:") as con:
        [(text,)] = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    return growth_of(json.loads(text))


@pytest.mark.parametrize(
    ("sql", "tables", "aliases", "joins"),
    [
        ("SELECT 1", 1, 0, 0),
        ("SELECT count(*) FROM t", 1, 0, 0),
        ("SELECT * FROM a, b JOIN c ON true", 3, 0, 2),
        ("SELECT *, * FROM (SELECT *, *, * FROM t)", 6, 0, 0),
        ("SELECT a.*, b.* FROM a, b", 2, 0, 1),
        ("SELECT a.*, a.*, b.*, COLUMNS(*) FROM a, b", 6, 0, 1),
        ("SELECT *, (SELECT max(x) FROM u) FROM t", 2, 0, 0),
        ("SELECT *, * FROM t WHERE x IN (SELECT y FROM u)", 3, 0, 0),
        ("WITH c AS (SELECT * FROM t, u), d AS (FROM c x, c y) SELECT * FROM d, c", 6, 0, 3),
        ("WITH C AS (SELECT *, * FROM t) SELECT *, * FROM c", 4, 0, 0),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r, t) FROM r", 2, 0, 1),
        ("SELECT * FROM t UNION ALL SELECT * FROM t", 2, 0, 0),
        ("SELECT x AS a, a + a AS b, b + b AS c FROM t", 1, 2 + 2 * 5, 0),
        ("SELECT x AS a, y AS b, a + b AS c FROM t", 1, 2, 0),
    ],
)
def test_a_query_is_counted_as_often_as_it_is_planned(sql: str, tables: int, aliases: int, joins: int) -> None:
    assert growth(sql) == (tables, aliases, joins)


def test_what_grows_without_end_is_counted_at_once() -> None:
    ctes = ", ".join(f"a{n} AS (FROM a{n - 1} l, a{n - 1} r)" for n in range(1, 280))
    assert growth(f"WITH a0 AS (FROM t), {ctes} FROM a279").tables == 10**9
    assert growth("SELECT 1 AS a0" + "".join(f", a{n - 1} + a{n - 1} AS a{n}" for n in range(1, 500))).aliases == 10**9
