"""What cannot be done is told in one line and a hint, and nothing is written."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import duckdb
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from merganser.__main__ import main
from merganser.pipeline.broker import LocalBroker
from support.cli import MERGANSER, Cli, Shop


@pytest.fixture
def orders(shop: Shop) -> str:
    """Nothing here writes to it, so that one is enough for all."""
    return shop.table


@pytest.fixture
def store(shop: Shop, tmp_path: Path) -> Path:
    return shop.copy_to(tmp_path / "shop.duckdb")


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "command",
    [
        ["put", "no-such-table"],
        ["delete", "no-such-table", "id=1"],
        ["table", "describe", "no-such-table"],
        ["replica", "run", "--store", "{new}", "--group", "g", "--tables", "no-such-table"],
    ],
)
def test_an_unknown_table(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    new = tmp_path / "new.duckdb"
    cli(*(word.format(new=new) for word in command), stdin="{}").failed(2, "unknown table 'no-such-table'")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{not json", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"type": "record", "name": "r", "fields": []}', ""),
        ('{"type": "record", "name": "r", "fields": [{"name": "x", "type": "colour"}]}', "colour"),
        ('{"type": "record", "name": "r", "fields": [{"name": "_offset", "type": "long"}]}', "_offset"),
        ('"string"', "not a JSON object"),
        (b"\xff\xfe\xfd", "not UTF-8"),
    ],
)
def test_a_bad_schema(cli: Cli, tmp_path: Path, text: str | bytes, why: str) -> None:
    path = tmp_path / "bad.avsc"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    cli("table", "create", "never-made", "--schema", path).failed(2, why)
    cli("table", "describe", "never-made").failed(2, "unknown table")


def test_a_schema_file_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    cli("table", "create", "never-made", "--schema", tmp_path / "no.avsc").failed(2, "no.avsc")


def test_key_columns_that_do_not_exist(cli: Cli, schema: Path) -> None:
    cli("table", "create", "never-made", "--schema", schema, "--key", "nobody").failed(2, "'nobody'")
    cli("table", "describe", "never-made").failed(2, "unknown table")


def test_a_table_that_exists_and_differs(cli: Cli, orders: str, schema: Path) -> None:
    cli("table", "create", orders, "--schema", schema, "--key", "sku").failed(2, "exists and differs")
    cli("table", "create", orders, "--schema", schema, "--key", "order_id", "--partitions", 7).failed(2, "partition")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--check", "qty >"], 'check "qty >", character 6'),
        (["--check", "qty > 0", "--check", "nope = 1"], "no column 'nope'"),
        (["--check", "sku > 5"], "sku is VARCHAR"),
        (["--check", ""], "not the end"),
        (["--check", "qty > 0\nand qty < 9"], "character 8"),
        (["--conditions", "some"], "some"),
        (["--compact", "--conditions", "any"], "compacted"),
    ],
)
def test_bad_checks_and_conditions(cli: Cli, schema: Path, words: list[str], why: str) -> None:
    cli("table", "create", "never-made", "--schema", schema, "--key", "order_id", *words).failed(2, why)
    cli("table", "describe", "never-made").failed(2, "unknown table")


def test_a_row_that_breaks_a_check(cli: Cli, schema: Path) -> None:
    name = f"orders-{uuid.uuid4().hex[:8]}"
    assert cli("table", "create", name, "--schema", schema, "--check", "qty > 0").code == 0
    done = cli("put", name, stdin='{"order_id": 1, "sku": "a", "qty": 1}\n{"order_id": 2, "sku": "a", "qty": 0}\n')
    done.failed(1, "line 2", "'qty', value 0", 'check "qty > 0" does not hold', "nothing was written")


def test_an_incompatible_schema_change_is_refused_and_the_table_stays(cli: Cli, orders: str, tmp_path: Path) -> None:
    path = tmp_path / "new.avsc"
    fields = [{"name": "order_id", "type": "long"}, {"name": "note", "type": "string"}]
    path.write_text(json.dumps({"type": "record", "name": "order", "fields": fields}))
    cli("table", "alter", orders, "--schema", path).failed(2, "not compatible")
    assert cli("table", "describe", orders, "--json").json[0]["schema_version"] == 1


def test_a_topic_with_json_values(cli: Cli, broker: str, tmp_path: Path) -> None:
    topic = f"json-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(topic, b'{"id": 1}')
    assert producer.flush(30) == 0
    cli("table", "describe", topic).failed(1, topic, "JSON values")
    cli("put", topic, stdin="{}").failed(1, "JSON values")
    new = tmp_path / "new.duckdb"
    cli("replica", "run", "--store", new, "--group", "g", "--tables", topic).failed(1, "JSON values")


@pytest.mark.parametrize(
    "command",
    [
        ["table", "list"],
        ["put", "orders"],
        ["replica", "run", "--store", "{store}", "--group", "shop", "--tables", "x"],
        ["query", "select 1", "--store", "{store}", "--level", "strong"],
        ["audit", "--store", "{store}", "--log"],
        ["demo", "--once"],
    ],
)
def test_a_broker_that_is_away(cli: Cli, store: Path, closed_port: str, command: list[str]) -> None:
    words = [word.format(store=store) for word in command]
    begun = time.monotonic()
    cli(*words, "--bootstrap-servers", closed_port, "--timeout", 1).failed(1, "no answer from Kafka", closed_port)
    assert time.monotonic() - begun < 60


def test_status_shows_what_the_store_says_when_the_broker_is_away(cli: Cli, store: Path, closed_port: str) -> None:
    done = cli("status", "--store", store, "--bootstrap-servers", closed_port, "--timeout", 1, "--json")
    done.failed(1, "no answer from Kafka")
    [table] = done.json[0]["tables"]
    assert table["lag"] is None and table["applied"] == 4


READS = [["query", "select 1"], ["status"], ["audit"]]
RUN = ["replica", "run", "--group", "shop", "--tables", "{orders}"]


@pytest.mark.parametrize("command", READS)
def test_a_read_never_makes_a_file(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    cli(*command, "--store", tmp_path / "none.duckdb").failed(1, "none.duckdb", "no such file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [*READS, RUN])
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b'{"a": 1}\n', b"\x00" * 9000, b"x"])
def test_a_file_that_is_no_database(cli: Cli, orders: str, tmp_path: Path, command: list[str], content: bytes) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    cli(*(word.format(orders=orders) for word in command), "--store", path).failed(1, "file.csv")
    assert path.read_bytes() == content


@pytest.mark.parametrize("command", [*READS, RUN])
def test_a_database_that_is_no_store(cli: Cli, orders: str, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE mine AS SELECT 1 AS x")
    cli(*(word.format(orders=orders) for word in command), "--store", path).failed(1, "not a Merganser store")


@pytest.mark.parametrize("command", [*READS, RUN])
def test_a_store_of_another_format_version(cli: Cli, orders: str, store: Path, command: list[str]) -> None:
    _change(store, "UPDATE _merganser.store SET format = 99")
    cli(*(word.format(orders=orders) for word in command), "--store", store).failed(1, "format 99")


@pytest.mark.parametrize("command", [["query", "select 1", "--level", "strong"], ["audit", "--log"], RUN, ["status"]])
def test_a_store_of_another_cluster(cli: Cli, orders: str, store: Path, command: list[str]) -> None:
    _change(store, "UPDATE _merganser.store SET cluster_id = 'elsewhere'")
    done = cli(*(word.format(orders=orders) for word in command), "--store", store)
    done.failed(1, "follows cluster elsewhere")


def test_a_store_of_another_group(cli: Cli, orders: str, store: Path) -> None:
    done = cli("replica", "run", "--store", store, "--group", "other", "--tables", orders)
    assert done.code == 2 and "'shop'" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("command", [*READS, ["query", "select 1", "--level", "strong"], RUN])
def test_a_store_that_another_process_has(cli: Cli, orders: str, store: Path, command: list[str]) -> None:
    code = f"import duckdb, sys; c = duckdb.connect({str(store)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"open\n"
        done = cli(*(word.format(orders=orders) for word in command), "--store", store)
        holder.stdin.close()
    done.failed(1, "in use by another process", str(holder.pid))


@pytest.mark.parametrize(
    "sql", ["selec 1", "drop table x", "select 1; select 2", "select * from nobody", "copy (select 1) to '/tmp/x'", ""]
)
def test_sql_that_is_no_query(cli: Cli, store: Path, sql: str) -> None:
    done = cli("query", sql, "--store", store)
    assert done.code == 2 and done.err.startswith("error: ") and "Traceback" not in done.err


def test_a_key_that_is_none(cli: Cli, orders: str) -> None:
    cli("delete", orders, "order_id=x").failed(2, "'order_id'", "'x'")
    cli("delete", orders, '{"sku": "a"}').failed(2, "'order_id'")
    cli("delete", orders, "1.5").failed(2, "'order_id'")


def test_a_delete_from_a_table_without_a_key(cli: Cli, schema: Path) -> None:
    name = f"events-{uuid.uuid4().hex[:8]}"
    assert cli("table", "create", name, "--schema", schema).code == 0
    done = cli("delete", name, "1")
    assert done.code == 2 and "no key" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing command"),
        (["fly"], "No such command 'fly'"),
        (["put"], "TABLE"),
        (["query", "select 1"], "--store"),
        (["query", "select 1", "--store", "x", "--level", "exact"], "'--level': 'exact' is not one of"),
        (["table", "create", "x", "--partitions", "0"], "--partitions"),
        (["put", "x", "--timeout", "soon"], "--timeout"),
        (["put", "x", "--nope"], "--nope"),
        (["query", "select 1", "--store", "x", "--after", "nowhere"], "not a position"),
    ],
)
def test_wrong_use(cli: Cli, words: list[str], says: str) -> None:
    cli(*words).failed(2, says)


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: LocalBroker) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalBroker, "status", interrupted)
    assert main(["broker", "status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_failure_with_a_traceback(store: Path) -> None:
    line = [*MERGANSER, "query", "select i, repeat('x', 1000) as x from range(10000) r(i)", "--store", str(store)]
    with subprocess.Popen([*line, "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    line = [*MERGANSER, "--debug", "query", "select 1", "--store", str(tmp_path / "none.duckdb")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert "Traceback" in done.stderr and done.returncode == 1


def _change(store: Path, sql: str) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute(sql)
