"""Row checks: one text, one meaning, on the producer's side, on the replica's, and in DuckDB."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_tables import record, table, version

from merganser.schemas.arrowcheck import breaking
from merganser.schemas.avro import key_fields
from merganser.schemas.decode import Decoder
from merganser.schemas.encode import RowEncoder
from merganser.schemas.errors import BadSchema, InvalidRow
from merganser.schemas.layout import layout
from merganser.schemas.rowcheck import BoundCheck, RowChecker, bind, check_rules
from merganser.schemas.rules import Rules, with_rules
from merganser.schemas.table import SchemaVersion, Table
from support.avro_strategies import patient


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


STATES = {"type": "enum", "name": "states", "symbols": ["new", "paid", "sent"]}
FIELDS = [
    ("id", "long"),
    ("qty", ["null", "int"]),
    ("stock", ["long", "null"]),
    ("price", ["null", decimal(18, 4)]),
    ("cost", decimal(9, 2)),
    ("weight", ["null", "float"]),
    ("size", "double"),
    ("width", ["null", "double"]),
    ("status", STATES),
    ("sku", ["null", "string"]),
    ("note", "string"),
    ("paid", ["null", "boolean"]),
    ("open", "boolean"),
    ("seen", ["null", {"type": "long", "logicalType": "timestamp-micros"}]),
]
SCHEMA = record(*FIELDS)


def checked(*checks: str, schema: Any = SCHEMA) -> Table:
    return table(with_rules(schema, Rules(checks)))


def bound(t: Table) -> tuple[BoundCheck, ...]:
    return bind(t, layout(t.name, t.values, t.latest.version, key_fields(t)), t.latest.version)


def by_rows(t: Table, rows: list[dict[str, Any]]) -> list[bool]:
    """Whether each row holds, as the producer finds it."""
    checker = RowChecker(t)
    return [holds(checker, row) for row in rows]


def holds(checker: RowChecker, row: dict[str, Any]) -> bool:
    try:
        checker.check(row)
    except InvalidRow:
        return False
    return True


def by_arrow(t: Table, rows: list[dict[str, Any]]) -> list[bool]:
    """Whether each row holds, as the replica finds it: from its bytes."""
    encoder = RowEncoder(table(without_checks(t)))
    decoded = Decoder(t.latest, "t").decode([encoder.value(row) for row in rows])
    assert not decoded.bad
    broken = {i for check in bound(t) for i in breaking(check, decoded.rows)}
    return [i not in broken for i in range(len(rows))]


def without_checks(t: Table) -> dict[str, Any]:
    return {k: v for k, v in dict(t.latest.schema).items() if k != "merganser"}  # type: ignore[arg-type]


def by_duckdb(t: Table, rows: list[dict[str, Any]]) -> list[bool]:
    encoder = RowEncoder(table(without_checks(t)))
    decoded = Decoder(t.latest, "t").decode([encoder.value(row) for row in rows]).rows
    with duckdb.connect() as con:
        con.register("decoded", decoded)
        con.execute("CREATE TABLE t AS SELECT * FROM decoded")
        con.execute("SET threads = 1")
        (check,) = t.checks
        return [holds for (holds,) in con.execute(f"SELECT ({check}) IS NOT FALSE FROM t").fetchall()]


# -- random expressions on random rows -------------------------------------------------------

INTEGERS = st.sampled_from([-(2**31), -1, 0, 1, 2, 7, 2**31 - 1])
LONGS = INTEGERS | st.sampled_from([2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
PRICES = st.sampled_from([Decimal("-0.5"), Decimal("0.0000"), Decimal("0.1"), Decimal("2.5"), Decimal("7.0001"), 7, 2])
COSTS = st.sampled_from([Decimal("-0.5"), Decimal("0.1"), Decimal("2.50"), Decimal("9999999.99"), 0, 7])
FLOATS = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 0.1, 0.5, 2.5, 7, 2**24, 1e30, -1.0])
TEXTS = st.sampled_from(["", "new", "paid", "NEW", "it's", "é", "z", "\U0001f986", "￿"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": LONGS,
    "qty": st.none() | INTEGERS,
    "stock": st.none() | LONGS,
    "price": st.none() | PRICES,
    "cost": COSTS,
    "weight": st.none() | FLOATS,
    "size": FLOATS,
    "width": st.none() | FLOATS,
    "status": st.sampled_from(STATES["symbols"]),
    "sku": st.none() | TEXTS,
    "note": TEXTS,
    "paid": st.none() | st.booleans(),
    "open": st.booleans(),
    "seen": st.none(),
}
ROWS = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=8)
FAMILIES = {
    "number": ["id", "qty", "stock", "price", "cost"],
    "float": ["weight", "size", "width"],
    "text": ["status", "sku", "note"],
    "bool": ["paid", "open"],
}
NUMBERS = st.sampled_from(["-2147483649", "-1", "0", "1", "2", "2.5", "7", "7.0001", "-0.5", "0.1", "00.50"])
BIG = st.sampled_from(["9007199254740993", "9223372036854775807", "9223372036854775808", "16777217"])
QUOTED = TEXTS.map(lambda text: "'" + text.replace("'", "''") + "'")
LITERALS = {
    "number": NUMBERS | BIG,
    "float": NUMBERS | st.just("16777217"),
    "text": QUOTED,
    "bool": st.sampled_from(["true", "FALSE"]),
}


@st.composite
def predicates(draw: st.DrawFn, literals: dict[str, st.SearchStrategy[str]] = LITERALS) -> str:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    columns = st.sampled_from(FAMILIES[family])
    column = draw(columns | st.just("seen"))
    if column == "seen" or draw(st.integers(0, 5)) == 0:
        return f"{column} is {draw(st.sampled_from(['', 'not ']))}null"
    literal = literals[family] | st.just("null") if draw(st.integers(0, 9)) == 0 else literals[family]
    quoted = draw(st.sampled_from([column, f'"{column}"', column.upper()]))
    match draw(st.sampled_from(["compare", "compare", "in", "between"])):
        case "compare":
            op = draw(st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="]))
            return f"{quoted}{op}{draw(literal | columns)}"
        case "in":
            values = ", ".join(draw(st.lists(literal, min_size=1, max_size=3)))
            return f"{quoted} {draw(st.sampled_from(['', 'not ']))}in ({values})"
    low, high = draw(literal | columns), draw(literal | columns)
    return f"{quoted} {draw(st.sampled_from(['', 'NOT ']))}between {low} and {high}"


def expressions(literals: dict[str, st.SearchStrategy[str]] = LITERALS) -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        joined = st.tuples(inner, st.sampled_from([" and ", " OR "]), inner).map("".join)
        return joined | inner.map(lambda x: f"not {x}") | inner.map(lambda x: f"({x})")

    return st.recursive(predicates(literals), larger, max_leaves=5)


@patient
@given(expressions(), ROWS)
def test_a_check_means_what_duckdb_says(check: str, rows: list[dict[str, Any]]) -> None:
    t = checked(check)
    check_rules("t", SCHEMA, t.checks)
    assert by_rows(t, rows) == by_duckdb(t, rows) == by_arrow(t, rows)


NINES = "9" * 38
WIDE = st.sampled_from([NINES, "-" + NINES, "0." + NINES, "9." + NINES[1:], "123456789012345678.5", "0.1", "16777217"])


@patient
@given(
    expressions({**LITERALS, "number": WIDE, "float": WIDE}),
    st.lists(
        st.fixed_dictionaries(
            {
                **VALUES,
                "price": st.sampled_from([Decimal(NINES), Decimal(-1), None]),
                "cost": st.sampled_from([Decimal("0." + NINES), Decimal("-0.1")]),
                "size": st.floats(),
                "weight": st.floats(width=32),
            }
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_numbers_of_any_width_are_judged_alike_on_both_sides(check: str, rows: list[dict[str, Any]]) -> None:
    """DuckDB cannot be asked here: it refuses to compare what does not fit into 38 digits together."""
    wide = {"price": ["null", decimal(38, 0)], "cost": decimal(38, 38)}
    schema = record(*((name, wide.get(name, type_)) for name, type_ in FIELDS))
    t = checked(check, schema=schema)
    assert by_rows(t, rows) == by_arrow(t, rows)


@pytest.mark.parametrize(
    ("check", "row"),
    [
        ("id <> 9007199254740993", {"id": 2**53 + 1}),
        ("id = 9007199254740993", {"id": 2**53}),
        ("id >= 9007199254740992.5", {"id": 2**53}),
        ("id <= 9223372036854775806.9", {"id": 2**63 - 1}),
        (f"price < {NINES}", {"price": int(NINES)}),
        (f"price = {NINES}", {"price": int(NINES) - 1}),
        ("id = price", {"id": 2**53, "price": 2**53 + 1}),
    ],
)
def test_digits_that_a_double_loses_are_told_apart(check: str, row: dict[str, Any]) -> None:
    t = checked(check, schema=record(("id", "long"), ("price", decimal(38, 0))))
    rows = [{"id": 0, "price": 0, **row}]
    assert by_rows(t, rows) == by_arrow(t, rows) == [False]


@pytest.mark.parametrize(
    ("check", "holds", "breaks"),
    [
        ("n > 0", [1, None], [0, -1]),
        ("n is not null and n > 0", [1], [0, None]),
        ("n in (1, 2)", [1, None], [3]),
        ("n in (1, null)", [1, 3, None], []),
        ("n not in (1, null)", [2, None], [1]),
        ("n not between 2 and 4", [1, 5, None], [2, 4]),
        ("not n = 1 or n = 1", [1, 2, None], []),
        ("n <> 1 and n <> 2 or n is null", [None, 3], [1, 2]),
        ("n = null", [1, None], []),
    ],
)
def test_null_passes_and_false_fails(check: str, holds: list[Any], breaks: list[Any]) -> None:
    t = checked(check, schema=record(("n", ["null", "int"])))
    rows = [{"n": n} for n in [*holds, *breaks]]
    assert by_rows(t, rows) == by_arrow(t, rows) == [True] * len(holds) + [False] * len(breaks)


def test_nan_is_greater_than_all_else_and_equals_itself() -> None:
    schema = record(("x", "double"), ("y", "double"))
    row = {"x": math.nan, "y": math.nan}
    for check, holds in [("x > 1", True), ("x < 1", False), ("x = y", True), ("x <= y", True), ("x <> y", False)]:
        t = checked(check, schema=schema)
        assert by_rows(t, [row]) == by_arrow(t, [row]) == by_duckdb(t, [row]) == [holds], check


def test_a_column_left_out_is_judged_by_its_default() -> None:
    price = {"default": "\x02"}  # 0.2, as the schema's JSON writes a decimal
    schema = record(("n", "int"), ("price", decimal(9, 1), price), ("x", "float", {"default": 0.1}))
    encoder = RowEncoder(checked("price > 0.5 or n = 1", "x = 0.1", schema=schema))
    assert encoder.value({"n": 1})
    with pytest.raises(InvalidRow, match=r"column 'price, n', value \{'price': Decimal..0.2'., 'n': 2\}"):
        encoder.value({"n": 2})


# -- what is no check ------------------------------------------------------------------------

BAD = [
    ("", 1, "a column, NOT or a parenthesis is expected, not the end"),
    ("qty >", 6, "a column or a value is expected, not the end"),
    ("qty", 4, "a comparison, IN, BETWEEN or IS is expected, not the end"),
    ("qty > 0 and", 12, "is expected, not the end"),
    ("qty > 0 qty < 5", 9, "AND, OR or the end is expected, not 'qty'"),
    ("(qty > 0", 9, "\\) is expected"),
    ("qty > 0)", 8, "AND, OR or the end is expected"),
    ("0 < qty", 1, "a column, NOT or a parenthesis is expected, not '0'"),
    ("qty > 1e3", 7, "a number has digits"),
    ("qty > - 1", 7, "a number has digits"),
    ("qty > 1_000", 7, "a number has digits"),
    ("qty + 1 > 0", 5, "'\\+' has no meaning here"),
    ("qty > 0; drop table x", 8, "';' has no meaning here"),
    ("sku = 'a", 7, "no closing '"),
    ('"sku = 1', 1, 'no closing "'),
    ("qty in ()", 9, "a value is expected|is expected, not"),
    ("qty in (stock)", 9, "is expected, not 'stock'"),
    ("qty not null", 9, "IN or BETWEEN is expected"),
    ("qty is 5", 8, "NULL is expected"),
    ("qty between 1 or 2", 15, "AND is expected"),
    ("abs(qty) > 0", 4, "is expected, not '\\('"),
    ("nope > 0", 1, "no column 'nope'"),
    ("qty > nope", 7, "no column 'nope'"),
    ("sku > 5", 7, "sku is VARCHAR, not compared with the number 5"),
    ("qty > '5'", 7, "qty is INTEGER, not compared with '5'"),
    ("paid = 1", 8, "paid is BOOLEAN, not compared with the number 1"),
    ("qty = true", 7, "not compared with true"),
    ("qty in (1, 'a')", 12, "not compared with 'a'"),
    ("qty > sku", 7, "qty is INTEGER, sku is VARCHAR"),
    ("qty > size", 7, "one would have to be rounded"),
    ("seen > '2026-01-01'", 1, "TIMESTAMP WITH TIME ZONE: only numbers, text and booleans are compared"),
    ("qty > 0 and\nstock > 0", 12, "cannot be shown"),
    ("sku = '\ud800'", 8, "cannot be shown"),
    ("qty = " + "9" * 39, 7, "more than 38 digits"),
    ("(" * 51 + "qty > 0" + ")" * 51, 51, "more than 50 parts"),
    ("not " * 60 + "qty > 0", 201, "more than 50 parts"),
    ("qty > 0" + " " * 4000, 4001, "4000 at most"),
]


@pytest.mark.parametrize(("check", "at", "why"), BAD)
def test_what_is_no_check_is_refused_with_its_place(check: str, at: int, why: str) -> None:
    with pytest.raises(BadSchema, match=why) as caught:
        check_rules("t", SCHEMA, [check])
    assert caught.value.where.endswith(f"character {at}")
    assert "\n" not in str(caught.value) and str(caught.value).encode() and "Row checks" in caught.value.hint


def test_a_hundred_checks_are_enough() -> None:
    check_rules("t", SCHEMA, ["qty > 0"] * 100)
    with pytest.raises(BadSchema, match="101 checks"):
        check_rules("t", SCHEMA, ["qty > 0"] * 101)


@given(st.text(st.sampled_from("qtyidk=<>'\"()., -1and or not in is null between\\\n\0é"), max_size=30))
def test_any_text_is_a_check_or_refused_in_one_line(text: str) -> None:
    try:
        check_rules("t", SCHEMA, [text])
    except BadSchema as e:
        assert "\n" not in str(e) and str(e).isprintable()


# -- what a check sees of other versions of the schema ---------------------------------------

FIRST = with_rules(record(("id", "int"), ("qty", "int"), ("cap", "int")), Rules(("qty > 0", "qty <= cap")))


def versions(*later: Any) -> Table:
    values = [version(s, n, 6 + n) for n, s in enumerate([FIRST, *later], 1)]
    return Table("t", "topic-id", 1, tuple(values))


def test_a_renamed_column_is_still_checked() -> None:
    t = versions(record(("id", "int"), ("amount", "long", {"aliases": ["qty"]}), ("cap", "long")))
    with pytest.raises(InvalidRow, match="'amount', value 0") as caught:
        RowEncoder(t).value({"id": 1, "amount": 0, "cap": 1})
    assert 'check "qty > 0" does not hold' in str(caught.value)


def test_another_column_of_the_old_name_is_not_taken_for_it() -> None:
    renamed = ("amount", "int", {"aliases": ["qty"], "default": 1})
    fields = [("id", "int"), renamed, ("cap", "int")]
    t = versions(record(*fields), record(*fields, ("qty", "string", {"default": ""})))
    assert RowEncoder(t).value({"id": 1, "amount": 1, "cap": 1, "qty": "x"})
    with pytest.raises(InvalidRow):
        RowEncoder(t).value({"id": 1, "amount": 0, "cap": 1, "qty": "x"})


def test_a_column_that_a_version_does_not_write_is_null() -> None:
    t = versions(record(("id", "int"), ("cap", "int")))
    assert by_rows(t, [{"id": 1, "cap": -5}]) == by_arrow_of(t, [{"id": 1, "cap": -5}]) == [True]


def by_arrow_of(t: Table, rows: list[dict[str, Any]]) -> list[bool]:
    encoder = RowEncoder(Table("t", "topic-id", 1, (t.latest,)))
    decoded = Decoder(t.latest, "t").decode([encoder.value(row) for row in rows])
    broken = {i for check in bound(t) for i in breaking(check, decoded.rows)}
    return [i not in broken for i in range(len(rows))]


def test_a_version_whose_columns_cannot_be_compared_any_more_is_refused_whole() -> None:
    t = versions(record(("id", "int"), ("qty", "double"), ("cap", "int")))
    with pytest.raises(BadSchema, match='check "qty <= cap", character 8: qty is DOUBLE, cap is INTEGER'):
        bound(t)


def test_a_key_column_that_only_the_key_carries_cannot_be_checked() -> None:
    """The attribute of a schema that others registered may ask for it."""
    schema = with_rules(record(("qty", "int")), Rules(("id > 0",)))
    apart = Table("t", "topic-id", 1, (version(schema),), ("id",), "long", SchemaVersion("t-key", 1, 8, "long"))
    with pytest.raises(BadSchema, match="no column 'id'"):
        bound(apart)
