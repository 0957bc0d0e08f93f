"""``python -m bench.load.writer``: keeps the rules of :mod:`bench.load.rows` while it writes, at a steady rate.

One process writes; where it ended is in a file, so that another can go on. It ends when its input does, and says how
much it wrote.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import merganser as mg

from .rows import ACCOUNTS, BALANCE, ORDERS, PAD, Names, mark

#: Of all records, those that go into transactions, and into ``events``.
_MOVED, _EVENTS = 0.2, 0.2

#: Accounts in a transaction; it has as many entries.
_PARTIES = 5

_STEP_S = 0.02


@dataclass
class State:
    """What was written so far."""

    seq: int = 0
    events: int = 0
    moves: int = 0
    balances: list[int] = field(default_factory=lambda: [BALANCE] * ACCOUNTS)
    versions: list[int] = field(default_factory=lambda: [0] * ACCOUNTS)

    @property
    def records(self) -> int:
        return self.seq + self.events + 2 * _PARTIES * self.moves + ACCOUNTS


class Writer:
    def __init__(self, log: mg.Log, names: Names, state: State) -> None:
        self._plain, self._moving = log.producer(), log.producer()
        self._names, self._state = names, state
        self._random = random.Random(state.seq)

    def begin(self) -> None:
        """Every order and every account once."""
        for id_ in range(ORDERS):
            self._order(id_)
        for id_ in range(ACCOUNTS):
            self._plain.put(self._names["accounts"], self._account(id_))
        self._event()
        self._plain.flush()

    def orders(self, times: int) -> None:
        for _ in range(times):
            self._order(self._random.randrange(ORDERS))

    def events(self, times: int) -> None:
        for _ in range(times):
            self._event()

    def moves(self, times: int) -> None:
        for _ in range(times):
            self._move()

    def close(self) -> None:
        self._plain.close()
        self._moving.close()

    def _order(self, id_: int) -> None:
        state = self._state
        state.seq += 1
        row = {"id": id_, "seq": state.seq, "qty": state.seq % 97, "mark": mark(id_, state.seq, state.seq % 97)}
        self._plain.put(self._names["orders"], {**row, "pad": PAD})

    def _event(self) -> None:
        n = self._state.events
        self._plain.put(self._names["events"], {"n": n, "mark": mark(n, 0, 0)})
        self._state.events = n + 1

    def _move(self) -> None:
        """Money from one account to others, noted on both sides."""
        state = self._state
        giver, *takers = self._random.sample(range(ACCOUNTS), _PARTIES)
        amounts = {taker: self._random.randrange(10) for taker in takers}
        amounts[giver] = -sum(amounts.values())
        state.moves += 1
        with self._moving.transaction() as tx:
            for account, amount in amounts.items():
                state.balances[account] += amount
                state.versions[account] += 1
                tx.put(self._names["accounts"], self._account(account))
                tx.put(self._names["entries"], {"account": account, "amount": amount, "tx": state.moves})

    def _account(self, id_: int) -> dict[str, int]:
        balance, version = self._state.balances[id_], self._state.versions[id_]
        return {"id": id_, "balance": balance, "version": version, "mark": mark(id_, balance, version)}


def at_rate(per_s: float, write: Callable[[int], None], stopping: threading.Event) -> None:
    """*write* so many times a second, in steps; what it cannot keep up with is left out."""
    due_s, owed = time.monotonic(), 0.0
    while not stopping.is_set():
        owed = min(owed + per_s * _STEP_S, per_s)
        write(int(owed))
        owed -= int(owed)
        due_s = max(due_s + _STEP_S, time.monotonic() - 1)
        stopping.wait(max(0.0, due_s - time.monotonic()))


def main() -> None:
    servers, tag, where, rate = sys.argv[1:]
    path, per_s = Path(where), float(rate)
    state = State(**json.loads(path.read_text())) if path.exists() else State()
    with mg.connect(servers) as log:
        writer = Writer(log, Names(tag), state)
        if not path.exists():
            writer.begin()
        began_s, before = time.monotonic(), state.records
        print("ready", flush=True)
        stopping, failures = threading.Event(), list[BaseException]()

        def run(per_s: float, write: Callable[[int], None]) -> None:
            try:
                at_rate(per_s, write, stopping)
            except BaseException as error:  # noqa: BLE001  # told by the process
                failures.append(error)

        shares = [
            (per_s * (1 - _MOVED - _EVENTS), writer.orders),
            (per_s * _EVENTS, writer.events),
            (per_s * _MOVED / (2 * _PARTIES), writer.moves),
        ]
        threads = [threading.Thread(target=run, args=share) for share in shares]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        stopping.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        writer.close()
        seconds = time.monotonic() - began_s
        path.write_text(json.dumps(asdict(state)))
        print(json.dumps({"rows_s": (state.records - before) / seconds}), flush=True)


if __name__ == "__main__":
    main()
