"""What an import goes on from, and how a file is cut: pure, so in all cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.pipeline.loading.chunks import chunks
from merganser.pipeline.loading.encoding import Bad, Encoded
from merganser.pipeline.loading.ledger import Entry, plan
from merganser.schemas.errors import LoadedOtherwise, MerganserError

NEW = Entry("orders", "topic-1", "a" * 64, 1, {"null": "", "sort": None}, 7, "orders.csv")
BEGUN = replace(NEW, chunks=2, rows=200, taken=205, bad=5)
DONE = replace(BEGUN, chunks=3, rows=250, taken=255, done=True)


def test_a_new_file_begins_at_its_start() -> None:
    assert plan([], NEW, False) == NEW == plan([], NEW, True)


def test_what_is_begun_goes_on_and_what_is_done_stays_so() -> None:
    assert plan([BEGUN], NEW, False) == BEGUN == plan([BEGUN], NEW, True)
    assert plan([DONE], NEW, False) == DONE
    assert plan([DONE], replace(NEW, file="other name.csv", schema_id=8), False) == DONE


@pytest.mark.parametrize("other", [replace(DONE, topic_id="topic-2"), replace(DONE, sha256="b" * 64)])
def test_another_topic_and_another_content_are_another_import(other: Entry) -> None:
    assert plan([other], NEW, False) == NEW


def test_again_is_another_generation_that_can_be_gone_on_with() -> None:
    second = plan([DONE], NEW, True)
    assert second == replace(NEW, generation=2) and second.key != DONE.key
    begun = replace(second, chunks=1, rows=100, taken=100)
    for again in (True, False):
        assert plan([DONE, begun], NEW, again) == begun
    assert plan([DONE, replace(begun, done=True)], NEW, True).generation == 3


@pytest.mark.parametrize(("known", "says"), [(DONE, "has all of it"), (BEGUN, "has 200 rows of it")])
def test_other_options_are_refused_by_name(known: Entry, says: str) -> None:
    other = replace(NEW, options={"null": "NA", "sort": None})
    with pytest.raises(LoadedOtherwise, match=f"{says}, imported with null=''"):
        plan([known], other, False)
    assert plan([known], other, True) == replace(other, generation=2)


def test_another_schema_changes_the_places_of_sorted_rows_only() -> None:
    altered, good = replace(NEW, schema_id=8), replace(BEGUN, bad=0)
    assert plan([good], altered, False) == good
    by_sku = {"null": "", "sort": "sku"}
    with pytest.raises(LoadedOtherwise, match="another version of its schema"):
        plan([replace(good, options=by_sku)], replace(altered, options=by_sku), False)


def test_what_was_no_row_under_another_schema_is_not_passed_over() -> None:
    """It may be one by now, and lies before the place where the import would go on."""
    altered = replace(NEW, schema_id=8)
    with pytest.raises(LoadedOtherwise, match="1 bad under another version of its schema"):
        plan([replace(BEGUN, bad=1)], altered, False)
    assert plan([replace(BEGUN, bad=1)], NEW, False).bad == 1
    assert plan([replace(BEGUN, bad=1, done=True)], altered, False).done


def test_an_entry_is_read_as_it_was_written() -> None:
    assert Entry.parse(DONE.value, 17) == DONE and Entry.parse(DONE.value, 17).when_ms == 17
    with pytest.raises(MerganserError, match="newer Merganser"):
        Entry.parse(DONE.value.replace(b'"format":2', b'"format":3'), 0)


# -- chunks ------------------------------------------------------------------------------------

Part = tuple[list[bytes | None], bool]


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    """Records of a file by pieces, None for a bad one, and whether the table is keyed."""
    keyed = draw(st.booleans())
    pieces = draw(st.lists(st.lists(st.none() | st.binary(max_size=9), max_size=7), max_size=6))
    return [(piece, keyed) for piece in pieces]


def encoded(pieces: Sequence[Part]) -> list[Encoded]:
    made, taken = [], 0
    for records, keyed in pieces:
        at = [taken + i for i, value in enumerate(records) if value is not None]
        taken += len(records)
        values = [value for value in records if value is not None]
        bad = [Bad(0, "", "")] * (len(records) - len(values))
        made.append(Encoded(taken, at, [b"k" + v for v in values] if keyed else None, values, bad))
    return made


@given(parts(), st.integers(1, 8), st.integers(1, 30), st.integers(0, 45))
def test_each_row_is_in_one_chunk_and_any_chunk_can_be_gone_on_from(
    pieces: list[Part], rows: int, size: int, skip: int
) -> None:
    records = [value for part, _ in pieces for value in part]
    wanted = [value for value in records[skip:] if value is not None]
    found = list(chunks(iter(encoded(pieces)), skip, rows, size))
    assert [value for chunk in found for value in chunk.values] == wanted
    assert [chunk.last for chunk in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].taken == max(skip, len(records)) and found[-1].bad == records.count(None)
    for i, chunk in enumerate(found):
        assert len(chunk.values) <= rows and (chunk.values or chunk.last)
        bytes_ = sum(map(len, chunk.values)) + sum(map(len, chunk.keys or ()))
        assert bytes_ <= size or len(chunk.values) == 1
        assert chunk.keys is None or chunk.keys == [b"k" + value for value in chunk.values]
        after = [value for later in found[i + 1 :] for value in later.values]
        resumed = chunks(iter(encoded(pieces)), chunk.taken, rows, size)
        assert [value for later in resumed for value in later.values] == after
