"""Imports on a real Kafka: each row once, whatever is repeated, killed, done at the same time, or made anew."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from loading_tables import record

import merganser as mg
from merganser.pipeline.loading import load as load_module
from merganser.pipeline.loading.export import export_table
from merganser.pipeline.loading.inputs import open_input
from merganser.pipeline.loading.ledger import LEDGER, Entry, read_ledger
from merganser.pipeline.loading.load import Imported, ImportOptions, import_file
from merganser.producers.bulk import BulkOptions
from merganser.schemas.errors import BadInput, BadLine, ImportStopped, UnknownTable
from support.cli import Cli
from support.waiting import wait_for

EVENT = record(("id", "long"), ("name", ["null", "string"]))
SMALL = BulkOptions(rows=100)


def write(path: Path, ids: range) -> Path:
    path.write_text("id,name\n" + "".join(f"{i},n{i}\n" for i in ids))
    return path


def load(log: mg.Log, table: str, path: Path, options: ImportOptions = ImportOptions(bulk=SMALL)) -> Imported:  # noqa: B008
    with open_input(str(path)) as file:
        return import_file(log, log.table(table), file, options)


def ids_in(log: mg.Log, table: str, folder: Path) -> list[int]:
    """The ids of all rows that a new replica has."""
    store = folder / f"{len(list(folder.glob('look-*.duckdb')))}.duckdb"
    store = store.with_name("look-" + store.name)
    with mg.Replica(store, log, store.name, [table]) as replica:
        return [id_ for (id_,) in replica.query(f'select id from "{table}" order by id', level="strong").rows()]


def test_a_file_is_loaded_once_whatever_it_is_called(log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(250))
    first = load(log, name, path)
    assert (first.state, first.written, first.entry.chunks) == ("imported", 250, 3)
    again = load(log, name, path.rename(tmp_path / "b.csv"))
    assert (again.state, again.written, again.entry.rows) == ("already", 0, 250)
    changed = load(log, name, write(tmp_path / "b.csv", range(250, 260)))
    assert (changed.state, changed.written) == ("imported", 10)
    assert ids_in(log, name, tmp_path) == list(range(260))
    once_more = load(log, name, tmp_path / "b.csv", ImportOptions(again=True, bulk=SMALL))
    assert (once_more.state, once_more.entry.generation) == ("imported", 2)
    assert ids_in(log, name, tmp_path)[250:] == [i for i in range(250, 260) for _ in range(2)]


@pytest.mark.parametrize("suffix", ["", pytest.param(".gz", marks=pytest.mark.slow)])
def test_a_kill_at_each_step_loses_and_doubles_nothing(log: mg.Log, name: str, tmp_path: Path, suffix: str) -> None:
    """One file, killed at a step of a later chunk each time, until it is whole."""
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(1000))
    if suffix:
        subprocess.run(["gzip", path], check=True)
        path = path.with_name(path.name + suffix)
    for step, nth in [("fenced", 1), ("begun", 1), ("sent", 2), ("noted", 2), ("committed", 2)]:
        killed = child(log, name, path, step, nth)
        assert killed.communicate(timeout=300)[0] == "there\n" and killed.returncode == -9
    done = load(log, name, path)
    # sent and noted are of a second chunk: the one before it was committed, and so were two before the last kill
    assert (done.state, done.written, done.entry.chunks) == ("continued", 600, 10)
    assert ids_in(log, name, tmp_path) == list(range(1000))
    assert load(log, name, path).state == "already"


def test_a_sorted_file_with_bad_lines_goes_on_where_it_was(log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    path = tmp_path / "a.csv"
    path.write_text("id,name\n" + "".join(f"{i},x\nbad\n" for i in reversed(range(500))))
    killed = child(log, name, path, "noted", 3, sort="id", max_bad=500)
    assert killed.communicate(timeout=300)[0] == "there\n"
    done = load(log, name, path, ImportOptions(bulk=SMALL, sort="id", max_bad=500))
    assert (done.state, done.written, done.entry.bad) == ("continued", 300, 500)
    rejected = [json.loads(line) for line in (tmp_path / "a.csv.rejects.jsonl").read_text().splitlines()]
    assert [r["line"] for r in rejected] == list(range(3, 1003, 2)) and rejected[0]["text"] == "bad"
    assert ids_in(log, name, tmp_path) == list(range(500))


def test_two_imports_of_one_file_add_it_once(log: mg.Log, name: str, tmp_path: Path) -> None:
    """The second takes over while the first is between its rows and their note; then the first wakes."""
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(500))
    first = child(log, name, path, "sent", 2, waits=True)
    assert first.stdout is not None and first.stdout.readline() == "there\n"
    second = load(log, name, path)
    assert (second.state, second.written) == ("continued", 400)
    out, _ = first.communicate("go on\n", timeout=300)
    assert out.startswith("ImportStopped: ") and "another import of the same file has taken over" in out
    assert ids_in(log, name, tmp_path) == list(range(500))


def test_what_is_committed_before_the_fence_is_read_after_it(
    log: mg.Log, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(150))
    looks: list[bool] = []

    def look(*args: Any, settled: bool = False) -> list[Entry]:
        """As `read_ledger`; the first look is outdated at once, since another import runs to its end."""
        found = read_ledger(*args, settled=settled)
        looks.append(settled)
        if len(looks) == 1:
            assert load(log, name, path).state == "imported"
        return found

    monkeypatch.setattr(load_module, "read_ledger", look)
    assert load(log, name, path).state == "already"
    assert looks[0] is False and looks[-1] is True
    assert ids_in(log, name, tmp_path) == list(range(150))


def test_a_table_made_anew_has_nothing_of_the_file(log: mg.Log, broker: str, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(50))
    load(log, name, path)
    before = log.table(name).topic_id
    admin = AdminClient({"bootstrap.servers": broker})
    admin.delete_topics([name])[name].result(20)
    wait_for("the topic to be gone", lambda: not log.identify([name]))
    log.create_table(name, EVENT)
    assert log.table(name).topic_id != before
    assert load(log, name, path).state == "imported"
    assert ids_in(log, name, tmp_path) == list(range(50))


def test_a_topic_made_anew_under_way_gets_no_chunk_for_the_old_one(
    log: mg.Log, broker: str, name: str, tmp_path: Path
) -> None:
    old = log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(150))
    admin = AdminClient({"bootstrap.servers": broker})

    def make_anew(step: str) -> None:
        if step == "begun" and log.table(name).topic_id == old.topic_id:
            admin.delete_topics([name])[name].result(20)
            wait_for("the topic to be gone", lambda: not log.identify([name]))
            log.create_table(name, EVENT)

    with open_input(str(path)) as file:
        with pytest.raises(ImportStopped):
            import_file(log, old, file, ImportOptions(bulk=SMALL), on_step=make_anew)
    assert ids_in(log, name, tmp_path) == []
    assert load(log, name, path).written == 150
    assert ids_in(log, name, tmp_path) == list(range(150))


def test_keys_lie_where_a_producer_puts_them(log: mg.Log, name: str, tmp_path: Path) -> None:
    """Else one key would have two rows."""
    log.create_table(name, EVENT, ["id"], partitions=5)
    load(log, name, write(tmp_path / "a.csv", range(300)))
    with log.producer() as producer:
        for i in range(300):
            producer.put(name, {"id": i, "name": "put"})
    with mg.Replica(tmp_path / "r.duckdb", log, name, [name]) as replica:
        found = replica.query(f'select count(*), count(distinct id), min(name) from "{name}"', level="strong").rows()
        assert found == [(300, 300, "put")]
        # A live replica is exported as a store at rest is, and what comes of it is the same table again.
        exported = export_table(replica, name, str(tmp_path / "out.parquet"), "parquet")
    assert exported.rows == 300
    log.create_table(name + "-again", EVENT, ["id"])
    load(log, name + "-again", tmp_path / "out.parquet")
    with mg.Replica(tmp_path / "s.duckdb", log, name, [name + "-again"]) as replica:
        replica.wait(log.ends(replica.position))
        again = export_table(replica, name + "-again", str(tmp_path / "again.parquet"), "parquet")
    assert again.columns_digest == exported.columns_digest and again.digest != exported.digest


def test_the_ledger_is_no_table_and_can_be_read(cli: Cli, log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    load(log, name, write(tmp_path / "a.csv", range(30)))
    assert LEDGER not in [table.name for table in log.tables()]
    with pytest.raises(mg.MerganserError):
        log.table(LEDGER)
    cli("table", "create", LEDGER, "--existing", "--schema", schema_file(tmp_path)).failed(2, "no table name")
    [listed] = cli("import", name, "--list", "--json").json
    assert datetime.fromisoformat(listed["when"]).tzinfo and "T" in listed["when"]
    assert (listed["table"], listed["rows"], listed["state"]) == (name, 30, "whole")
    assert listed["file"].endswith("a.csv")
    assert name in cli("import", "--list").out
    [entry] = [e for e in read_ledger(log, 10) if e.table == name]
    assert entry.rows == 30 and entry.done


def test_nothing_of_a_chunk_with_a_bad_line_is_written(log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    path = tmp_path / "a.csv"
    path.write_text("id,name\n" + "".join(f"{i},x\n" for i in range(99)) + "x,bad\n" + "7,x\n" * 99)
    with pytest.raises(BadLine, match="line 101: column 'id', value 'x': not a whole number; nothing was written"):
        load(log, name, path)
    assert ids_in(log, name, tmp_path) == []
    done = load(log, name, path, ImportOptions(bulk=SMALL, max_bad=1))
    assert (done.written, done.entry.bad) == (198, 1)


def test_a_file_that_changes_while_it_is_read_is_noticed(log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    path = write(tmp_path / "a.csv", range(150))
    with open_input(str(path)) as file:
        write(path, range(200, 400))
        with pytest.raises(BadInput, match="changed while it was read"):
            import_file(log, log.table(name), file)
    assert ids_in(log, name, tmp_path) == []


def schema_file(folder: Path, schema: Mapping[str, Any] = EVENT) -> Path:
    path = folder / "t.avsc"
    path.write_text(json.dumps(schema))
    return path


def child(
    log: mg.Log,
    table: str,
    path: Path,
    step: str,
    nth: int,
    *,
    waits: bool = False,
    sort: str | None = None,
    max_bad: int = 0,
) -> subprocess.Popen[str]:
    plan = {
        "bootstrap_servers": log.bootstrap_servers,
        "table": table,
        "file": str(path),
        "step": step,
        "nth": nth,
        "waits": waits,
        "sort": sort,
        "max_bad": max_bad,
        "rows": SMALL.rows,
    }
    command = [sys.executable, str(Path(__file__).with_name("import_child.py")), json.dumps(plan)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# -- the command line --------------------------------------------------------------------------


def test_the_command_makes_a_table_for_a_file_and_loads_it(cli: Cli, log: mg.Log, name: str, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.csv").write_text(f"Order Id,when\n{i},2026-01-0{i + 1}\n")
    proposed = json.loads(cli("import", name, tmp_path / "0.csv", "--propose", "--key", "order_id").out)
    assert proposed["fields"][0] == {"name": "order_id", "type": "long"}
    with pytest.raises(UnknownTable):
        log.table(name)
    done = cli("import", name, tmp_path / "*.csv", "--create", "--key", "order_id", "--json").json
    assert [(each["state"], each["rows"]) for each in done] == [("imported", 1)] * 3
    assert log.table(name).key == ("order_id",)
    again = cli("import", name, tmp_path / "*.csv", "--create", "--key", "order_id")
    assert again.code == 0 and again.err.count("imported before, 1 row; nothing to do") == 3
    assert again.out.strip().startswith(f"{name}/")
    cli("import", name, tmp_path / "0.csv", "--create", "--key", "when").failed(2, "its key is order_id")


def test_columns_are_renamed_and_left_out(cli: Cli, log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT)
    (tmp_path / "a.tsv").write_text("Nr\tname\tother\n1\tNA\tx\n")
    done = cli("import", name, tmp_path / "a.tsv", "--columns", "Nr=id,other=", "--null", "NA")
    assert done.code == 0, done.err
    cli("import", name, tmp_path / "a.tsv", "--columns", "Nr=id,other=").failed(2, "imported with null='NA'")
    cli("import", name, tmp_path / "a.tsv", "--columns", "id").failed(2, "OLD=NEW")


def test_stdin_and_json_lines(cli: Cli, log: mg.Log, name: str) -> None:
    log.create_table(name, EVENT)
    lines = '{"id": 1, "name": "a"}\n\n{"id": 2, "name": null}\n'
    assert cli("import", name, "-", "--format", "json", "--json", stdin=lines).json[0]["rows"] == 2
    assert cli("import", name, "-", "--format", "json", "--json", stdin=lines).json[0]["state"] == "already"


BAD: list[tuple[str, bytes, int, tuple[str, ...]]] = [
    ("empty.csv", b"", 2, ("empty.csv: the file is empty",)),
    ("header.csv", b"\n\n", 2, ("not even a header",)),
    ("columns.csv", b"id,colour\n1,red\n", 2, ("no column 'colour'",)),
    ("missing.csv", b"name\nx\n", 2, ("no column for 'id'",)),
    ("twice.csv", b"id,name,id\n1,a,2\n", 2, ("line 1", "'id' comes twice")),
    ("type.csv", b"id,name\n1,a\n2.5,b\n", 1, ("line 3", "'id'", "not a whole number", "nothing was written")),
    ("null.csv", b"id,name\n,a\n", 1, ("line 2", "'id'")),
    ("fields.csv", b"id,name\n1,a,b\n", 1, ("line 2", "3 fields, the header has 2")),
    ("latin.csv", b"id,name\n1,\xe9\n", 1, ("line 2", "not UTF-8")),
    ("header-latin.csv", b"id,n\xe9\n1,a\n", 2, ("line 1", "not UTF-8")),
    ("open.csv", b'id,name\n1,"a\n2,b\n', 1, ("line 2", "not closed")),
    ("torn.csv.gz", b"\x1f\x8b\x08\x00torn", 2, ("broken gzip",)),
    ("torn.csv.zst", b"\x28\xb5\x2f\xfdtorn", 2, ("broken zstd",)),
    ("no.parquet", b"PAR1 is not all", 2, ("broken Parquet",)),
    ("what.txt", b"id,name\n", 2, ("its name does not tell",)),
    ("no.json", b'{"id": 1}\n{"id": 1,\n', 1, ("line 1", "'name'")),
    ("list.json", b"[1, 2]\n", 1, ("line 1", "not a JSON object")),
    ("twice.json", b'{"id": 1, "id": 2, "name": null}\n', 1, ("line 1", "comes twice")),
]


def test_bad_input_is_one_line_and_nothing_is_written(cli: Cli, log: mg.Log, name: str, tmp_path: Path) -> None:
    log.create_table(name, EVENT, ["id"])
    before = log.ends([mg.TopicPartition(name, n) for n in range(4)])
    for file, data, code, words in BAD:
        (tmp_path / file).write_bytes(data)
        cli("import", name, tmp_path / file).failed(code, *words)
    unknown = cli("import", "t-none", tmp_path / "empty.csv")
    unknown.failed(2, "unknown table 't-none'")
    assert "--create" in unknown.err
    cli("import", name, tmp_path / "none.csv").failed(2, "no such file")
    cli("import", name, tmp_path / "none*.csv").failed(2, "no file matches")
    cli("import", name, tmp_path).failed(2, "does not tell what it is")
    cli("import", name, tmp_path, "--format", "csv").failed(2, "not a file")
    cli("import", name).failed(2, "which FILE")
    cli("import", name, tmp_path / "type.csv", "--sort", "x").failed(2, "no column 'x'")
    cli("import", name, tmp_path / "type.csv", "--delimiter", "::").failed(2, "no delimiter")
    cli("import", name, tmp_path / "type.csv", "--rejects", tmp_path / "no" / "x", "--max-bad", 1).failed(2, "rejects")
    assert log.ends(before) == before
    assert not list(tmp_path.glob("*.rejects.jsonl"))


def test_a_store_is_exported_and_imported_again_by_the_commands(
    cli: Cli, log: mg.Log, name: str, tmp_path: Path
) -> None:
    log.create_table(name, EVENT, ["id"])
    token = load(log, name, write(tmp_path / "a.csv", range(40))).token
    store = tmp_path / "s.duckdb"
    with mg.Replica(store, log, name, [name]) as replica:
        replica.wait(token)
    asked = ("export", name, "--store", store, "--at-least", token, "--json")
    for format_ in ("csv", "parquet", "json"):
        [done] = cli(*asked, "--to", tmp_path / f"out.{format_}").json
        assert done["rows"] == 40 and done["file_format"] == format_
        [again] = cli("import", f"{name}-{format_}", done["to"], "--create", "--key", "id", "--json").json
        assert again["rows"] == 40
        with mg.Replica(tmp_path / f"{format_}.duckdb", log, name, [f"{name}-{format_}"]) as replica:
            replica.wait(again["token"])
            exported = export_table(replica, f"{name}-{format_}", str(tmp_path / f"again.{format_}"), "csv")
        assert exported.columns_digest == done["columns_digest"]
    digest = next(line for line in cli("audit", "--store", store).out.splitlines() if "digest" in line)
    assert digest.endswith(done["digest"])
    cli(*asked, "--to", tmp_path / "out.csv").failed(2, "there already")
    nameless = cli(*asked, "--to", tmp_path / "out.data")
    nameless.failed(2, "does not tell")
    assert "tsv" not in nameless.err  # no export has tabs
    far = mg.Position({tp: offset + 1000 for tp, offset in token.items()})
    cli("export", name, "--store", store, "--to", tmp_path / "x.csv", "--at-least", far).failed(1, "has applied")
    cli("export", "t-none", "--store", store, "--to", tmp_path / "x.csv").failed(2, "unknown table")
    cli("export", name, "--store", tmp_path / "none", "--to", tmp_path / "x.csv").failed(1, "no such file")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_larger_than_its_memory_is_imported(log: mg.Log, name: str, tmp_path: Path) -> None:
    """300 MB of CSV by a process that may have 400 MiB in all; 200 of those are Python, Arrow and DuckDB."""
    log.create_table(name, EVENT, ["id"])
    path = tmp_path / "a.csv"
    with path.open("w") as out:
        out.write("id,name\n")
        out.writelines(f"{i},{'x' * 290}\n" for i in range(1_000_000))
    program = (
        "import sys, merganser as mg\n"
        "from merganser.pipeline.loading.inputs import open_input\n"
        "from merganser.pipeline.loading.load import import_file\n"
        "with mg.connect(sys.argv[1]) as log, open_input(sys.argv[3]) as file:\n"
        "    import_file(log, log.table(sys.argv[2]), file)\n"
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, log.bootstrap_servers, name, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400 * 1024
    [entry] = [e for e in read_ledger(log, 10) if e.table == name]
    assert (entry.rows, entry.done) == (1_000_000, True) and entry.chunks > 15
