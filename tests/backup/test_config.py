"""merganser.toml is followed to the letter, or refused by file, key and hint."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from merganser.consumers.dbfile import Limits
from merganser.pipeline.backup.policy import Policy
from merganser.pipeline.backup.schedule import Line
from merganser.pipeline.config import ArchiveConfig, NodeConfig, read_config
from merganser.schemas.errors import BadConfig

WHOLE = """
[replica]
store = "data/shop.duckdb"
group = "shop"
tables = ["orders", "stock"]

[log]
bootstrap-servers = "kafka:9092"
timeout = 5

[limits]
memory = 536870912
pending-bytes = 1073741824

[archive]
url = "s3://bucket/prefix"
key-file = "/etc/key"
roll = 10

[[backup]]
cron = "0 3 * * *"

[[backup]]
cron = "0 * * * *"
type = "incr"

[expire]
keep-full = 7
keep-days = 30.5
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "merganser.toml"
    path.write_text(text)
    return path


def test_all_of_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    assert read_config(path) == NodeConfig(
        tmp_path / "data/shop.duckdb",
        "shop",
        ("orders", "stock"),
        False,
        "kafka:9092",
        None,
        5,
        ArchiveConfig("s3://bucket/prefix", Path("/etc/key"), True, 10),
        (Line("0 3 * * *", "full"), Line("0 * * * *", "incr")),
        Policy(7, 30.5),
        limits={"memory": 512 * 2**20, "pending_bytes": 2**30},
    )


def test_every_limit_of_a_store_can_be_said_but_the_patience_with_reads(tmp_path: Path) -> None:
    names = {field.name for field in fields(Limits)} - {"open_reads_s"}
    text = "\n".join(f"{name.replace('_', '-')} = 7" for name in names)
    assert Limits(**read_config(written(tmp_path, f"[limits]\n{text}")).limits) == Limits(**dict.fromkeys(names, 7))


def test_an_archive_on_this_machine_lies_beside_the_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, '[archive]\nurl = "archive"\nrun = false'))
    assert config.archive == ArchiveConfig(str(tmp_path / "archive"), None, False, None)


@pytest.mark.parametrize(
    ("text", "key", "word", "hint"),
    [
        ("[replica", "", "no TOML", "toml"),
        ("[replca]", "replca", "no such key", "replica"),
        ("[replica]\nstroe = 'x'", "replica.stroe", "no such key", "store"),
        ("[replica]\nstore = 3", "replica.store", "text, not 3", ""),
        ("[replica]\ntables = 'orders'", "replica.tables", "list of texts", ""),
        ("[replica]\ntables = ['a', 3]", "replica.tables", "list of texts", ""),
        ("replica = 3", "replica", "not a table", "[replica]"),
        ("[log]\ntimeout = true", "log.timeout", "a number", ""),
        ("[log]\ntimeout = -3", "log.timeout", "seconds above 0", ""),
        ("[log]\ntimeout = nan", "log.timeout", "seconds above 0", ""),
        ("[limits]\npending_bytes = 5", "limits.pending_bytes", "no such key", "pending-bytes"),
        ("[limits]\nmemory = '1GB'", "limits.memory", "whole number", ""),
        ("[limits]\nmemory = -1", "limits.memory", "bytes", ""),
        ("[limits]\nthreads = 0", "limits.threads", "at least 1", ""),
        ("[archive]\nkey-file = 'x'", "archive.url", "missing", "url ="),
        ("[archive]\nurl = 'x'\nroll = 0", "archive.roll", "above 0", ""),
        ("[backup]\ncron = '0 3 * * *'", "backup", "list of tables", "[[backup]]"),
        ("[archive]\nurl = 'x'\n[[backup]]\ntype = 'full'", "backup.cron", "missing", "cron ="),
        ("[archive]\nurl = 'x'\n[[backup]]\ncron = '0 99 * * *'", "backup.cron", "Bad hour", "UTC"),
        ("[archive]\nurl = 'x'\n[[backup]]\ncron = '0 3 * * *'\ntype = 'weekly'", "backup.type", "'weekly'", ""),
        ("[[backup]]\ncron = '0 3 * * *'", "archive.url", "need an archive", "[archive]"),
        ("[archive]\nurl = 'x'\n[expire]", "expire", "keep-full", ""),
        ("[archive]\nurl = 'x'\n[expire]\nkeep-full = 0", "expire", "keep-full is 1 or more", ""),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_hint(
    text: str, key: str, word: str, hint: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadConfig) as caught:
        read_config(path)
    error = caught.value
    assert (error.file, error.key, error.exit_code) == (str(path), key, 2)
    assert word in error.why and hint in error.hint and error.hint
    assert "\n" not in str(error)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No such file"):
        read_config(tmp_path / "merganser.toml")
