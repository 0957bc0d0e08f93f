"""Trouble, made to order: a producer whose answers get lost, and one that lacks what protects a shop.

A lost answer to a commit is rare, so a run makes some: the transaction is committed, or it is not, and
either way the shop is told that nobody knows. Conditions and operation ids can be taken away, to see the
check at the end fail without them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import merganser as mg

#: What can be taken away.
CONDITIONS, OPERATIONS = "conditions", "operations"

_FATES = ("rolled back", "never arrived", "not told")


def afflict(producer: mg.Producer, chance: random.Random, lose: float, without: Collection[str]) -> None:
    """From now on, that part of *producer*'s transactions which *lose* says (0 to 1) ends in trouble."""
    honest = producer.transaction

    @contextmanager
    def transaction(op: str | None = None) -> Iterator[mg.Transaction]:
        fate = chance.choice(_FATES) if chance.random() < lose else None
        with honest(op=None if OPERATIONS in without else op) as tx:
            if CONDITIONS in without:
                _drop_conditions(tx)
            yield tx
            if fate == "rolled back":
                raise mg.errors.RolledBack(tx.id, "as ordered, before anything was sent")
            if fate == "never arrived":
                raise mg.errors.CommitInDoubt(tx.id, "the answer was lost, as ordered; the commit too")
        if fate == "not told":
            raise mg.errors.CommitInDoubt(tx.id, "the answer was lost, as ordered; the commit was not")

    producer.transaction = transaction  # type: ignore[assignment, method-assign]


def _drop_conditions(tx: mg.Transaction) -> None:
    honest = tx.put

    def put(table: str, row: dict[str, Any], if_version: int | None = None) -> mg.Write:
        return honest(table, row)

    tx.put = put  # type: ignore[assignment, method-assign]
