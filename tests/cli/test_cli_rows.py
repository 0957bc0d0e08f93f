"""Rows go in and come out on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import merganser as mg
from support.cli import Cli, shell


def test_put_prints_a_token_that_a_query_waits_for(cli: Cli, orders: str, store: Path) -> None:
    put = cli("put", orders, stdin='{"order_id": 8, "sku": "b", "qty": 5}\n\n{"order_id": 9, "sku": "c", "qty": 6}\n')
    assert put.code == 0 and orders in put.out and "2 puts" in put.err
    sql = f'select order_id, sku, qty from "{orders}" where order_id > 7 order by 1'
    assert cli("query", sql, "--store", store, "--format", "json").json == []
    found = cli("query", sql, "--store", store, "--after", put.out.strip(), "--format", "json")
    assert found.json == [{"order_id": 8, "sku": "b", "qty": 5}, {"order_id": 9, "sku": "c", "qty": 6}]


def test_a_strong_query_sees_what_was_put_before_it(cli: Cli, orders: str, store: Path) -> None:
    cli("put", orders, stdin='{"order_id": 8, "sku": "b", "qty": 5}')
    found = cli("query", f'select max(order_id) as last from "{orders}"', "--store", store, "--level", "strong")
    assert found.code == 0 and found.out.split()[-1] == "8"


def test_rows_of_a_json_query_can_be_put_again(cli: Cli, orders: str, store: Path) -> None:
    sql = f'select * exclude (_partition, _offset, _timestamp) from "{orders}"'
    rows = cli("query", sql, "--store", store, "--format", "json").out
    assert len(rows.splitlines()) == 2
    assert cli("put", orders, "-", stdin=rows).code == 0


@pytest.mark.parametrize("spell", [["order_id=2"], ["2"], ['{"order_id": 2}'], ["1", "2"]])
def test_a_key_can_be_spelled_in_each_way(cli: Cli, orders: str, store: Path, spell: list[str]) -> None:
    deleted = cli("delete", orders, *spell, "--json")
    assert deleted.json[0]["rows"] == len(spell)
    sql = f'select count(*) as n from "{orders}"'
    after = cli("query", sql, "--store", store, "--after", deleted.json[0]["token"], "--format", "json")
    assert after.json == [{"n": 2 - len(spell)}]


def test_put_reads_a_file_and_a_pipe_alike(cli: Cli, orders: str, tmp_path: Path) -> None:
    lines = "\ufeff" + "".join(json.dumps({"order_id": i, "sku": "é", "qty": 1}) + "\r\n" for i in range(1500))
    file = tmp_path / "rows.jsonl"
    file.write_text(lines, encoding="utf-8", newline="")
    assert cli("put", orders, file, "--json").json[0]["rows"] == 1500
    assert cli("put", orders, "--json", stdin=lines).json[0]["rows"] == 1500


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"order_id": 1,', "not a row"),
        ("[1, 2]", "not a JSON object"),
        ('{"order_id": "x", "sku": "a", "qty": 1}', "'order_id'"),
        ('{"order_id": 1, "sku": "a"}', "'qty'"),
        ('{"order_id": 1, "sku": "a", "qty": 1, "colour": "red"}', "'colour'"),
        ('{"order_id": 1, "order_id": 2, "sku": "a", "qty": 1}', "comes twice"),
        ('{"order_id": 1, "sku": "a", "qty": 2147483648}', "out of range"),
        ('{"order_id": 1, "sku": "a", "qty": 1.5}', "'qty'"),
        (b'{"order_id": 1, "sku": "\xff", "qty": 1}', "utf-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_and_nothing_of_the_input_is_written(
    cli: Cli, orders: str, store: Path, tmp_path: Path, line: str | bytes, why: str
) -> None:
    good = b'{"order_id": 50, "sku": "a", "qty": 1}\n'
    given = good * 3 + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good
    file = tmp_path / "rows.jsonl"
    file.write_bytes(given)
    cli("put", orders, stdin=given).failed(1, "stdin, line 4", why, "nothing was written")
    cli("put", orders, file).failed(1, "rows.jsonl, line 4", why)
    sql = f'select count(*) as n from "{orders}" where order_id = 50'
    assert cli("query", sql, "--store", store, "--level", "strong", "--format", "json").json == [{"n": 0}]


def test_every_format_has_the_same_rows(orders: str, store: Path) -> None:
    columns = """order_id, 'a "b", c' as text, null as nothing, 1.50::decimal(4, 2) as d"""
    sql = f'select {columns} from "{orders}" order by 1'

    def out(format_: str) -> bytes:
        return shell("query", sql, "--store", store, "--format", format_)

    assert out("csv").decode().splitlines() == [
        '"order_id","text","nothing","d"',
        '1,"a ""b"", c",,"1.50"',
        '2,"a ""b"", c",,"1.50"',
    ]
    assert [json.loads(line) for line in out("json").splitlines()] == [
        {"order_id": i, "text": 'a "b", c', "nothing": None, "d": "1.50"} for i in (1, 2)
    ]
    assert pa.ipc.open_stream(out("arrow")).read_all().column("order_id").to_pylist() == [1, 2]
    assert len(out("table").decode().splitlines()) == 4


def test_put_and_delete_can_be_one_transaction(cli: Cli, orders: str, store: Path) -> None:
    lines = '{"order_id": 8, "sku": "b", "qty": 5}\n{"order_id": 9, "sku": "c", "qty": 6}\n'
    put = cli("put", orders, "--transaction", "--op", "once", "--json", stdin=lines).json[0]
    assert put["rows"] == 2 and len(put["transaction"]) == 32
    deleted = cli("delete", orders, "8", "9", "--transaction")
    assert deleted.code == 0 and "in transaction" in deleted.err
    with mg.connect() as log:
        ends = log.ends([mg.TopicPartition(orders, n) for n in range(2)])
    assert ends.reaches(mg.Position.parse(deleted.out.strip())), deleted.out


def test_a_bad_line_rolls_the_transaction_back(cli: Cli, orders: str, store: Path) -> None:
    given = '{"order_id": 50, "sku": "a", "qty": 1}\n{"order_id": "x"}\n'
    cli("put", orders, "--transaction", stdin=given).failed(1, "stdin, line 2", "nothing was written")
    cli("delete", orders, "1", "x", "--transaction").failed(2, "'order_id'")
    sql = f'select count(*) as n from "{orders}"'
    assert cli("query", sql, "--store", store, "--level", "strong", "--format", "json").json == [{"n": 2}]


def test_an_op_without_a_transaction_is_refused(cli: Cli, orders: str) -> None:
    cli("put", orders, "--op", "x", stdin="{}").failed(2, "--transaction")
    cli("delete", orders, "1", "--op", "x").failed(2, "--transaction")
