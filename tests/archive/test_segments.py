"""A segment gives back every byte of every record."""

from __future__ import annotations

from typing import Any

import pytest
from archives import copy, history, records
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.consumers.chunk import Chunk, WholeChunk
from merganser.pipeline.archive.archive import Archive
from merganser.pipeline.archive.key import Key
from merganser.pipeline.archive.segments import batches, columns, decode, encode, fill
from merganser.schemas.errors import BadKeyFile, WrongKey
from merganser.schemas.headers import Marks
from merganser.schemas.headers import encode as headers_of

BYTES = st.none() | st.binary(max_size=20)
HEADERS = st.none() | st.lists(st.tuples(st.text(max_size=8), BYTES), min_size=1, max_size=4)
RECORD = st.tuples(
    BYTES, BYTES, st.integers(-1, 2**62), st.integers(0, 2), st.none() | st.integers(0, 2**31 - 1), HEADERS
)


def whole(facts: list[tuple[Any, ...]]) -> WholeChunk:
    chunk = WholeChunk()
    chunk.partitions = [3] * len(facts)
    chunk.offsets = [2 * n for n in range(len(facts))]
    for name, values in zip(
        ("keys", "values", "times_ms", "kinds", "record_epochs", "all_headers"), zip(*facts, strict=True), strict=True
    ):
        setattr(chunk, name, list(values))
    return chunk


def read(data: bytes, key: Key | None = None, salt: str = "", rows: int = 5, first: int = 0) -> WholeChunk:
    chunk = WholeChunk()
    for batch in batches(decode(data, key, salt), rows, first):
        fill(chunk, 3, batch)
    return chunk


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORD, min_size=1, max_size=30), st.integers(0, 30), st.booleans())
def test_every_fact_of_every_record_comes_back(facts: list[tuple[Any, ...]], cut: int, encrypted: bool) -> None:
    before, key = whole(facts), Key(b"k" * 32) if encrypted else None
    cut = min(cut, len(facts))
    parts = [columns(before, 0, cut), columns(before, cut, len(facts))]
    data = encode([part for part in parts if part.num_rows], {"topic": "t"}, key, "salt")
    after = read(data, key, "salt")
    for fact in WholeChunk.facts:
        assert list(getattr(after, fact)) == list(getattr(before, fact)), fact
    later = read(data, key, "salt", first=before.offsets[-1])
    assert later.offsets == before.offsets[-1:]


def test_a_replica_gets_its_own_headers_of_each_record() -> None:
    mine = headers_of(Marks(tx="tx-1"))
    chunk = whole([(b"k", b"v", 1, 2, 0, [("trace", b"1"), *mine]), (b"k", b"v", 1, 2, 0, [("trace", b"2")])])
    plain = Chunk()
    for batch in batches(decode(encode([columns(chunk, 0, 2)], {}, None, ""), None, "")):
        fill(plain, 3, batch)
    assert plain.headers == {0: mine}


def test_without_the_key_or_with_another_one_nothing_is_read(tmp_path: Any) -> None:
    log, right = history(20), Key(b"r" * 32)
    copy(log, Archive(tmp_path, right))
    assert records(Archive(tmp_path, right).log()) == records(log)
    for key, why in ((None, "no key was given"), (Key(b"w" * 32), "the key given is")):
        with pytest.raises(WrongKey, match=why):
            records(Archive(tmp_path, key).log())
    secret = b"".join(value for found in records(log).values() for _, _, _, value, *_ in found if value)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert secret and not any(secret[n : n + 12] in stored for n in range(0, len(secret) - 12, 12))


def test_plain_segments_are_read_by_who_has_a_key(tmp_path: Any) -> None:
    log = history(20)
    copy(log, Archive(tmp_path))
    assert records(Archive(tmp_path, Key(b"k" * 32)).log()) == records(log)


@pytest.mark.parametrize("text", [b"", b"short", b"zz" * 32, b"00" * 33])
def test_a_key_file_without_a_key_is_refused(tmp_path: Any, text: bytes) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(BadKeyFile, match="64 hexadecimal digits"):
        Key.from_file(tmp_path / "key")
    with pytest.raises(BadKeyFile, match="No such file"):
        Key.from_file(tmp_path / "absent")


def test_equal_bytes_have_one_address_under_one_key_only() -> None:
    one, other = Key(b"1" * 32), Key(b"2" * 32)
    assert one.address(b"x") == one.address(b"x") != other.address(b"x") and one.address(b"x") != one.address(b"y")
    assert one.id != other.id and one.secret.hex() not in repr(one)
