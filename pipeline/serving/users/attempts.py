"""How long who failed to log in has to wait. Pure: time comes from outside.

Invariants
- The wait depends on failures only, of one name from one address, and of one address in all: nobody can lock a
  user out from elsewhere, and nobody at one address tries many passwords, nor many names.
- Memory is bounded: beyond :data:`MOST` addresses or pairs, the ones that failed longest ago are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

#: Failures without a wait; each one more doubles the wait, up to the longest.
OF_A_PAIR, OF_AN_ADDRESS = 5, 40
FIRST_S, LONGEST_S = 1.0, 60.0

#: After so long without a failure, all is forgotten.
FORGOTTEN_S = 900.0

MOST = 10_000


@dataclass(frozen=True)
class Failures:
    """*count* of them, the last one *at_s*."""

    count: int = 0
    at_s: float = 0.0


def wait_s(failures: Failures, free: int, now_s: float) -> float:
    """How long after *now_s* the next try may be."""
    over = failures.count - free
    if over < 0:
        return 0.0
    pause_s = min(LONGEST_S, FIRST_S * 2.0 ** min(over, 32))
    return max(0.0, failures.at_s + pause_s - now_s)


class Attempts:
    """The failures of late. For one thread at a time."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._pairs: OrderedDict[tuple[str, str], Failures] = OrderedDict()
        self._addresses: OrderedDict[str, Failures] = OrderedDict()

    def wait_s(self, name: str, address: str, now_s: float) -> float:
        """How long *address* has to wait before it may try as *name* again; 0 if it may at once."""
        of_pair = self._pairs.get((name, address), Failures())
        of_address = self._addresses.get(address, Failures())
        return max(wait_s(of_pair, OF_A_PAIR, now_s), wait_s(of_address, OF_AN_ADDRESS, now_s))

    def failed(self, name: str, address: str, now_s: float) -> None:
        self._note(self._pairs, (name, address), now_s)
        self._note(self._addresses, address, now_s)

    def succeeded(self, name: str, address: str) -> None:
        """The pair begins anew. The address does not: it may own one account and try others' passwords."""
        self._pairs.pop((name, address), None)

    def __len__(self) -> int:
        return len(self._pairs) + len(self._addresses)

    def _note(self, kept: OrderedDict[K, Failures], key: K, now_s: float) -> None:
        before = kept.pop(key, Failures())
        count = 0 if now_s - before.at_s > FORGOTTEN_S else before.count
        kept[key] = Failures(count + 1, now_s)
        while len(kept) > self._most:
            kept.popitem(last=False)
