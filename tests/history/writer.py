"""A process that writes, and is killed now and then: registers, accounts, events, in every way there is.

It goes on until its stdin is closed. Accounts of its own it may write without a condition, since it knows what is
in them; shared ones by ``if_version`` only, from what a replica has shown last.
"""

from __future__ import annotations

import random
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import merganser as mg
from history import faults
from history.journal import (
    ENTRIES,
    EVENTS,
    FIRST_BALANCE,
    LEFT,
    PARTITIONS,
    REGISTERS,
    RIGHT,
    ROW,
    SHARED,
    Journal,
    Plan,
    own,
    publish,
    published,
    table_of,
)
from merganser.schemas.errors import CommitInDoubt, ProducerFenced, RolledBack
from support.waiting import wait_for

Row = list[Any]  # table, id, n (None: delete), condition or None

MIX = {
    "singles": 50,
    "transaction": 12,
    "rollback": 4,
    "transfer": 6,
    "transfer-if": 8,
    "transfer-op": 6,
    "transfer-late": 3,
}
SINGLES = {"put": 40, "delete": 10, "conditional": 25, "event": 15, "event-again": 10}
BANK = {"rollback": 2, "transfer": 6, "transfer-if": 8, "transfer-op": 6, "transfer-late": 3}


#: So far the slower replica may fall behind before a writer waits for it: reads that wait for it are to end.
BACKLOG = 1_500


class RollBack(Exception):
    """What ends the block of a transaction that is to be rolled back."""


class Single(NamedTuple):
    """A write that is in no transaction."""

    kind: str
    w: int
    row: Row
    op: str | None = None


class Writer:
    #: The naive way, see faults.py.
    doubt_is_abort = False

    def __init__(self, plan: Plan, index: int, life: int) -> None:
        self.plan, self.index = plan, index
        self.folder = Path(plan.folder)
        self.journal = Journal(self.folder / f"writer{index}-{life}.journal")
        self.random = random.Random(f"{plan.seed}/{index}/{life}")
        self.log = mg.connect(plan.servers)
        # The id fences the life before, whose open transaction would hold all readers up for seconds.
        self.producer = self.log.producer(id=f"writer{index}-{plan.tag}")
        self.balances: dict[int, int] = {}
        self.versions: dict[tuple[int, int], int] = {}
        self.events: list[Single] = []
        self.late: list[tuple[int, list[Row], str]] = []
        self.token = [0] * len(plan.partitions)

    def run(self) -> None:
        self.recover()
        mix = BANK if self.plan.bank else MIX
        names, weights = list(mix), list(mix.values())
        while not select.select([sys.stdin], [], [], 0)[0]:
            kind = self.random.choices(names, weights)[0]
            getattr(self, "do_" + kind.replace("-", "_"))()
            if self.behind() > BACKLOG:
                wait_for("the replicas to catch up", lambda: self.behind() < BACKLOG // 2, timeout_s=120)
        self.producer.close()
        self.log.close()

    def recover(self) -> None:
        """What the accounts of this writer hold: asked of a replica that is beyond all it ever wrote."""
        ends = self.plan.vector(self.log.ends(self.plan.partitions))

        def known() -> bool:
            shown = self.shown()
            if shown is None or any(at < end for at, end in zip(shown["applied"], ends, strict=True)):
                return False
            mine = set(own(self.index))
            self.balances = {id_: n for table, id_, n, _ in shown["rows"] if table < ENTRIES and id_ in mine}
            return True

        wait_for("a replica to show all that was written", known, timeout_s=60, every_s=0.02)

    def shown(self) -> dict[str, Any] | None:
        return published(self.folder / f"shown{self.random.randrange(2)}.json")

    def behind(self) -> int:
        """How many offsets the slower replica lacks of what this writer wrote."""
        shown = [published(self.folder / f"shown{index}.json") for index in range(2)]
        return max((sum(map(_lack, s["applied"], self.token)) for s in shown if s is not None), default=0)

    # -- kinds of writes ---------------------------------------------------------------------

    def do_singles(self) -> None:
        """Some writes by themselves, on their way at the same time."""
        kinds = self.random.choices(list(SINGLES), list(SINGLES.values()), k=self.random.choice((1, 1, 8, 64)))
        self.plain([self.single(kind) for kind in kinds])

    def single(self, kind: str) -> Single:
        w, table, id_ = self.journal.number(), self.table(), self.register()
        if kind == "event-again" and self.events:
            return self.random.choice(self.events)  # it may be long ago, or just now
        if kind in ("event", "event-again"):
            event = Single("event", w, [ENTRIES, EVENTS + w, 0, None], f"event-{w}")
            self.events = [*self.events[-50:], event]
            return event
        if kind == "delete":
            return Single(kind, w, [table, id_, None, None])
        if kind == "put":
            return Single(kind, w, [table, id_, w, None])
        version = self.versions.get((table, id_))
        choices = ["absent", "present"] if version is None else ["absent", "present"] + 3 * [f"version:{version}"]
        return Single(kind, w, [table, id_, None if self.random.random() < 0.2 else w, self.random.choice(choices)])

    def do_transaction(self) -> None:
        w = self.journal.number()
        places = self.random.sample([(t, i) for t in (LEFT, RIGHT) for i in REGISTERS], self.random.randint(2, 5))
        self.commit("transaction", w, [[t, i, None if self.random.random() < 0.15 else w, None] for t, i in places])

    def do_rollback(self) -> None:
        w = self.journal.number()
        places = self.random.sample([(t, i) for t in (LEFT, RIGHT) for i in REGISTERS], 3)
        self.commit("rollback", w, [[t, i, w, None] for t, i in places], roll_back=True)

    def do_transfer(self) -> None:
        w = self.journal.number()
        rows, balances = self.between_own()
        result = self.commit("transfer", w, rows)
        while result == "in doubt" and self.doubt_is_abort:
            result = self.commit("transfer", w, rows)
        if result == "ok":
            self.balances |= balances
        elif result == "in doubt":
            self.recover()  # the log says what is in the accounts

    def do_transfer_op(self) -> None:
        """Under an operation id, and sent again although it was acknowledged."""
        w = self.journal.number()
        rows, balances = self.between_own()
        op = f"transfer-{w}"
        for _ in range(self.random.randint(2, 3)):
            while self.commit("transfer-op", w, rows, op) not in ("ok", "fenced"):
                pass  # rolled back or in doubt: the same again is safe
        self.balances |= balances
        self.late = [*self.late[-20:], (w, rows, op)]

    def do_transfer_late(self) -> None:
        """An operation sent again when the accounts have moved on."""
        if self.late:
            w, rows, op = self.random.choice(self.late)
            self.commit("transfer-late", w, rows, op)

    def do_transfer_if(self) -> None:
        """Between accounts that all writers write to: taken only if nobody else was faster."""
        shown = self.shown()
        if shown is None:
            return
        rows = {id_: (n, version) for table, id_, n, version in shown["rows"] if table < ENTRIES}
        one, two = self.random.sample(list(SHARED), 2)
        if one in rows and two in rows:
            w, amount = self.journal.number(), self.random.randint(1, 9)
            self.commit("transfer-if", w, _transfer(one, two, amount, rows[one], rows[two]))

    # -- how they are written ----------------------------------------------------------------

    def plain(self, singles: list[Single]) -> None:
        numbers = [self.journal.number() for _ in singles]
        for number, single in zip(numbers, singles, strict=True):
            self.journal.begin(number, single.kind, w=single.w, rows=[single.row], op=single.op)
        writes = [write(self.plan, self.producer, single.row, single.w, single.op) for single in singles]
        token = self.plan.vector(self.producer.flush())
        for number, single, sent in zip(numbers, singles, writes, strict=True):
            self.journal.end(number, "ok", tok=token, offs=[place(self.plan, sent)])
            if single.row[2] is not None and sent.offset is not None:
                self.versions[single.row[0], single.row[1]] = sent.offset
        self.acknowledged(token, None)

    def commit(self, kind: str, w: int, rows: list[Row], op: str | None = None, *, roll_back: bool = False) -> str:
        number, result = self.journal.number(), "ok"
        transaction = self.producer.transaction(op=op)
        self.journal.begin(number, kind, w=w, rows=rows, op=op, tx=transaction.id)
        try:
            with suppress(RollBack), transaction as tx:
                for row in rows:
                    write(self.plan, tx, row, w, None)
                if roll_back:
                    raise RollBack
        except RolledBack:
            result = "rolled back"
        except CommitInDoubt:
            result = "in doubt"
        except ProducerFenced:
            result = "fenced"
        if result != "ok" or roll_back:
            self.journal.end(number, "rolled back" if roll_back else result)
            return result
        token = self.plan.vector(transaction.position or {})
        self.journal.end(number, "ok", tok=token)
        self.acknowledged(token, transaction.id)
        return "ok"

    def acknowledged(self, token: list[int], tx: str | None) -> None:
        """Tell the readers, which read after it."""
        self.token = token
        publish(self.folder / f"token{self.index}.json", {"token": token, "tx": tx})

    # -- choices -----------------------------------------------------------------------------

    def table(self) -> int:
        return self.random.choice((LEFT, RIGHT))

    def register(self) -> int:
        return self.random.choice(REGISTERS)

    def between_own(self) -> tuple[list[Row], dict[int, int]]:
        one, two = self.random.sample(list(own(self.index)), 2)
        amount = self.random.randint(1, 9)
        rows = _transfer(one, two, amount, (self.balances[one], None), (self.balances[two], None))
        return rows, {one: self.balances[one] - amount, two: self.balances[two] + amount}


def write(plan: Plan, to: Any, row: Row, w: int, op: str | None) -> mg.Write:
    """One of the *rows* of an operation, by a producer or a transaction."""
    table, id_, n, condition = row
    kind, _, version = (condition or "").partition(":")
    asked: dict[str, Any] = {"if_version": int(version)} if version else {f"if_{kind}": True} if kind else {}
    if n is None:
        return to.delete(plan.tables[table], {"id": id_}, op=op, **asked)  # type: ignore[no-any-return]
    return to.put(plan.tables[table], {"id": id_, "n": n, "w": w}, op=op, **asked)  # type: ignore[no-any-return]


def _lack(at: int, wanted: int) -> int:
    return max(0, wanted - at)


def place(plan: Plan, written: mg.Write) -> list[int] | None:
    """Number of the partition and offset; None if Kafka did not say where."""
    if written.position is None or written.offset is None:
        return None
    [tp] = written.position
    return [plan.partitions.index(tp), written.offset]


def _transfer(
    one: int, two: int, amount: int, first: tuple[int, int | None], second: tuple[int, int | None]
) -> list[Row]:
    conditions = [None if version is None else f"version:{version}" for _, version in (first, second)]
    return [
        [table_of(one), one, first[0] - amount, conditions[0]],
        [table_of(two), two, second[0] + amount, conditions[1]],
        [ENTRIES, one, -amount, None],
        [ENTRIES, two, amount, None],
    ]


def open_accounts(plan: Plan) -> None:
    """The tables of a run, and the first balance of each account, in one transaction."""
    with mg.connect(plan.servers) as log:
        for table, partitions in zip(plan.tables, PARTITIONS, strict=True):
            log.create_table(table, ROW, [] if table == plan.tables[ENTRIES] else ["id"], partitions=partitions)
        journal = Journal(Path(plan.folder) / "bank-0.journal")
        w, number = journal.number(), journal.number()
        rows: list[Row] = [[table_of(id_), id_, FIRST_BALANCE, None] for id_ in plan.accounts]
        with log.producer() as producer:
            tx = producer.transaction()
            journal.begin(number, "opening", w=w, rows=rows, op=None, tx=tx.id)
            with tx:
                for row in rows:
                    write(plan, tx, row, w, None)
            journal.end(number, "ok", tok=plan.vector(tx.position or {}))


def main() -> None:
    plan = Plan.from_json(sys.argv[1])
    if plan.naive:
        faults.install(plan.naive)
    Writer(plan, int(sys.argv[2]), int(sys.argv[3])).run()


if __name__ == "__main__":
    main()
