"""Which files an import reads, what they are, and that a torn one is noticed before anything is written."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pytest
from loading_tables import record, table

from merganser.pipeline.loading import inputs
from merganser.pipeline.loading.inputs import _glob_pattern, format_of, names, open_input
from merganser.pipeline.loading.load import ImportOptions, import_file
from merganser.pipeline.loading.rejects import default_path
from merganser.pipeline.loading.remote import download, exists, listed, remove, upload
from merganser.schemas.errors import BadInput, MerganserError, UsageError

DATA = b"id,name\n" + b"1,duck\n" * 50_000


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda d: pa.compress(d, codec="zstd", asbytes=True)])
def test_a_file_is_unpacked_by_what_is_in_it(tmp_path: Path, pack: object) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(pack(DATA))  # type: ignore[operator]
    told: list[int] = []
    with open_input(str(path), progress=told.append) as file, file.open() as stream:
        assert stream.read() == DATA
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sum(told) >= file.size == path.stat().st_size


@pytest.mark.parametrize("pack", [gzip.compress, lambda d: pa.compress(d, codec="zstd", asbytes=True)])
def test_a_torn_file_is_refused_at_once_wherever_it_is_torn(tmp_path: Path, pack: object) -> None:
    packed: bytes = pack(DATA)  # type: ignore[operator]
    path = tmp_path / "a.csv.gz"
    for end in (6, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:end])
        with pytest.raises(BadInput, match=r"broken (gzip|zstd)"), open_input(str(path)):
            pass
    path.write_bytes(packed + b"more")
    with pytest.raises(BadInput), open_input(str(path)):
        pass


def test_an_error_of_something_else_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(DATA)
    with pytest.raises(OSError, match="no room"), open_input(str(path)) as file, file.open():
        raise OSError("no room for the rejects")
    with pytest.raises(BadInput, match="No such file"), open_input(str(path)) as file:
        path.unlink()
        with file.open():
            pass


def test_members_of_a_gzip_file_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(DATA) + gzip.compress(b"2,goose\n"))
    with open_input(str(path)) as file, file.open() as stream:
        assert stream.read() == DATA + b"2,goose\n"


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        *(("a.csv", "csv"), ("a.CSV.gz", "csv"), ("a.tsv.zst", "tsv"), ("a.tab", "tsv"), ("a.parquet", "parquet")),
        *(("a.pq", "parquet"), ("a.json", "json"), ("a.jsonl.gzip", "json"), ("s3://bucket/a/b.ndjson?x=1", "json")),
    ],
)
def test_a_name_tells_the_format(name: str, format_: str) -> None:
    assert format_of(name) == format_
    assert format_of("a.txt", "csv") == "csv"
    with pytest.raises(BadInput, match="does not tell"):
        format_of("a.txt")


def test_globs_are_files_in_order_each_once(tmp_path: Path) -> None:
    for place in ("b.csv", "a.csv", "sub/c.csv", "sub/deep/d.csv"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("id\n")

    def found(*patterns: str) -> list[str]:
        return [str(Path(n).relative_to(tmp_path)) for n in names([str(tmp_path / p) for p in patterns])]

    assert found("*.csv") == ["a.csv", "b.csv"]
    assert found("b.csv", "*.csv") == ["b.csv", "a.csv"]
    assert found("**/*.csv") == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    (tmp_path / "odd[1].csv").write_text("id\n")
    assert found("odd[1].csv") == ["odd[1].csv"]
    for pattern in ("no.csv", "no*.csv"):
        with pytest.raises(BadInput):
            found(pattern)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "x/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("x/?.csv", "x/a.csv", True),
        ("x/?.csv", "x/ab.csv", False),
        ("a.csv", "aXcsv", False),
        ("a[0-9].csv", "a7.csv", True),
        ("a[0-9].csv", "ax.csv", False),
        ("a[!0-9].csv", "ax.csv", True),
        ("a[!0-9]b.csv", "a/b.csv", False),
        ("a[b.csv", "a[b.csv", True),
        ("a[]].csv", "a].csv", True),
    ],
)
def test_globs_in_object_stores_mean_the_same(pattern: str, name: str, matches: bool) -> None:
    assert bool(_glob_pattern(pattern).fullmatch(name)) is matches


def test_objects_are_streamed_up_and_down(tmp_path: Path) -> None:
    """Through obstore, over a folder: the way to buckets, but for the network."""
    source = tmp_path / "a.csv"
    source.write_bytes(DATA * 40)
    (tmp_path / "bucket" / "in").mkdir(parents=True)
    url = (tmp_path / "bucket").as_uri()
    upload(source, f"{url}/in/a.csv")
    assert listed(url) == ["in/a.csv"]
    out = io.BytesIO()
    download(f"{url}/in/a.csv", out)
    assert out.getvalue() == source.read_bytes()
    with pytest.raises(BadInput, match="no such object"):
        download(f"{url}/in/b.csv", out)
    with pytest.raises(UsageError, match="names no object"):
        download(f"{url}/", out)
    with pytest.raises(MerganserError, match="no store of objects"):
        download("nonsense://x/y.csv", out)


def test_what_lies_beside_a_file_is_none_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again does not load the bad lines of its first run as rows, nor an export's manifest."""
    there = ["a.jsonl", "a.jsonl.rejects.jsonl", "b.json", "b.json.manifest.json", "c.csv", "c.csv.rejects.jsonl"]
    alone = ["d.rejects.jsonl", "e.manifest.json"]
    for name in [*there, *alone]:
        (tmp_path / name).write_text("{}")

    def found(*patterns: str) -> list[str]:
        return [Path(name).name for name in names([str(tmp_path / pattern) for pattern in patterns])]

    assert found("*.jsonl") == ["a.jsonl", "d.rejects.jsonl"]
    assert found("*") == ["a.jsonl", "b.json", "c.csv", *alone]
    assert found(*there) == ["a.jsonl", "b.json", "c.csv"]  # a glob that the shell has read
    assert found("a.jsonl.rejects.jsonl") == ["a.jsonl.rejects.jsonl"]  # who names it, means it
    monkeypatch.setattr(inputs, "listed", lambda url: [*there, *alone])
    assert names(["s3://b/in/*.json*"]) == [f"s3://b/in/{n}" for n in ("a.jsonl", "b.json", *alone)]


@pytest.mark.parametrize("name", ["a#1.csv", "a?.csv", "a b.csv", "x#y/a.csv", "x?y/a.csv", "100%.csv"])
def test_a_name_in_an_object_store_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    """Not as a URL's fragment or query: another object would be read, or written over."""
    source = tmp_path / "source.csv"
    source.write_bytes(DATA)
    (tmp_path / "bucket" / "x#y").mkdir(parents=True)
    (tmp_path / "bucket" / "x?y").mkdir(parents=True)
    url = f"{(tmp_path / 'bucket').as_uri()}/{name}"
    upload(source, url)
    assert listed((tmp_path / "bucket").as_uri()) == [name] and exists(url)
    out = io.BytesIO()
    download(url, out)
    assert out.getvalue() == DATA
    remove(url)
    remove(url)
    assert not exists(url)


def test_a_question_mark_is_a_glob_in_an_object_store_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "listed", lambda url: ["a1.csv", "a2.csv", "a10.csv", "b[1].csv", "b1.csv"])
    assert names(["s3://b/a?.csv"]) == ["s3://b/a1.csv", "s3://b/a2.csv"]
    assert names(["s3://b/a[1].csv"]) == ["s3://b/a1.csv"]
    assert names(["s3://b/b[1].csv"]) == ["s3://b/b[1].csv"]  # there, by that very name
    assert names(["https://host/a.csv?sig=x"]) == ["https://host/a.csv?sig=x"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_without_any_are_a_file_without_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with open_input(str(tmp_path / name)) as file, file.open() as stream:
        assert stream.read() == b""


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    path.write_bytes(DATA)
    with open_input(path.as_uri()) as file:
        assert file.path == path


@pytest.mark.parametrize(
    ("source", "rejects"),
    [
        ("dir/a.csv", "dir/a.csv.rejects.jsonl"),
        ("-", "stdin.rejects.jsonl"),
        ("s3://b/monday/a.csv", "b_monday_a.csv.rejects.jsonl"),
        ("s3://b/tuesday/a.csv", "b_tuesday_a.csv.rejects.jsonl"),
        ("file:///dir/a%20b.csv", "/dir/a b.csv.rejects.jsonl"),
    ],
)
def test_rejects_lie_beside_the_file_or_here(source: str, rejects: str) -> None:
    assert default_path(source) == Path(rejects)


def test_the_file_itself_is_no_place_for_its_rejects(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,n\nx,1\n")
    options = ImportOptions(max_bad=9, rejects=tmp_path / "." / "in.csv")
    with open_input(str(path)) as file, pytest.raises(UsageError, match="names the file itself"):
        import_file(None, table(record(("id", "long"))), file, options)  # type: ignore[arg-type]
    assert path.read_text() == "id,n\nx,1\n"
