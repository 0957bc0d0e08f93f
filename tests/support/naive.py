"""A promise is proved by a test that holds on ours and fails on the naive variant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import merganser as mg

#: Runs a test as built, and on a naive variant that it must catch.
both_ways = pytest.mark.parametrize("naive", [False, True], ids=["ours", "naive"])


@contextmanager
def caught(naive: bool) -> Iterator[None]:
    """What is inside must hold; on the naive variant it must fail."""
    if not naive:
        yield
        return
    with pytest.raises((AssertionError, pytest.fail.Exception, mg.MerganserError)):
        yield
