"""The story: shops sell in two rooms' sight, are killed, go on, and in the end everything is counted.

It holds only if the kills met shops and a room at work, no room ever saw part of an order, no room ever
forgot what it had shown, and every promise of check.py is kept in every room.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import merganser as mg

from . import tables as tables_
from .check import Expected, Finding, ask_room, compare
from .clerk import Orders
from .process import Failed, Process, Said
from .room import Look, Room
from .screen import Screen
from .tables import Tables

ROOMS = ("north", "south")

#: What is sold, and how often it is asked for: the shops meet at the duck.
SKUS = {"duck": 5, "goose": 2, "swan": 1, "teal": 1}

#: Of what is asked for, how much there is: so some customers are refused.
_STOCKED = 0.85

_STALLED_S = 150.0  # a broker that is started again on a busy machine takes a minute


@dataclass(frozen=True)
class Plan:
    """What is to happen."""

    orders: int = 120
    shops: int = 3
    kills: int = 4
    lose: float = 0.1  # part of the answers to commits
    without: tuple[str, ...] = ()
    seed: int = 0


class Story:
    """One run; its stores are in *folder*."""

    def __init__(self, log: mg.Log, plan: Plan, folder: Path, screen: Screen) -> None:
        self._log, self._plan, self._folder, self._screen = log, plan, folder, screen
        self._run = uuid.uuid4().hex[:8]
        self._tables = Tables.of(self._run)
        self._random = random.Random(plan.seed)
        self._said: SimpleQueue[Said] = SimpleQueue()
        self._rooms = {name: Room(self._run, name, str(folder / f"{name}.duckdb")) for name in ROOMS}
        self._shops = [f"shop-{n + 1}" for n in range(plan.shops)]
        self._lives: Counter[str] = Counter()
        self._processes = {
            name: Process(name, f"{__package__}.{kind}", log.bootstrap_servers, self._said)
            for kind, names in (("room", ROOMS), ("clerk", self._shops))
            for name in names
        }
        self._looks: dict[str, Look] = {}
        self._seen_wrong: list[str] = []
        self._forgotten: list[str] = []
        self._told: dict[int, str | None] = {}
        self._closed: set[str] = set()
        self.happened: Counter[str] = Counter()

    def tell(self) -> list[Finding]:
        """The whole story, and what was found at its end."""
        self._screen.say(
            f"{self._plan.orders} carts, {self._plan.shops} shops, 2 rooms; the log is at {self._log.bootstrap_servers}"
        )
        try:
            stock = self._open()
            for name in (*ROOMS, *self._shops):
                self._start(name)
            self._watch()
            for process in self._processes.values():
                process.stop()
        finally:
            for process in self._processes.values():
                process.kill()
        return self._count(Expected(stock, self._plan.orders, self._told))

    # -- steps -------------------------------------------------------------------------------

    def _open(self) -> dict[str, int]:
        """The tables, the stock, and the carts that customers have filled."""
        tables_.create(self._log, self._tables)
        carts, asked = [], Counter[str]()
        for cart_id in range(self._plan.orders):
            sku, qty = self._random.choices(list(SKUS), list(SKUS.values()))[0], self._random.randint(1, 3)
            shop = self._shops[cart_id % len(self._shops)]
            carts.append({"cart_id": cart_id, "shop": shop, "sku": sku, "qty": qty, "state": "open"})
            asked[sku] += qty
        stock = {sku: int(asked[sku] * _STOCKED) for sku in SKUS}
        with self._log.producer() as producer:
            with producer.transaction() as tx:  # one, so that no room ever sees a part of the stock
                for n, (sku, qty) in enumerate(stock.items()):
                    tx.put(self._tables.stock, {"sku": sku, "qty": qty, "price": 100 + 10 * n})
            for cart in carts:
                producer.put(self._tables.carts, cart)
        self._began_with = sum(stock.values())
        return stock

    def _start(self, name: str) -> None:
        self._lives[name] += 1
        if name in self._rooms:
            self._processes[name].start(self._rooms[name].line())
            return
        seed = f"{self._plan.seed} {name} {self._lives[name]}"  # another life has other troubles
        store = str(self._folder / f"{name}.duckdb")
        orders = Orders(self._run, name, store, seed, self._plan.lose, list(self._plan.without))
        self._processes[name].start(orders.line())

    def _watch(self) -> None:
        """Until every shop has closed and every room has seen it; with the kills on the way."""
        self._moved_s = time.monotonic()
        kills = 0
        while len(self._closed) < len(self._shops) or not self._all_seen():
            self._hear()
            if time.monotonic() - self._moved_s > _STALLED_S:
                raise Failed(f"no cart was checked out for {_STALLED_S:g} s: {self._progress()}")
            for process in self._processes.values():
                process.check()
            if self._due(kills) and self._kill("shop" if kills % 2 == 0 else "room"):
                kills += 1
            self._screen.progress(self._progress())

    def _due(self, kills: int) -> bool:
        """Time for another, after *kills*? They are spread evenly, and end before the shops do."""
        return kills < self._plan.kills and len(self._told) * (self._plan.kills + 2) >= (kills + 1) * self._plan.orders

    def _all_seen(self) -> bool:
        sold = sum(order is not None for order in self._told.values())
        return all(name in self._looks and self._looks[name].orders >= sold for name in ROOMS)

    def _kill(self, kind: str) -> bool:
        """SIGKILL, at a moment that is nobody's choice, and a new life at once. False if it met nobody at work."""
        at_work = list(ROOMS) if kind == "room" else [name for name in self._shops if name not in self._closed]
        if not at_work:
            return False
        name = self._random.choice(at_work)
        process = self._processes[name]
        time.sleep(self._random.uniform(0, 0.05))
        if not process.kill():
            return False  # it had closed by then, which is still to be heard
        self.happened[f"{kind}s killed"] += 1
        self._screen.say(f"  kill -9 {process.pid}: {name}, at {len(self._told)} of {self._plan.orders} carts; again")
        self._start(name)
        return True

    def _count(self, expected: Expected) -> list[Finding]:
        """All that was promised."""
        findings = [
            Finding("the kills met shops, and a room, at work", tuple(self._not_killed())),
            Finding("at no moment did a room see less, or more, than whole orders", tuple(self._seen_wrong)),
            Finding("no room forgot what it had shown", tuple(self._forgotten)),
        ]
        by_promise: dict[str, list[str]] = {}
        for room in self._rooms.values():
            for found in ask_room(self._log, room, self._tables, expected):
                by_promise.setdefault(found.promise, []).extend(f"{room.name}: {what}" for what in found.broken_by)
        findings += [Finding(promise, tuple(broken)) for promise, broken in by_promise.items()]
        self.happened["untold"] = self._plan.orders - len(self._told)
        compared, sums = compare(list(self._rooms.values()), self._log.bootstrap_servers)
        self.happened.update({f"records {term}": n for term, n in sums.items()})
        return findings + compared

    # -- what the processes say --------------------------------------------------------------

    def _hear(self) -> None:
        try:
            name, said = self._said.get(timeout=0.1)
        except Empty:
            return
        event = said.pop("event")
        self.happened[event] += 1
        if event == "look":
            self._look(name, Look(**said))
        elif event in ("ordered", "refused"):
            self._told[said["cart"]] = said["order"]
            self._moved_s = time.monotonic()
        elif event == "closed":
            self._closed.add(name)

    def _look(self, name: str, look: Look) -> None:
        self._seen_wrong += [f"{name}: {wrong}" for wrong in look.wrong(self._began_with)]
        before = self._looks.get(name)
        if before is not None and look.orders < before.orders:
            self._forgotten.append(f"{name}: {before.orders} orders, later {look.orders}")
        self._looks[name] = look

    # -- words -------------------------------------------------------------------------------

    def _progress(self) -> str:
        said = self.happened
        return (
            f"{len(self._told)} of {self._plan.orders} carts: {said['ordered']} ordered, {said['refused']} refused; "
            f"{said['rejected']} rejected, {said['in doubt']} in doubt, {said['rolled back']} rolled back"
        )

    def _not_killed(self) -> list[str]:
        wanted: dict[str, Any] = {"shops killed": (self._plan.kills + 1) // 2, "rooms killed": self._plan.kills // 2}
        return [f"{self.happened[what]} {what} of {n}" for what, n in wanted.items() if self.happened[what] < n]
