"""Queries that DuckDB plans for minutes when they are made large, each of a few hundred characters.

``python -m tests.serving.planning`` plans the largest of each family that the guard lets through, and says how long it
took: a family that is far above the others shows that a bound in ``guard/rules.py`` does not hold.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import duckdb

from merganser.pipeline.serving.guard.ask import ServingLimits
from merganser.pipeline.serving.guard.checked import Checker
from merganser.schemas.errors import NotAllowed

TABLE = "CREATE TABLE t (id BIGINT, qty INTEGER)"


class Family(NamedTuple):
    """*head*, *part* so many times with *between*, *tail*. *usual* of them are nothing special; *many* take long."""

    head: str
    part: str
    between: str
    tail: str
    usual: int
    many: int

    def sql(self, size: int) -> str:
        """In a part, ``<i>`` is its number, ``<i-1>`` the one before."""
        parts = (self.part.replace("<i>", str(i)).replace("<i-1>", str(i - 1)) for i in range(1, size + 1))
        tail = self.tail.replace("<n>", str(size)).replace("<)>", ")" * size)
        return self.head + self.between.join(parts) + tail


_SUB = "(SELECT max(p.id) FROM t p WHERE p.qty = o.qty)"

FAMILIES = {
    "nested": Family(
        "SELECT 1 FROM t o0 WHERE o0.id = ",
        "(SELECT max(o<i>.id) FROM t o<i> WHERE o<i>.qty = o<i-1>.qty AND o<i>.id >= ",
        "",
        "0<)>",
        12,
        60,
    ),
    "side by side": Family("SELECT ", _SUB, ", ", " FROM t o", 12, 60),
    "exists": Family("FROM t o WHERE ", "EXISTS (FROM t p WHERE p.qty = o.qty + <i>)", " OR ", "", 12, 60),
    "in": Family("FROM t o WHERE ", "o.id IN (SELECT p.id FROM t p WHERE p.qty = o.qty + <i>)", " AND ", "", 12, 60),
    "array": Family("SELECT ", "ARRAY(SELECT p.id FROM t p WHERE p.qty = o.qty + <i>)", ", ", " FROM t o", 12, 60),
    "between": Family("FROM t o WHERE ", f"{_SUB} BETWEEN 1 AND <i>", " AND ", "", 12, 60),
    "case": Family("SELECT CASE ", f"WHEN {_SUB} = <i> THEN {_SUB}", " ", " END FROM t o", 6, 60),
    "lateral": Family(
        "FROM t l0(m, qty), ",
        "LATERAL (SELECT max(x.id) + l<i-1>.m, 1 FROM t x WHERE x.qty = l0.qty) l<i>(m, qty)",
        ", ",
        "",
        8,
        30,
    ),
    "unnest": Family("FROM t u0(x, y), ", "unnest([u<i-1>.x]) u<i>(x)", ", ", "", 8, 60),
    "an alias in WHERE": Family(f"SELECT {_SUB} AS a FROM t o WHERE ", "a", " + ", " > 0", 10, 200),
    "an alias of aliases": Family("SELECT id AS a0, ", "a<i-1> + a<i-1> AS a<i>", ", ", " FROM t", 6, 60),
    "a WITH of WITHs": Family(
        "WITH c0 AS (FROM t), ",
        f"c<i> AS (SELECT o.id, {_SUB} AS qty FROM c<i-1> o)",
        ", ",
        " FROM c<n>",
        12,
        120,
    ),
    "columns": Family("SELECT COLUMNS(*)", f" + {_SUB}", "", " FROM t o", 0, 1),
    "cube": Family("SELECT count(*) FROM t GROUP BY CUBE (", "id + <i>", ", ", ")", 5, 8),
    "rollup": Family("SELECT count(*) FROM t GROUP BY ROLLUP (", "id + <i>", ", ", ")", 12, 64),
    "grouping sets": Family("SELECT count(*) FROM t GROUP BY GROUPING SETS (", "(id + <i>)", ", ", ")", 20, 300),
    "union": Family("", "SELECT id FROM t WHERE id = <i>", " UNION ALL ", "", 100, 400),
    "join": Family("FROM t j0 ", "JOIN t j<i> ON j<i>.id = j<i-1>.id AND j<i>.qty > 0", " ", "", 20, 100),
}


def largest(checker: Checker, family: Family) -> int:
    """How many parts the guard lets through."""
    size = family.usual
    while size < family.many:
        try:
            checker.check(family.sql(size + 1), True)
        except NotAllowed:
            break
        size += 1
    return size


def main() -> None:
    checker = Checker(ServingLimits())
    for name, family in FAMILIES.items():
        size = largest(checker, family)
        with duckdb.connect(":memory:", config={"threads": 2}) as con:
            con.execute(TABLE)
            began_s = time.perf_counter()
            con.execute("EXPLAIN " + family.sql(size)).fetchall() if size else None
            print(f"{name:22} {size:4} {time.perf_counter() - began_s:8.3f} s", flush=True)
    checker.close()


if __name__ == "__main__":
    main()
