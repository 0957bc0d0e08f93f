"""The guard's bounds: time, size, how many at once; and that no client keeps the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import merganser as mg
from merganser.pipeline.serving.guard.answer import Answer
from merganser.pipeline.serving.guard.ask import Ask, ServingLimits
from merganser.pipeline.serving.guard.guard import Guard
from merganser.schemas.errors import (
    BadQuery,
    NotAllowed,
    NotFreshEnough,
    QueryCancelled,
    QueryTimeout,
    TooBusy,
    TooLarge,
    UsageError,
)
from serving.world import HIDDEN, ORDERS, World, world
from support.naive import both_ways, caught
from support.waiting import wait_for

#: Gives the first rows at once and then none, so that no other limit ends it.
STANDING = "SELECT i FROM range(1000000000000000) AS r(i) WHERE i < 300000"
ENDLESS = "SELECT count(*) FROM range(1000000000000000)"
#: Some 40 MB.
LARGE = "SELECT i, i * 2 AS j, md5(i::VARCHAR) AS s FROM range(800000) AS r(i)"


@pytest.fixture
def guard(served: World, request: pytest.FixtureRequest) -> Iterator[Guard]:
    opened = Guard(served.replica, ServingLimits(**getattr(request, "param", {})))
    yield opened
    opened.close()


limits = pytest.mark.parametrize


def test_an_answer_says_the_state_that_it_is_of_and_its_types(served: World, guard: Guard) -> None:
    with guard.ask(Ask(f"SELECT id, qty FROM {ORDERS} WHERE id = ?", [7])) as answer:
        assert answer.table().to_pylist() == [{"id": 7, "qty": 7}]
        assert answer.position == answer.applied == served.end
        assert answer.types == ("BIGINT", "INTEGER")
    assert guard.ask(Ask("SELECT $a + $b AS s", {"a": 1, "b": 2})).table().to_pylist() == [{"s": 3}]


#: What Arrow would make of each is another value.
CHANGED = (
    "md5_number('x')",
    "[340282366920938463463374607431768211455::UHUGEINT]",
    "TIMETZ '01:02:03+05'",
    "MAP {'a': {'b': TIMETZ '01:02:03+05'}}",
    "'101'::BIT",
    "12345678901234567890123::BIGNUM",
    "1::VARIANT",
)


@limits("sql", CHANGED)
def test_a_value_that_would_be_another_one_in_the_answer_is_refused(guard: Guard, sql: str) -> None:
    for ask in (guard.ask, guard.describe):
        with pytest.raises(BadQuery, match="column 'x' is of type") as caught:
            ask(Ask(f"SELECT 1 AS a, {sql} AS x"))
        assert "VARCHAR" in caught.value.hint
    with guard.ask(Ask(f"SELECT CAST({sql} AS VARCHAR) AS x, {{'BIT': 1, 'uhugeint': 2}} AS y")) as answer:
        assert answer.table().num_rows == 1
    with guard.ask(Ask("SELECT 'BIT'::ENUM('BIT') AS x, TIMESTAMPTZ '2026-01-01 00:00:00+05' AS y")) as answer:
        assert answer.table().num_rows == 1
    wait_for("the refused ones to have left", lambda: guard.counts().running == 0)


def test_an_answer_does_not_tell_how_far_tables_without_a_grant_are(served: World, guard: Guard) -> None:
    mine = served.end.of({ORDERS})
    for ask in (Ask("SELECT 1"), Ask(f"SELECT * FROM {ORDERS}", level="strong"), Ask("SELECT 1", after=str(mine))):
        with guard.ask(ask, tables={"Orders"}) as answer:
            assert answer.position == answer.applied == mine
    served.put(HIDDEN, 2)
    served.replica.wait(served.end)
    for token in (mg.Position.parse(f"{HIDDEN}/0:1"), mg.Position.parse(f"{HIDDEN}/0:1") | mine):
        with guard.ask(Ask("SELECT 1", after=token), tables={ORDERS}) as answer:
            assert answer.applied == mine | token, "who has a token hears that it is reached, and no more"


def test_an_answer_is_as_fresh_as_asked(served: World, guard: Guard) -> None:
    for n in range(20):
        served.put(ORDERS, 5_000, qty=n)
        token = served.end
        for ask in (Ask("SELECT qty FROM orders WHERE id = 5000", after=str(token)),
                    Ask("SELECT qty FROM orders WHERE id = 5000", level="strong"),
                    Ask("SELECT qty FROM orders WHERE id = 5000", level="bounded", max_staleness=0.001)):  # fmt: skip
            with guard.ask(ask) as answer:
                assert answer.table().to_pylist() == [{"qty": n}] and answer.position.reaches(token)
    with pytest.raises(NotFreshEnough):
        guard.ask(Ask("SELECT 1", after="orders/0:100000", timeout=0.2))
    with pytest.raises(UsageError):
        guard.ask(Ask("SELECT 1", level="bounded"))


@limits("guard", [{"query_s": 0.3}], indirect=True)
def test_a_query_ends_at_its_time_out(served: World, guard: Guard) -> None:
    with pytest.raises(QueryTimeout, match=r"0\.3 s"):
        guard.ask(Ask(ENDLESS))
    assert guard.counts().running == 0
    served.goes_on(9_000)


@limits("guard", [{"answer_rows": 1000}, {"answer_bytes": 100_000}], indirect=True)
def test_an_answer_that_is_too_large_ends_in_an_error_after_what_it_had(guard: Guard) -> None:
    with pytest.raises(TooLarge):
        guard.ask(Ask(LARGE)).table()


@both_ways
def test_a_client_that_does_not_read_holds_back_no_checkpoint(
    naive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive: the answer is read out of the store as fast as its client takes it."""
    if naive:
        monkeypatch.setattr(Answer, "begin", lambda self: None)
    with world(tmp_path) as served:
        guard = Guard(served.replica)
        slow = guard.ask(Ask(LARGE))
        with caught(naive):
            wait_for("the answer is out of the store", lambda: guard.counts().running == 0, 1 if naive else 20)
            with served.replica._store._gate.closed(grace_s=0):
                pass
        if naive:
            slow._pull()
        assert slow.table().num_rows == 800_000
        slow.close()
        guard.close()


@both_ways
def test_an_answer_comes_in_small_portions_however_wide_its_rows_are(
    naive: bool, served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way is copied at each step, in memory that nobody counts. Naive: as DuckDB has it."""
    if naive:
        monkeypatch.setattr("merganser.pipeline.serving.guard.guard._BATCH_ROWS", 65_536)
        monkeypatch.setattr("merganser.pipeline.serving.guard.answer.portions", lambda batch, nbytes: [batch])
    guard = Guard(served.replica)
    with guard.ask(Ask("SELECT repeat('x', 3000) AS s FROM range(20000)")) as answer:
        sizes = [int(batch.nbytes) for batch in answer.batches()]
    guard.close()
    assert sum(sizes) > 60_000_000
    with caught(naive):
        assert max(sizes) < 2 * 2**20


@limits("guard", [{"answer_memory": 100_000}], indirect=True)
def test_what_does_not_stay_in_memory_comes_back_from_the_disk_in_order(served: World, guard: Guard) -> None:
    with guard.ask(Ask(LARGE)) as answer:
        answer.wait()
        assert answer.table().column("i").to_pylist() == list(range(800_000))
    assert [path.name for path in served.path.parent.iterdir() if "answer" in path.name] == []


@limits("guard", [{"answer_memory": 100_000, "spool": 1_000_000}], indirect=True)
def test_all_answers_together_take_no_more_disk_than_they_may_and_give_it_back(guard: Guard) -> None:
    with guard.ask(Ask(LARGE)) as answer, pytest.raises(TooLarge):
        answer.table()
    wait_for("all is given back", lambda: guard._room._disk == 1_000_000)
    with guard.ask(Ask("SELECT * FROM range(20000)")) as answer:
        assert answer.table().num_rows == 20_000


def test_a_cancelled_query_leaves_the_store_at_once_and_tells_who_reads(guard: Guard) -> None:
    answer = guard.ask(Ask(STANDING))
    answer.cancel()
    with pytest.raises(QueryCancelled):
        answer.table()
    wait_for("the query has left", lambda: guard.counts().running == 0)
    answer.close()


def test_a_client_that_goes_stops_its_query(guard: Guard) -> None:
    with guard.ask(Ask(STANDING)):
        assert guard.counts().running == 1
    wait_for("the query has left", lambda: guard.counts().running == 0)


@limits("guard", [{"running": 1, "queue_s": 0.2, "query_s": 300}], indirect=True)
def test_who_waits_for_a_place_in_vain_is_told_for_how_long(guard: Guard) -> None:
    with guard.ask(Ask(STANDING)):
        with pytest.raises(TooBusy, match=r"waited 0\.2 s"):
            guard.ask(Ask("SELECT 1"))
    wait_for("the place is free", lambda: guard.counts().running == 0)
    assert guard.ask(Ask("SELECT 1 AS a")).table().to_pylist() == [{"a": 1}]


@limits("guard", [{"running": 1, "queued": 1, "queue_s": 300, "query_s": 300}], indirect=True)
def test_more_queries_than_places_wait_and_more_than_may_wait_are_turned_away(guard: Guard) -> None:
    running, answered = guard.ask(Ask(STANDING, timeout=300)), list[object]()
    waiter = threading.Thread(target=lambda: answered.append(guard.ask(Ask("SELECT 1", timeout=300)).table()))
    waiter.start()
    wait_for("one waits", lambda: guard.counts().waiting == 1)
    with pytest.raises(TooBusy, match="1 wait"):
        guard.ask(Ask("SELECT 1"))
    assert not answered
    running.close()
    waiter.join()
    assert len(answered) == 1


@limits("guard", [{"answers": 2}], indirect=True)
def test_answers_that_nobody_closes_are_bounded(guard: Guard) -> None:
    kept = [guard.ask(Ask("SELECT 1")) for _ in range(2)]
    with pytest.raises(TooBusy):
        guard.ask(Ask("SELECT 1"))
    kept[0].close()
    guard.ask(Ask("SELECT 1")).close()


@limits("guard", [{"answer_s": 0.2, "answers": 1}], indirect=True)
def test_an_answer_is_kept_for_its_time_only(guard: Guard) -> None:
    kept = guard.ask(Ask(LARGE))
    wait_for("it is dropped", lambda: guard.counts().open == 0)
    with pytest.raises(QueryTimeout):
        kept.table()
    assert guard._room._disk == guard.limits.spool
    guard.ask(Ask("SELECT 1")).close()


@limits("guard", [{"growth": 50 * 2**20}], indirect=True)
def test_queries_that_make_the_process_grow_are_stopped(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB counts most of what it takes, not all: so the process is looked at from outside."""
    sizes = iter([0, *[200 * 2**20] * 10_000])
    monkeypatch.setattr(guard._watch, "_resident", lambda: next(sizes))
    with pytest.raises(TooLarge, match="50 MiB"):
        guard.ask(Ask(ENDLESS))


def test_a_closed_guard_stops_what_runs_and_lets_nobody_in(served: World) -> None:
    guard = Guard(served.replica)
    answer = guard.ask(Ask(STANDING))
    guard.close()
    with pytest.raises(QueryCancelled):
        answer.table()
    with pytest.raises(QueryCancelled):
        guard.ask(Ask("SELECT 1"))
    served.goes_on(9_001)


def test_a_statement_is_described_without_being_run(guard: Guard) -> None:
    said = guard.describe(Ask(f"SELECT id, ? AS x FROM {ORDERS} WHERE qty = ? AND sku LIKE ?"))
    assert [(p.name, p.type) for p in said.parameters] == [("1", ""), ("2", "INTEGER"), ("3", "VARCHAR")]
    assert said.types[0] == "BIGINT" and [str(f.type) for f in said.parameter_schema] == ["string", "int32", "string"]
    assert guard.describe(Ask(ENDLESS)).schema.names == ["count_star()"]
    named = guard.describe(Ask(f"SELECT * FROM {ORDERS} WHERE id BETWEEN $low AND $high"))
    assert [(p.name, p.type) for p in named.parameters] == [("high", "BIGINT"), ("low", "BIGINT")]
    with pytest.raises(NotAllowed):
        guard.describe(Ask(f"SELECT * FROM {HIDDEN}"), tables={ORDERS})
    with pytest.raises(BadQuery):
        guard.describe(Ask("DELETE FROM orders"))


def test_who_may_read_some_tables_sees_those_only(guard: Guard) -> None:
    assert [t.full_name for t in guard.tables({ORDERS})] == [ORDERS]
    assert {t.full_name for t in guard.tables()} >= {ORDERS, HIDDEN, "_merganser.positions"}
    assert guard.ask(Ask("SELECT count(*) AS n FROM _merganser.positions"), tables={"_merganser.positions"}).table()
    with guard.ask(Ask(f"WITH c AS (FROM {ORDERS}) SELECT count(*) AS n FROM c"), tables={ORDERS}) as answer:
        assert answer.table().num_rows == 1


def test_what_nobody_foresaw_takes_nobodys_place(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(served.replica)
    monkeypatch.setattr(guard._checker, "check", lambda *args: 1 / 0)
    for _ in range(guard.limits.answers + 1):
        with pytest.raises(ZeroDivisionError):
            guard.ask(Ask("SELECT 1"))
    assert guard._asking.total() == 0
    guard.close()


def test_many_clients_at_once_each_get_their_own_answer(served: World) -> None:
    guard, wrong = Guard(served.replica), list[str]()

    def client(number: int) -> None:
        for n in range(15):
            sql = f"SELECT {number} AS a, {n} AS b, count(*) AS c FROM range({number * 100 + n})"
            with guard.ask(Ask(sql)) as answer:
                if answer.table().to_pylist() != [{"a": number, "b": n, "c": number * 100 + n}]:
                    wrong.append(sql)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and guard.counts().answered == 240
    guard.close()
