"""Which files an import reads, what they are, and that a torn one is noticed before anything is written."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pytest

from merganser.pipeline.loading.inputs import _glob_pattern, format_of, names, open_input
from merganser.pipeline.loading.rejects import default_path
from merganser.pipeline.loading.remote import download, listed, upload
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
        ("s3://b/x/a.csv", "a.csv.rejects.jsonl"),
    ],
)
def test_rejects_lie_beside_the_file_or_here(source: str, rejects: str) -> None:
    assert default_path(source) == Path(rejects)
