"""The load run judges right: what is whole passes, and each kind of damage is seen."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

import merganser as mg
from bench.load import rows
from bench.load.__main__ import ALLOWANCE, LAG_S, WAL, Run, main
from bench.load.clients import Tally
from bench.load.node import Sample
from bench.load.rows import KEYED, TABLES, Memory, Names, Question
from bench.load.writer import State, Writer

NAMES = Names("test")


class Records:
    """A log's producer that keeps the rows that a replica would have, with their places."""

    def __init__(self) -> None:
        self.ends: dict[tuple[str, int], int] = defaultdict(int)
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {table: {} for table in TABLES}

    def producer(self) -> Records:
        return self

    @contextmanager
    def transaction(self) -> Iterator[Records]:
        yield self

    def put(self, table: str, row: dict[str, Any]) -> None:
        kind = table.removeprefix("load_test_")
        partition = row["id"] % KEYED[kind] if kind in KEYED else 0
        offset = self.ends[table, partition]
        self.ends[table, partition] = offset + 1
        key = row["id"] if kind in KEYED else offset
        self.rows[kind][key] = {**row, "_partition": partition, "_offset": offset}

    def flush(self) -> None:
        pass

    def store(self) -> duckdb.DuckDBPyConnection:
        con = duckdb.connect(":memory:")
        con.execute("CREATE SCHEMA _merganser")
        places = [(topic, partition, end) for (topic, partition), end in self.ends.items()]
        columns = dict(zip(("topic", "partition", "next_offset"), map(list, zip(*places, strict=True)), strict=True))
        for name, found in [("_merganser.positions", pa.table(columns)), *self._tables()]:
            con.register("found", found)
            con.execute(f"CREATE TABLE {name} AS FROM found")
        return con

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        for kind, found in self.rows.items():
            yield NAMES[kind], pa.Table.from_pylist(list(found.values()))


@pytest.fixture(scope="module")
def written() -> Records:
    records = Records()
    writer = Writer(cast(mg.Log, records), NAMES, State())
    writer.begin()
    writer.orders(500)
    writer.events(50)
    writer.moves(200)
    records.put(NAMES["notes"], {"id": 3, "n": 7, "mark": rows.mark(3, 7, 0)})
    return records


@pytest.fixture
def store(written: Records) -> Iterator[duckdb.DuckDBPyConnection]:
    with written.store() as con:
        yield con


def client() -> Memory:
    return Memory(3, written=7)


#: Each question, of a client that has seen nothing yet.
QUESTIONS: dict[str, Callable[[Memory], Question]] = {
    "point": lambda memory: rows.point(NAMES, memory, 5),
    "own": lambda memory: rows.own(NAMES, memory, 7),
    "join": lambda memory: rows.join(NAMES, memory, 100),
    "sums": lambda memory: rows.count(NAMES, memory),
    "rows": lambda memory: rows.export(NAMES, memory),
}

#: What may be wrong in a state, and the questions that must see it.
DAMAGE = {
    "a row is lost": ("DELETE FROM load_test_orders WHERE id = 5", "point rows"),
    "a row is there twice": ("INSERT INTO load_test_orders FROM load_test_orders WHERE id = 5", "point rows"),
    "a column is of another row": ("UPDATE load_test_orders SET seq = seq + 1 WHERE id = 5", "point rows"),
    "the newest record is not applied": (
        "UPDATE _merganser.positions SET next_offset = next_offset + 1 WHERE topic = 'load_test_orders'",
        "rows",
    ),
    "a row lies beyond the position": (
        "UPDATE _merganser.positions SET next_offset = next_offset - 1 WHERE topic = 'load_test_orders'",
        "rows",
    ),
    "an event is applied twice": ("INSERT INTO load_test_events FROM load_test_events LIMIT 1", "sums"),
    "an event is missing below the position": ("DELETE FROM load_test_events WHERE n = 17", "sums"),
    "half of a transaction is seen": ("DELETE FROM load_test_entries WHERE tx = 9", "sums"),
    "money is made": ("UPDATE load_test_accounts SET balance = balance + 1 WHERE id = 150", "join sums"),
    "an entry is lost": (
        "DELETE FROM load_test_entries WHERE rowid = (SELECT min(rowid) FROM load_test_entries WHERE account"
        " BETWEEN 100 AND 199)",
        "join sums",
    ),
    "an account is lost": ("DELETE FROM load_test_accounts WHERE id = 150", "join sums"),
    "an own write is lost": ("DELETE FROM load_test_notes", "own"),
    "an own write is of another": ("UPDATE load_test_notes SET mark = 1", "own"),
    "an own write is an older one": (
        "UPDATE load_test_notes SET n = 6, mark = (3 * 7919 + 6 * 104729) % 1000003",
        "own",
    ),
}


def ask(store: duckdb.DuckDBPyConnection, question: Question) -> str:
    return question.judge(store.sql(question.sql, params=list(question.params)).to_arrow_table())


def test_what_is_whole_is_right(store: duckdb.DuckDBPyConnection) -> None:
    memory = client()
    for _ in range(2):
        assert {name: ask(store, question(memory)) for name, question in QUESTIONS.items()} == dict.fromkeys(
            QUESTIONS, ""
        )


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_is_seen(store: duckdb.DuckDBPyConnection, what: str) -> None:
    sql, seen_by = DAMAGE[what]
    store.execute(sql)
    wrong = {name for name, question in QUESTIONS.items() if ask(store, question(client()))}
    assert wrong >= set(seen_by.split())


@pytest.mark.parametrize("kind", ["point", "own", "join", "sums", "rows"])
def test_what_goes_back_in_time_is_seen(store: duckdb.DuckDBPyConnection, kind: str) -> None:
    memory = client()
    memory.seqs, memory.versions = {5: 10**6, -1: 10**6}, {150: 10**6}
    memory.events = memory.note = memory.written = 10**6
    assert "10000" in ask(store, QUESTIONS[kind](memory))


KEPT = Run(
    doors=Tally({("HTTP", "point"): [0.1]}), base=Tally(), seconds=1, base_s=1, samples=[Sample(0, 0, 0, 0)], missed=[],
    idle=200, peak=300, rate=1000, written=1000, caught_up_s=0.1, ended="", audit="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ({"doors": Tally()}, "no answer"),
        ({"doors": Tally(KEPT.doors.seconds, wrong=["sum"])}, "wrong answer: sum"),
        ({"base": Tally(broken=["a client hangs"])}, "hangs"),
        ({"samples": [Sample(int(LAG_S * 1000) + 1, 0, 0, 0)]}, "behind"),
        ({"samples": [Sample(0, WAL + 1, 0, 0)]}, "WAL"),
        ({"caught_up_s": None}, "caught up"),
        ({"peak": 201 + ALLOWANCE}, "its bound"),
        ({"missed": ["timed out"]}, "metrics"),
        ({"ended": "the node had ended"}, "had ended"),
        ({"audit": "orders: 3 records missing"}, "missing"),
    ],
)
def test_each_promise_that_is_broken_is_named(broken: dict[str, Any], word: str) -> None:
    assert KEPT.broken() == []
    [line] = replace(KEPT, **broken).broken()
    assert word in line


@pytest.mark.slow
def test_clients_get_right_answers_from_a_node_that_is_written(broker: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--bootstrap-servers", broker, "--clients", "6", "--seconds", "5", "--hang-up", "0.2", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0, told["broken"]
    assert told["wrong"] == 0 and told["hung_up"] and all(each["answers"] for each in told["kinds"])
