"""How much a query grows while DuckDB plans it, read off its syntax tree. Pure.

A query of a few hundred characters may stand for millions of columns or expressions: ``SELECT *, *`` of the same, a
WITH that reads the one before it twice, an alias made of the one before it twice. Planning cannot be interrupted, and a
schema change waits for it; so what a query comes to is counted before. Where names could mean several things it is
counted too high, never too low.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

#: Beyond this nobody needs to know how much it is.
_ENOUGH = 10**9


class Growth(NamedTuple):
    """*tables*: those in FROM, as often as each is planned, times the stars above it. *aliases*: expressions that stand
    in the place of aliases. *joins*: joins and commas."""

    tables: int
    aliases: int
    joins: int


def growth_of(tree: Mapping[str, Any]) -> Growth:
    """What the one statement in *tree* grows to."""
    uses: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by the name of a WITH, empty for the query itself
    aliases = joins = 0
    waiting: list[tuple[Any, str, int]] = [(tree["statements"][0]["node"], "", 1)]
    while waiting:
        node, owner, factor = waiting.pop()
        if isinstance(node, list):
            waiting.extend((child, owner, factor) for child in node)
        elif isinstance(node, dict):
            stars = 1
            if "cte_map" in node:
                entries = node["cte_map"]["map"]
                waiting.extend((entry["value"], str(entry["key"]).casefold(), 1) for entry in entries)
                stars = _stars(node.get("select_list") or ())
                aliases += _aliases(node.get("select_list") or ())
            elif node.get("type") == "JOIN":
                joins += 1
            elif node.get("type") == "BASE_TABLE":
                uses[owner][str(node["qualified_name"]["path"][-1]).casefold()] += factor
            for name, child in node.items():
                if name == "from_table":
                    waiting.append((child, owner, min(_ENOUGH, factor * max(1, stars))))
                elif name != "cte_map":
                    waiting.append((child, owner, factor))
    return Growth(_planned("", uses, {}), min(_ENOUGH, aliases), joins)


def _planned(owner: str, uses: Mapping[str, Counter[str]], known: dict[str, int]) -> int:
    """How many tables are planned for *owner*: there are 300 of them at most (``rules.py``), so this may recur."""
    if owner not in known:
        known[owner] = 1  # to itself: a recursive one
        times = uses.get(owner, Counter())
        each = (n * (_planned(name, uses, known) if name in uses else 1) for name, n in times.items())
        known[owner] = min(_ENOUGH, max(1, sum(each)))
    return known[owner]


def _stars(select_list: Iterable[Any]) -> int:
    """How often the columns of one table are in *select_list*, at most."""
    found = Counter(str(node.get("relation_name")) for node in _inside(select_list) if node.get("class") == "STAR")
    return found.pop("", 0) + max(found.values(), default=0)


def _aliases(select_list: Iterable[Any]) -> int:
    sizes: dict[str, int] = {}
    grown = 0
    for item in select_list:
        nodes = list(_inside([item]))
        names = [str(n["column_names"][0]).casefold() for n in nodes if n.get("class") == "COLUMN_REF"]
        more = sum(sizes.get(name, 0) for name in names)
        grown += more
        if item.get("alias"):
            sizes[str(item["alias"]).casefold()] = min(_ENOUGH, len(nodes) + more)
    return grown


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
