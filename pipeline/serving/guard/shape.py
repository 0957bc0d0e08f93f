"""What a query names, read off its syntax tree: tables, functions, how much it would make of one value. Pure.

The tree is DuckDB's own (``json_serialize_sql``): every part of a SELECT is in it, wherever it is nested, since
DuckDB stores views in that form. SQL inside of a string is not; so functions that run such are never allowed
(``rules.py``), and there are no views and no macros of anybody in a store.

Invariant: a node of a kind that is not known here is refused, not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ....schemas.errors import NotAllowed


class TableName(NamedTuple):
    """A table as a query names it; what it does not say is empty."""

    catalog: str
    schema: str
    name: str


@dataclass
class Shape:
    """The names in a query, those of functions in lower case."""

    tables: set[TableName] = field(default_factory=set)
    ctes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    table_functions: set[str] = field(default_factory=set)
    shows: set[str] = field(default_factory=set)
    """What SHOW lists, other than a table or a query."""
    repeats: int = 1
    """How often a value may be repeated, by all of the query's functions that do such: the product."""
    longest: int = 0
    """The length of the longest value that one of its functions is told to make."""
    lambdas: int = 0
    """How deep functions of functions are nested."""
    recursive: bool = False
    queries: int = 0
    """SELECTs in it, those that UNION and the like put together included."""


#: Kinds of nodes; a query with another is refused. (SHOWREF, AT and the like have rules of their own below.)
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES = frozenset(
    {
        "BASE_TABLE",
        "SUBQUERY",
        "JOIN",
        "TABLE_FUNCTION",
        "EXPRESSION_LIST",
        "EMPTY",
        "EMPTY_FROM",
        "PIVOT",
        "SHOW_REF",
        "COLUMN_DATA",
        "DELIM_GET",
    }
)
_CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "DEFAULT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    }
)

#: Which argument of a function says how long the value is, and how long at least without being asked.
_LENGTH_AT = {"lpad": 1, "rpad": 1, "list_resize": 1, "array_resize": 1, "bitstring": 1, "to_base": 2}
_RANGES = frozenset({"range", "generate_series"})
_FORMATS = frozenset({"format", "printf"})

#: Parts of a column's name: database, schema, table, column, fields.
_LONGEST_NAME = 12

_WIDTH = re.compile(r"\d+")
_INTEGER = re.compile(r"-?[0-9_]{1,40}")


def shape_of(tree: Mapping[str, Any]) -> Shape:
    """The shape of the one statement in *tree*. NotAllowed if it has what cannot be judged."""
    shape = Shape()
    [statement] = tree["statements"]
    waiting: list[tuple[Any, int]] = [(statement["node"], 0)]
    while waiting:  # not by recursion: its depth would be the client's
        node, lambdas = waiting.pop()
        if isinstance(node, list):
            waiting.extend((child, lambdas) for child in node)
        elif isinstance(node, dict):
            lambdas += node.get("class") == "LAMBDA"
            shape.lambdas = max(shape.lambdas, lambdas)
            waiting.extend((child, lambdas) for child in _look(node, shape))
    return shape


def _look(node: Mapping[str, Any], shape: Shape) -> Iterator[Any]:
    """Note what *node* itself names; what is inside of it follows."""
    kind, class_ = node.get("type"), node.get("class")
    if class_ is not None:
        if class_ not in _CLASSES:
            raise NotAllowed(f"an expression of the kind {class_} is not served")
        if class_ in ("FUNCTION", "WINDOW"):
            _function(node, shape)
        if class_ == "COLUMN_REF" and len(node["column_names"]) > _LONGEST_NAME:
            raise NotAllowed("a name has too many parts")
        if class_ == "CONSTANT":
            return iter(())
    elif "cte_map" in node:
        if kind not in _NODES:
            raise NotAllowed(f"a query of the kind {kind} is not served")
        shape.recursive |= kind == "RECURSIVE_CTE_NODE"
        shape.queries += kind == "SELECT_NODE"
        shape.ctes |= {str(entry["key"]) for entry in node["cte_map"]["map"]}
        if node.get("cte_name"):
            shape.ctes.add(str(node["cte_name"]))
    elif "sample" in node and "query_location" in node:
        if kind not in _SOURCES:
            raise NotAllowed(f"a table of the kind {kind} is not served")
        return _source(node, shape)
    return iter(node.values())


def _source(node: Mapping[str, Any], shape: Shape) -> Iterator[Any]:
    match node["type"]:
        case "BASE_TABLE":
            shape.tables.add(_name(node))
        case "TABLE_FUNCTION":
            function = node["function"]
            if function.get("class") != "FUNCTION":
                raise NotAllowed("this way to call a function for its rows is not served")
            shape.table_functions.add(_name(function).name.casefold())
            return iter((function["arguments"], node["sample"]))
        case "SHOW_REF" if node["query"] is None:
            if node["show_type"] == "SHOW_SPECIAL":
                shape.shows.add(_name(node).name.strip('"').casefold())
            else:
                shape.tables.add(_name(node))
        case "PIVOT" if any(pivot["pivot_enum"] for pivot in node["pivots"]):
            raise NotAllowed("PIVOT by an ENUM type is not served: list the values with IN")
    return iter(node.values())


def _name(node: Mapping[str, Any]) -> TableName:
    """The name that *node* has; NotAllowed if it has more parts than database, schema and table."""
    parts = [str(part) for part in node["qualified_name"]["path"]]
    if not 1 <= len(parts) <= 3:
        raise NotAllowed("a name has one to three parts")
    return TableName(*["", ""][: 3 - len(parts)], *parts)


def _function(node: Mapping[str, Any], shape: Shape) -> None:
    name = _name(node).name.casefold()
    shape.functions.add(name)
    arguments = [argument["expression"] for argument in node["arguments"]]
    if name == "repeat":
        shape.repeats *= max(1, _number(name, arguments, 1))
    elif name in _RANGES:
        shape.repeats *= max(1, _range(name, arguments))
    elif name in _LENGTH_AT and len(arguments) > _LENGTH_AT[name]:
        shape.longest = max(shape.longest, _number(name, arguments, _LENGTH_AT[name]))
    elif name in _FORMATS and arguments:
        shape.longest = max(shape.longest, _widths(name, arguments[0]))


def _number(name: str, arguments: list[Any], at: int) -> int:
    value = _constant(arguments[at]) if len(arguments) > at else None
    if not isinstance(value, int):
        raise NotAllowed(f"{name} is served with a length that is written out only")
    return value


def _constant(node: Any) -> int | str | None:
    """The value of a literal; None if it is no literal of a whole number or a text."""
    literal = node.get("literal") if isinstance(node, dict) and node.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict):
        return None
    text = str(literal.get("text"))
    if literal.get("kind") == "INTEGER":
        return int(text.replace("_", "")) if _INTEGER.fullmatch(text) else None
    return text if literal.get("kind") == "STRING" else None


def _range(name: str, arguments: list[Any]) -> int:
    values = [value for argument in arguments if isinstance(value := _constant(argument), int)]
    if not 1 <= len(values) == len(arguments) <= 3:
        raise NotAllowed(
            f"{name} as a value is served with numbers that are written out only; FROM {name}(…) takes any"
        )
    start, stop, step = (0, values[0], 1) if len(values) == 1 else (values[0], values[1], [*values, 1][2])
    return abs(stop - start) // abs(step) + 1 if step else 1


def _widths(name: str, template: Any) -> int:
    text = _constant(template)
    if not isinstance(text, str) or "*" in text or "{:{" in text or ".{" in text:
        raise NotAllowed(f"{name} is served with a template that is written out, and widths in it, only")
    return max((int(digits[:18]) for digits in _WIDTH.findall(text)), default=0)
