"""`merganser replay` and `merganser quarantine`, on a real broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

import merganser as mg
from merganser.schemas.encode import RowEncoder
from support.cli import Cli, Shop


def damage(store: Path, table: str) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute(f'DELETE FROM "{table}" WHERE order_id = 1')


def digest(cli: Cli, store: Path) -> str:
    return str(cli("audit", "--store", store, "--json").json[0]["digest"])


def replay(cli: Cli, table: str, store: Path, *more: object) -> Any:
    return cli("replay", table, "--store", store, "--into", "anew", *more)


# -- replay --------------------------------------------------------------------------------------


def test_a_damaged_table_is_made_anew(cli: Cli, orders: str, store: Path) -> None:
    before = digest(cli, store)
    damage(store, orders)
    assert cli("audit", "--store", store).code == 1
    shown = replay(cli, orders, store, "--swap")
    assert shown.code == 0 and "anew becomes " + orders in shown.out and "nothing was written" in shown.err
    assert "merganser replay" in cli("audit", "--store", store).err
    done = replay(cli, orders, store, "--swap", "--execute")
    assert done.code == 0 and "something else" in done.err, done
    assert digest(cli, store) == before
    again = replay(cli, orders, store, "--swap", "--execute", "--json").json[0]
    assert (again["becomes"], again["digest"], again["digest_before"], again["rows"]) == ("replica", before, before, 2)
    assert cli("status", "--store", store, "--json").json[0]["derived"] == []
    assert cli("put", orders, stdin=json.dumps({"order_id": 9, "sku": "b", "qty": 1})).code == 0
    assert cli("replica", "run", "--store", store, "--group", "shop", "--tables", orders, "--until-end").code == 0
    assert cli("audit", "--store", store, "--log").code == 0


def test_a_derived_table_is_frozen_until_it_is_dropped(
    cli: Cli, orders: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"m{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{module}.py").write_text(
        "def twice(row):\n    return {'id': row['order_id'], 'twice': row['qty'] * 2}\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--transform", f"{module}:twice", "--swap"]
    assert "derived table" in replay(cli, orders, store, *options).out
    assert replay(cli, orders, store, *options, "--execute").code == 0
    rows = cli("query", f'select id, twice from "{orders}" order by id', "--store", store, "--format", "json")
    assert rows.json == [{"id": 1, "twice": 4}, {"id": 2, "twice": 4}]
    assert f"derived from {orders}" in cli("status", "--store", store).out
    assert orders in cli("audit", "--store", store).err
    run = ["replica", "run", "--store", store, "--group", "shop", "--tables", orders, "--until-end"]
    cli(*run).failed(1, "derived here")
    assert "would remove" in cli("replay", orders, "--store", store, "--drop").out
    assert cli("replay", orders, "--store", store, "--drop", "--execute").code == 0
    assert cli(*run).code == 0
    assert cli("audit", "--store", store, "--log", "--json").json[0]["live"] == 2


def test_from_the_archive_when_kafka_has_lost_it(
    cli: Cli, orders: str, store: Path, tmp_path: Path, broker: str
) -> None:
    archive, before = tmp_path / "archive", digest(cli, store)
    assert cli("archive", "run", "--archive", archive, "--tables", orders, "--until-end").code == 0
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_records([KafkaPartition(orders, p, -1) for p in range(2)]).values():
        future.result()
    damage(store, orders)
    replay(cli, orders, store, "--swap", "--execute").failed(1, "from offset")
    done = replay(cli, orders, store, "--swap", "--execute", "--archive", archive)
    assert done.code == 0, done.err
    assert digest(cli, store) == before


def test_what_cannot_be_is_refused(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    store = shop.copy_to(tmp_path / "shop.duckdb")
    replay(cli, "nothing", store).failed(2, "unknown table")
    cli("replay", shop.table, "--store", store).failed(2, "--into")
    replay(cli, shop.table, store, "--to", "yesterday").failed(2, "--to is")
    replay(cli, shop.table, store, "--from", "7").failed(2, "2 partitions")
    replay(cli, shop.table, store, "--transform", "os:nothing").failed(2, "has no")
    cli("replay", shop.table, "--store", store, "--drop", "--into", "x").failed(2, "--drop")
    cli("replay", shop.table, "--store", store, "--drop").failed(2, "unknown table")
    replay(cli, shop.table, tmp_path / "none.duckdb").failed(1, "no such file")
    code = f"import duckdb, sys; con = duckdb.connect({str(store)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        replay(cli, shop.table, store).failed(1, "in use by another process", str(holder.pid))
        replay(cli, shop.table, store, "--execute").failed(1, "in use by another process")
        assert holder.stdin is not None
        holder.stdin.close()


# -- quarantine ----------------------------------------------------------------------------------


def spoil(table: str, broker: str, *ids: int) -> None:
    """Records with a good key and a value that is none."""
    with mg.connect(broker) as log:
        encoder = RowEncoder(log.table(table))
    producer = KafkaProducer({"bootstrap.servers": broker, "partitioner": "murmur2_random"})
    for id_ in ids:
        producer.produce(table, b"rubbish", encoder.key({"order_id": id_}))
    producer.flush()


def follow(cli: Cli, table: str, store: Path) -> None:
    assert cli("replica", "run", "--store", store, "--group", "shop", "--tables", table, "--until-end").code == 0


def test_a_record_is_listed_repaired_and_written_once(
    cli: Cli, orders: str, store: Path, broker: str, tmp_path: Path
) -> None:
    spoil(orders, broker, 1, 7)
    follow(cli, orders, store)
    listed = cli("quarantine", "list", "--store", store, "--table", orders)
    assert listed.out.count("the first byte is") == 2
    assert [row["bytes"] > 7 for row in cli("quarantine", "list", "--store", store, "--json").json] == [True, True]
    assert "1 of 2 records" in cli("quarantine", "list", "--store", store, "--limit", 1).err
    retry = ["quarantine", "retry", "--store", store, "--table", orders]
    assert re.search(r"^ +2 +is no row still$", cli(*retry).out, re.MULTILINE)
    none = ["--reason", "no such reason"]
    assert "no such record" in cli("quarantine", "list", "--store", store, *none).err
    assert "no such record" in cli(*retry, *none).err
    lines = []
    for record in cli(*retry, "--json").json:
        assert (record["state"], record["row"]) == ("bad", None)
        lines.append({**record, "row": {"order_id": 7, "sku": "mended", "qty": 1}})
    (tmp_path / "mended.jsonl").write_text("\n".join(map(json.dumps, [*lines[:1], {**lines[1], "row": None}])))
    mend = [*retry, "--repaired", tmp_path / "mended.jsonl"]
    assert cli(*mend, "--json").json[0]["state"] in ("ready", "superseded")
    (tmp_path / "mended.jsonl").write_text("\n".join(map(json.dumps, [*lines, {**lines[0], "offset": 10**6}])))
    done = cli(*mend, "--execute")
    assert "1 line of" in done.err and "at offset 1000000: left alone" in done.err
    assert "1 record written" in done.err and done.out.splitlines()[-1].startswith(orders)
    again = cli(*mend, "--execute")
    assert "0 records written" in again.err
    follow(cli, orders, store)
    row = cli("query", f'select sku from "{orders}" where order_id = 7', "--store", store, "--format", "json")
    assert row.json == [{"sku": "mended"}]
    assert len(cli("quarantine", "list", "--store", store, "--json").json) == 2
    assert cli("audit", "--store", store, "--log").code == 0


def test_a_file_of_repairs_that_is_none_is_refused(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"partition": 0}\n')
    retry = ["quarantine", "retry", "--store", shop.store, "--table", shop.table]
    cli(*retry, "--repaired", tmp_path / "bad.jsonl").failed(1, "line 1")
    cli(*retry, "--repaired", tmp_path / "bad.jsonl", "--transform", "a:b").failed(2, "either")
    cli("quarantine", "retry", "--store", shop.store, "--table", "nothing").failed(2, "unknown table")
