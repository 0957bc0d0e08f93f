"""SQL before it comes near the store: read by DuckDB's parser, in an instance that has nothing in it."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from ....consumers.reads import one_line, parse
from ....schemas.errors import BadQuery, NotAllowed
from . import rules
from .ask import ServingLimits
from .growth import Growth, growth_of
from .shape import Shape, shape_of

#: How many statements are remembered: who asks again what was asked pays for nothing.
_REMEMBERED = 256
_LONGEST_REMEMBERED = 10_000

#: Brackets, and what else opens a level for a parser. DuckDB's is recursive, and its stack the process's.
_DEEPEST = 200
_OPENING, _CLOSING = re.compile(r"[(\[{]|\bcase\b", re.IGNORECASE), re.compile(r"[)\]}]|\bend\b", re.IGNORECASE)
#: In all, which bounds what the counts above say of texts in quotes, and chains of operators.
_MOST_TOKENS = 20_000
_CHAIN = re.compile(r"(?:\bnot\b|[-+~!@]|\s){500,}", re.IGNORECASE)

#: What stands before the query that EXPLAIN explains. No comments and no quotes: DuckDB's parser and this one would
#: not end them at the same place, and another query be judged than runs.
_EXPLAIN = re.compile(r"\s*explain\b(?:\s+analyze\b)?\s*(?:\([\w\s,]*\))?", re.IGNORECASE)


@dataclass(frozen=True)
class Checked:
    """SQL that may run, as far as its text tells: *statement* is all of it."""

    sql: str
    statement: duckdb.Statement
    query: str
    """What EXPLAIN explains, or the same as *sql*."""
    shape: Shape
    growth: Growth


class Checker:
    """Reads SQL. Safe across threads."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "enable_external_access": False,
            "python_enable_replacements": False,
        }
        self._parser = duckdb.connect(":memory:", config=config)
        self._parser.execute("SET lock_configuration = true").fetchall()
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, Checked] = OrderedDict()

    def check(self, sql: str, everything: bool) -> Checked:
        """BadQuery, NotAllowed. *everything*: for who may read all tables."""
        if not isinstance(sql, str):
            raise BadQuery("SQL is a text")
        with self._lock:
            known = self._remembered.get(sql)
            if known is not None:
                self._remembered.move_to_end(sql)
        checked = known or self._read(sql)
        rules.allow(checked.shape, self._limits, everything)
        rules.bounded(checked.growth)
        if known is None and len(sql) <= _LONGEST_REMEMBERED:
            with self._lock:
                self._remembered[sql] = checked
                while len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        return checked

    def close(self) -> None:
        with self._lock:
            self._parser.close()

    def _read(self, sql: str) -> Checked:
        bound(sql, self._limits.sql_chars)
        statement = parse(sql)
        query = sql
        if statement.type == duckdb.StatementType.EXPLAIN:
            prefix = _EXPLAIN.match(sql)
            if prefix is None:
                raise NotAllowed("this way to write EXPLAIN is not served")
            query = sql[prefix.end() :]
            inner = parse(query)
            if inner.type != duckdb.StatementType.SELECT:
                raise BadQuery(f"EXPLAIN of {inner.type.name} is not a query")
        tree = self._tree(query)
        return Checked(sql, statement, query, shape_of(tree), growth_of(tree))

    def _tree(self, query: str) -> Mapping[str, Any]:
        with self._lock:
            try:
                [(text,)] = self._parser.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
            except duckdb.Error as error:
                raise NotAllowed(f"this query cannot be judged: {one_line(error)}") from error
        try:
            tree: dict[str, Any] = json.loads(text)
        except RecursionError as error:
            raise NotAllowed("the query is nested too deeply") from error
        if tree.get("error"):
            raise NotAllowed(f"this query is not served: {str(tree.get('error_message'))[:300]}")
        return tree


def bound(sql: str, chars: int) -> None:
    """NotAllowed if *sql* is too long, or too deep, to be handed to a parser."""
    if len(sql) > chars:
        raise NotAllowed(f"the SQL has {len(sql):,} characters; {chars:,} are served")
    if "\x00" in sql:
        raise BadQuery("the SQL has a NUL character")
    if any("\ud800" <= c <= "\udfff" for c in sql):
        raise BadQuery("the SQL is not Unicode")
    opening = sum(1 for _ in _OPENING.finditer(sql))
    if opening > _DEEPEST and depth(sql) > _DEEPEST:
        raise NotAllowed(f"the SQL is nested deeper than {_DEEPEST}")
    if len(sql) > _MOST_TOKENS or _CHAIN.search(sql):
        tokens = len(duckdb.tokenize(sql))
        if tokens > _MOST_TOKENS or _CHAIN.search(sql):
            raise NotAllowed(f"the SQL has too many parts: {tokens:,}")


def depth(sql: str) -> int:
    """How deep brackets, and CASE, are nested in *sql*, by DuckDB's own tokens."""
    deepest = now = 0
    starts = [at for at, _ in duckdb.tokenize(sql)]
    for at, end in zip(starts, [*starts[1:], len(sql)], strict=True):
        token = sql.encode()[at:end].decode(errors="replace") if not sql.isascii() else sql[at:end]
        if _OPENING.match(token):
            now += 1
        elif _CLOSING.match(token):
            now -= 1
        deepest = max(deepest, now)
    return deepest
