"""What a query comes to when it is planned, counted from its syntax tree."""

from __future__ import annotations

import json

import duckdb
import pytest

from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.guard.checked import Checker
from merganser.pipeline.serving.guard.growth import Growth, growth_of
from merganser.schemas.errors import NotAllowed
from serving.planning import FAMILIES, TABLE


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
        ("SELECT x + y AS a FROM t WHERE a > 1 ORDER BY a", 1, 2 * 3, 0),
        ("SELECT x + y AS a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE z = a)", 2, 3, 0),
    ],
)
def test_a_query_is_counted_as_often_as_it_is_planned(sql: str, tables: int, aliases: int, joins: int) -> None:
    assert growth(sql)[:3] == (tables, aliases, joins)


@pytest.mark.parametrize(
    ("sql", "subqueries", "groupings"),
    [
        ("SELECT 1 FROM (SELECT 1) s", 0, 0),
        ("SELECT (SELECT 1), EXISTS (FROM t), ARRAY(FROM t), x IN (SELECT (SELECT 1)) FROM t", 5, 0),
        ("SELECT 1 FROM t, (SELECT x) l", 2, 0),
        ("SELECT 1 FROM (SELECT 1) k JOIN (SELECT x) l ON true, unnest([1]) m", 6, 0),
        ("SELECT (SELECT (SELECT 1)) AS a FROM t WHERE a + a > 1", 6, 0),
        ("SELECT (SELECT 1) AS a, a + a AS b, b + b AS c FROM t ORDER BY a", 1 + 2 + 4 + 1, 0),
        ("SELECT (SELECT 1) AS a FROM t WHERE EXISTS (FROM u WHERE z = a)", 3, 0),
        ("WITH c AS (SELECT (SELECT 1) FROM t) FROM c x, c y", 2, 0),
        ("WITH c AS (SELECT (SELECT 1) FROM t), d AS (FROM c x, c y) FROM d x, d y", 4, 0),
        ("SELECT COLUMNS(*) + (SELECT 1) FROM t", 10**9, 0),
        ("SELECT *, (SELECT 1) FROM t", 1, 0),
        ("SELECT 1 FROM t GROUP BY a, b", 0, 0),
        ("SELECT 1 FROM t GROUP BY CUBE (a, b, c)", 0, 8),
        ("SELECT 1 FROM t GROUP BY ROLLUP (a, b, c, d, e, f, g, h, i, j)", 0, 55 // 4),
        ("SELECT 1 FROM t GROUP BY GROUPING SETS (a, b, c) UNION ALL SELECT 1 FROM t GROUP BY CUBE (a, b)", 0, 7),
    ],
)
def test_subqueries_and_groupings_are_too(sql: str, subqueries: int, groupings: int) -> None:
    assert growth(sql)[3:] == (subqueries, groupings)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_takes_long_to_plan_is_refused_and_what_is_usual_is_not(name: str) -> None:
    family, checker = FAMILIES[name], Checker(ServingLimits())
    if family.usual:
        checker.check(family.sql(family.usual), True)
        with duckdb.connect(":memory:") as con:  # it is SQL, too
            con.execute(TABLE)
            con.execute(f"EXPLAIN {family.sql(family.usual)}").fetchall()
    with pytest.raises(NotAllowed, match=r"comes? to more|groups by more|has more than"):
        checker.check(family.sql(family.many), True)
    checker.close()


def test_what_grows_without_end_is_counted_at_once() -> None:
    ctes = ", ".join(f"a{n} AS (FROM a{n - 1} l, a{n - 1} r)" for n in range(1, 280))
    assert growth(f"WITH a0 AS (FROM t), {ctes} FROM a279").tables == 10**9
    assert growth("SELECT 1 AS a0" + "".join(f", a{n - 1} + a{n - 1} AS a{n}" for n in range(1, 500))).aliases == 10**9
