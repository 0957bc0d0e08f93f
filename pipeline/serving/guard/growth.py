"""How much a query grows while DuckDB plans it, read off its syntax tree. Pure.

A query of a few hundred characters may stand for millions of columns or expressions: ``SELECT *, *`` of the same, a
WITH that reads the one before it twice, an alias made of the one before it twice. And what subqueries cost to plan goes
by the square of how many there are, or worse, since each is made a join; sets to group by are much alike. Planning
cannot be interrupted, and a schema change waits for it; so what a query comes to is counted before. Where names could
mean several things it is counted too high, never too low.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Beyond this nobody needs to know how much it is.
_ENOUGH = 10**9

#: What of a SELECT cannot use the names that it gives to its columns.
_BEFORE_NAMES = frozenset({"cte_map", "from_table", "select_list"})


class Growth(NamedTuple):
    """*tables*: those in FROM, as often as each is planned, times the stars above it. *aliases*: expressions that stand
    in the place of aliases. *joins*: joins and commas. *subqueries*: in expressions, as often as each is planned; one
    that is joined counts twice. *groupings*: the sets that queries group by, where it is more than one (``CUBE``)."""

    tables: int = 0
    aliases: int = 0
    joins: int = 0
    subqueries: int = 0
    groupings: int = 0


def growth_of(tree: Mapping[str, Any]) -> Growth:
    """What the one statement in *tree* grows to."""
    root = tree["statements"][0]["node"]
    sizes = _sizes(root)
    parts: defaultdict[str, _Part] = defaultdict(_Part)  # by the name of a WITH, empty for the query itself
    aliases = joins = 0
    waiting: list[tuple[Any, str, int]] = [(root, "", 1)]
    while waiting:
        node, owner, factor = waiting.pop()
        if isinstance(node, list):
            waiting.extend((child, owner, factor) for child in node)
        elif isinstance(node, dict):
            part, stars = parts[owner], 1
            if "cte_map" in node:
                entries = node["cte_map"]["map"]
                waiting.extend((entry["value"], str(entry["key"]).casefold(), 1) for entry in entries)
                stars = _stars(node.get("select_list") or ())
                copied = _copied(node, sizes)
                aliases += copied.expressions
                part.subqueries += copied.subqueries + _for_each_column(node.get("select_list") or ())
                part.groupings += _groupings(node.get("group_sets") or ())
            elif node.get("type") == "JOIN":
                joins += 1
                part.subqueries += 2 * sum(node[side]["type"] in _RELATIVE for side in ("left", "right"))
            elif node.get("type") == "BASE_TABLE":
                part.uses[str(node["qualified_name"]["path"][-1]).casefold()] += factor
            part.subqueries += node.get("class") == "SUBQUERY"
            for name, child in node.items():
                if name == "from_table":
                    waiting.append((child, owner, min(_ENOUGH, factor * max(1, stars))))
                elif name != "cte_map":
                    waiting.append((child, owner, factor))
    tables, subqueries, groupings = _planned("", parts, {})
    return Growth(max(1, tables), min(_ENOUGH, aliases), joins, subqueries, groupings)


@dataclass
class _Part:
    """What is in the query itself, or in one WITH."""

    uses: Counter[str] = field(default_factory=Counter)
    """Tables, and other WITHs, by name."""
    subqueries: int = 0
    groupings: int = 0


#: What in a FROM may depend on what stands before it, LATERAL or not.
_RELATIVE = frozenset({"SUBQUERY", "TABLE_FUNCTION"})


def _planned(owner: str, parts: Mapping[str, _Part], known: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    """How many tables, subqueries and groupings are planned for *owner*: there are 300 of them at most (``rules.py``),
    so this may recur."""
    if owner not in known:
        known[owner] = 1, 0, 0  # to itself: a recursive one
        part = parts[owner]
        tables, subqueries, groupings = 0, part.subqueries, part.groupings
        for name, times in part.uses.items():
            more = _planned(name, parts, known) if name in parts else (1, 0, 0)
            tables += times * more[0]
            subqueries += times * more[1]
            groupings += times * more[2]
        known[owner] = min(_ENOUGH, max(1, tables)), min(_ENOUGH, subqueries), min(_ENOUGH, groupings)
    return known[owner]


def _stars(select_list: Iterable[Any]) -> int:
    """How often the columns of one table are in *select_list*, at most."""
    found = Counter(str(node.get("relation_name")) for node in _inside(select_list) if node.get("class") == "STAR")
    return found.pop("", 0) + max(found.values(), default=0)


def _groupings(sets: Collection[Collection[int]]) -> int:
    """The sets that a query groups by, beyond one; long ones cost more."""
    return max(len(sets), sum(map(len, sets)) // 4) if len(sets) > 1 else 0


def _for_each_column(select_list: Iterable[Any]) -> int:
    """Subqueries in what is made for each column of a table (``COLUMNS(*) + (SELECT …)``): no telling how many."""
    for item in select_list:
        classes = {node.get("class") for node in _inside([item])}
        if {"STAR", "SUBQUERY"} <= classes:
            return _ENOUGH
    return 0


def _inside(nodes: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """The expressions in *nodes*, those of queries in them not."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict) and "cte_map" not in node:
            if "class" in node:
                yield node
            waiting.extend(node.values())


# -- aliases ---------------------------------------------------------------------------------


class _Size(NamedTuple):
    """Of a part of the tree, with the queries in it; or of what is copied."""

    expressions: int = 0
    subqueries: int = 0

    def plus(self, other: _Size, times: int = 1) -> _Size:
        return _Size(
            min(_ENOUGH, self.expressions + times * other.expressions),
            min(_ENOUGH, self.subqueries + times * other.subqueries),
        )


class _Sizes:
    """The size of each part of a tree, and the columns that it names, with one walk over it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.spans: dict[int, tuple[int, int, _Size]] = {}

    def size(self, part: Any) -> _Size:
        return self.spans[id(part)][2]

    def named(self, part: Any) -> Counter[str]:
        first, last, _ = self.spans[id(part)]
        return Counter(self.names[first:last])


def _sizes(root: Any) -> _Sizes:
    found = _Sizes()
    expressions = subqueries = 0
    waiting: list[tuple[Any, tuple[int, int, int] | None]] = [(root, None)]
    while waiting:
        node, begun = waiting.pop()
        if begun is not None:
            size = _Size(expressions - begun[1], subqueries - begun[2])
            found.spans[id(node)] = begun[0], len(found.names), size
        elif isinstance(node, (list, dict)):
            waiting.append((node, (len(found.names), expressions, subqueries)))
            if isinstance(node, dict):
                expressions += "class" in node
                subqueries += node.get("class") == "SUBQUERY"
                if node.get("class") == "COLUMN_REF":
                    found.names.append(str(node["column_names"][0]).casefold())
            waiting.extend((child, None) for child in (node if isinstance(node, list) else node.values()))
    return found


def _copied(query: Mapping[str, Any], sizes: _Sizes) -> _Size:
    """What stands in the place of the names that *query* gives to its own columns, wherever it uses them."""
    known: dict[str, _Size] = {}

    def used(part: Any) -> _Size:
        copied = _Size()
        for name, times in sizes.named(part).items() if known else ():
            copied = copied.plus(known.get(name, _Size()), times)
        return copied

    grown = _Size()
    for item in query.get("select_list") or ():
        more = used(item)
        grown = grown.plus(more)
        if item.get("alias"):
            known[str(item["alias"]).casefold()] = sizes.size(item).plus(more)
    for name, part in query.items():
        if name not in _BEFORE_NAMES and isinstance(part, (list, dict)):
            grown = grown.plus(used(part))
    return grown
