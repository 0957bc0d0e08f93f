"""The language of row checks: from a text to an expression.

A small part of SQL. A text is written into the log with its table, so what it means never changes: a
later Merganser may take more texts, never read one of these otherwise.

    check      = and { OR and }
    and        = not { AND not }
    not        = NOT not | "(" check ")" | column predicate
    predicate  = op (column | literal)             op: = <> != < <= > >=
               | [NOT] IN "(" literal { "," literal } ")"
               | [NOT] BETWEEN (column | literal) AND (column | literal)
               | IS [NOT] NULL
    literal    = number | 'text' | TRUE | FALSE | NULL

Invariant: any text is an expression of bounded depth, or `Unreadable` at a place in it. No I/O, and no
look at any schema: `rowcheck.py` does that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from .types import MAX_PRECISION

Op = Literal["=", "<>", "<", "<=", ">", ">="]

MAX_LENGTH = 4000
_MAX_DEPTH = 50


class Unreadable(Exception):
    """Why, and where in its text (from 0), a check is none."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


@dataclass(frozen=True)
class Column:
    """A column by the name that the check gives it, and where in the text."""

    name: str
    at: int


@dataclass(frozen=True)
class Constant:
    """A literal. Numbers are Decimals."""

    value: Decimal | str | bool | None
    at: int


@dataclass(frozen=True)
class Compare:
    op: Op
    left: Column
    right: Column | Constant


@dataclass(frozen=True)
class IsNull:
    column: Column


@dataclass(frozen=True)
class Not:
    part: Expression


@dataclass(frozen=True)
class All:
    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Some:
    """True if one of *parts* is: OR."""

    parts: tuple[Expression, ...]


Expression = Compare | IsNull | Not | All | Some


def parse(text: str) -> Expression:
    """The expression that *text* is; Unreadable if it is none."""
    return _Parser(text).check()


# -- text to tokens, tokens to expression ----------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?(?![\w.]))|(?P<text>'(?:[^']|'')*')|(?P<quoted>"[^"]*")
        |(?P<word>[A-Za-z_]\w*)|(?P<symbol><=|>=|<>|!=|[=<>(),])|(?P<end>$))""",
    re.VERBOSE | re.ASCII,
)
#: A check is one line of an error, of a file, of a variable; and UTF-8 has no lone surrogates. (Not
#: ``isprintable``, which differs between versions of Python.)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KEYWORDS = frozenset(["and", "or", "not", "in", "between", "is", "null", "true", "false"])
_OPS: dict[str, Op] = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """One pass over a text, a method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def check(self) -> Expression:
        found = self._or()
        if self._token.kind != "end":
            raise self._expected("AND, OR or the end")
        return found

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _not(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable(self._token.at, f"more than {_MAX_DEPTH} parts inside each other")
        try:
            if self._take("not"):
                return Not(self._not())
            if self._take("("):
                found = self._or()
                self._need(")")
                return found
            return self._predicate(self._column("a column, NOT or a parenthesis"))
        finally:
            self._depth -= 1

    def _predicate(self, column: Column) -> Expression:
        if op := _OPS.get(self._token.text):
            self._next += 1
            return Compare(op, column, self._operand())
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._take("not")
        if self._take("in"):
            found: Expression = self._in(column)
        elif self._take("between"):
            low = self._operand()
            self._need("and")
            found = All((Compare(">=", column, low), Compare("<=", column, self._operand())))
        else:
            raise self._expected("IN or BETWEEN" if negated else "a comparison, IN, BETWEEN or IS")
        return Not(found) if negated else found

    def _in(self, column: Column) -> Expression:
        self._need("(")
        parts = [Compare("=", column, self._constant())]
        while self._take(","):
            parts.append(Compare("=", column, self._constant()))
        self._need(")")
        return Some(tuple(parts))

    def _operand(self) -> Column | Constant:
        token = self._token
        if token.kind == "quoted" or (token.kind == "word" and token.text.lower() not in _KEYWORDS):
            return self._column("a column")
        return self._constant()

    def _column(self, expected: str) -> Column:
        token = self._token
        if token.kind not in ("word", "quoted") or token.text.lower() in _KEYWORDS:
            raise self._expected(expected)
        self._next += 1
        return Column(token.text.strip('"').lower(), token.at)

    def _constant(self) -> Constant:
        token = self._token
        if token.kind == "number":
            self._next += 1
            return Constant(_number(token), token.at)
        if token.kind == "text":
            self._next += 1
            return Constant(token.text[1:-1].replace("''", "'"), token.at)
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._take(word):
                return Constant(value, token.at)
        raise self._expected("a column or a value" if token.kind != "quoted" else "a value ('text' has single quotes)")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, text: str) -> bool:
        token = self._token
        found = token.kind in ("word", "symbol") and token.text.lower() == text
        self._next += found
        return found

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._expected(text.upper())

    def _expected(self, what: str) -> Unreadable:
        found = repr(self._token.text) if self._token.text else "the end"
        return Unreadable(self._token.at, f"{what} is expected, not {found}")


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise Unreadable(MAX_LENGTH, f"{len(text)} characters, {MAX_LENGTH} at most")
    if control := _CONTROL.search(text):
        why = f"the character {control[0]!a} cannot be shown, so it cannot be in a check"
        raise Unreadable(control.start(), why)
    found: list[_Token] = []
    at = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


def _no_token(text: str, at: int) -> Unreadable:
    at += len(text[at:]) - len(text[at:].lstrip(" "))
    character = text[at]
    if character in "'\"":
        return Unreadable(at, f"no closing {character}")
    if character.isdigit() or character == "-":
        return Unreadable(at, "a number has digits and perhaps a point between them: -1, 0.5")
    return Unreadable(at, f"{character!r} has no meaning here")


def _number(token: _Token) -> Decimal:
    whole, _, fraction = token.text.lstrip("-").partition(".")
    if len(whole.lstrip("0")) + len(fraction) > MAX_PRECISION:
        raise Unreadable(token.at, f"a number of more than {MAX_PRECISION} digits")
    return Decimal(token.text)
