"""Transforms that tests name."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def same(row: Row) -> Row:
    return row


def doubled(row: Row) -> Row:
    return {"id": row["id"], "twice": row["n"] * 2}


def odd_ones_twice(row: Row) -> list[Row]:
    return [row, {**row, "id": -row["id"]}] if row["n"] % 2 else []


def none(row: Row) -> None:
    return None


def raising(row: Row) -> Row:
    raise KeyError("nothing here")


def a_number(row: Row) -> int:
    return 7


NO_FUNCTION = 7
