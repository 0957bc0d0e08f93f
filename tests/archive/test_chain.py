"""FAILURES 31: manifests betray each changed bit, and chains each link that does not belong."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.pipeline.archive.chain import (
    BrokenChain,
    Chain,
    Erasure,
    Head,
    Manifest,
    Place,
    check_head,
    decode,
    decode_head,
    overtaken,
    unnamed,
)
from merganser.pipeline.archive.sealed import BrokenSeal, seal, unseal

PLACE = Place("orders", "id-1", 3)
SHA = "ab" * 32


def link(first: int, next_: int, rows: int = 1, **more: object) -> Manifest:
    facts: dict[str, object] = {"max_ms": first, "last_offset": next_ - 1, "last_digest": "00", "sha256": SHA}
    if rows:
        facts |= {"rows": rows, "file": PLACE.data(first, next_, SHA), "size": 9, "min_ms": 0}
    else:
        facts = {}
    return Manifest(*PLACE, seq=0, first=first, next=next_, **{**facts, **more})  # type: ignore[arg-type]


def chain(*bounds: int) -> Chain:
    made = Chain(PLACE)
    for first, next_ in pairwise(bounds):
        made.add(made.following(link(first, next_)))
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 10**12))
def test_a_manifest_reads_back_as_it_was_written(sizes: list[int], start: int) -> None:
    bounds = [start]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    for made in chain(*bounds).links:
        assert decode(made.encoded()) == made and decode(made.encoded()).hash == made.hash


@pytest.mark.parametrize("data", [chain(0, 5, 9).links[1].encoded(), Head(3, SHA, 17).encoded()], ids=["link", "head"])
def test_no_bit_of_a_manifest_or_head_can_change(data: bytes) -> None:
    read = decode if b'"rows"' in data else decode_head
    read(data)
    for n in range(len(data) * 8):
        changed = bytearray(data)
        changed[n // 8] ^= 1 << n % 8
        with pytest.raises(BrokenChain):
            read(bytes(changed))
    for n in range(len(data)):
        with pytest.raises(BrokenChain):
            read(data[:n])


@pytest.mark.parametrize("facts", [{}, {"a": 1, "b": [True, None, {"c": "\u00e9\n\U0001f986"}], "": -(2**70)}])
def test_sealed_facts_come_back_and_other_spellings_of_them_do_not(facts: dict[str, object]) -> None:
    data = seal(facts)
    assert unseal(data) == facts and data.isascii()
    for other in (data + b" ", b" " + data, data.replace(b":", b": ", 1), data[:-1], b"{}", b"[]", b"", b"\xff"):
        with pytest.raises(BrokenSeal):
            unseal(other)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda right: replace(right, first=right.first - 1, file="", rows=0), "begins at offset 8"),
        (lambda right: replace(right, first=right.first + 1, file="", rows=0), "begins at offset 10"),
        (lambda right: replace(right, seq=5), "number 5, not 2"),
        (lambda right: replace(right, previous=SHA), "not the one that it was made after"),
        (lambda right: replace(right, partition=4), "it is of"),
        (lambda right: replace(right, newest_ms=-1), "knows less"),
    ],
)
def test_what_does_not_follow_is_no_link(wrong: object, why: str) -> None:
    made = chain(0, 5, 9)
    with pytest.raises(BrokenChain, match=why):
        made.add(wrong(made.following(link(9, 12))))  # type: ignore[operator]
    assert made.end == 9


@pytest.mark.parametrize(
    "unsound",
    [
        link(3, 3),
        link(5, 3),
        link(0, 4, rows=5),
        replace(link(0, 4), file=""),
        replace(link(0, 4), file="elsewhere.parquet"),
        replace(link(0, 4), lost=True),
        replace(link(0, 4), last_digest="x0"),
    ],
)
def test_a_sealed_manifest_that_cannot_be_true_is_refused(unsound: Manifest) -> None:
    with pytest.raises(BrokenChain):
        decode(unsound.encoded())


def test_offsets_and_times_are_found_in_the_link_that_has_them() -> None:
    made = chain(2, 5, 9, 20)
    assert [made.at(n) for n in (0, 2, 4, 5, 8, 9, 19, 20, 99)] == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert [made.since(ms) for ms in (0, 2, 3, 5, 6, 9, 10)] == [0, 0, 1, 1, 2, 2, 3]
    assert (made.start, made.end, made.whole_from) == (2, 20, 2)


def test_lost_offsets_are_told_and_what_comes_after_is_whole() -> None:
    made = chain(0, 5)
    made.add(made.following(replace(link(5, 9, rows=0), lost=True)))
    made.add(made.following(link(9, 12)))
    assert (made.start, made.whole_from) == (0, 9)
    made.add(made.following(replace(link(12, 12, rows=0), lost=True)))
    made.add(made.following(link(12, 13)))
    assert made.links[made.at(12)].lost, "whoever reads on from 12 must hear of the deletes that are missing"


def test_a_head_that_knows_more_than_the_chain_betrays_what_was_taken_away() -> None:
    made = chain(0, 5, 9)
    check_head(made, Head())
    check_head(made, Head(0, made.links[0].hash))
    check_head(made, Head(1, made.links[1].hash))
    for head in (Head(2, SHA), Head(1, SHA), Head(0, made.links[1].hash)):
        with pytest.raises(BrokenChain):
            check_head(made, head)


# -- erasures ------------------------------------------------------------------------------------


def redacted(old: Manifest, **more: object) -> Manifest:
    facts = {"rows": 0, "file": "", "size": 0, "sha256": "", "erased": 1, "was": old.hash, **more}
    return replace(old, **facts)  # type: ignore[arg-type]


def erasure(made: Chain, *links: Manifest, **more: object) -> Manifest:
    told = Erasure("0" * 16, "2026-01-31T14:32:00+00:00", 2, 1, {str(each.seq): each.own_hash for each in links})
    facts = {"erasure": told.facts() | more}
    return made.following(Manifest(*PLACE, seq=0, first=made.end, next=made.end, **facts))  # type: ignore[arg-type]


def test_an_archive_of_which_nothing_was_erased_is_as_it_was() -> None:
    assert not any(word in chain(0, 5).links[0].encoded() for word in (b"erased", b"was", b"erasure"))


def test_a_chain_goes_on_over_an_erasure_and_holds_with_what_takes_a_place() -> None:
    made = chain(0, 5, 9)
    new = redacted(made.links[0])
    told = erasure(made, new)
    made.add(decode(told.encoded()))
    assert made.end == 9 and made.unfinished == {0: new.own_hash} and not made.unnamed
    made.add(made.following(link(9, 12)))
    made.put(decode(new.encoded()))
    assert (made.links[0].erased, made.links[0].hash) == (1, chain(0, 5).links[0].hash)
    assert not made.unfinished and not made.unnamed
    assert Chain(PLACE, made.links).end == 12, "it holds from the first link on"
    assert [made.at(offset) for offset in (0, 8, 9, 12)] == [0, 1, 3, 4]


def test_what_no_erasure_names_takes_no_place() -> None:
    made = chain(0, 5, 9)
    new, other = redacted(made.links[0]), redacted(made.links[0], erased=2)
    with pytest.raises(BrokenChain, match="no erasure"):
        made.put(new)
    made.add(erasure(made, new))
    for wrong in (other, redacted(made.links[1]), replace(new, was=SHA)):
        with pytest.raises(BrokenChain, match="no erasure"):
            made.put(wrong)
    assert [each.seq for each in unnamed([other, *made.links[1:]])] == [0]


def test_of_two_erasures_the_newer_one_says_what_a_link_is() -> None:
    made = chain(0, 5, 9)
    first = redacted(made.links[0])
    made.add(erasure(made, first))
    made.put(first)
    second = redacted(first, erased=2)
    made.add(erasure(made, second))
    assert made.unfinished == {0: second.own_hash} and not made.unnamed
    made.put(second)
    assert not made.unfinished and second.hash == first.hash == first.was


def test_lost_deletes_are_told_though_an_erasure_lies_between() -> None:
    made = chain(0, 5)
    made.add(made.following(replace(link(5, 5, rows=0), lost=True)))
    made.add(erasure(made, redacted(made.links[0])))
    made.add(made.following(link(5, 9)))
    assert made.links[made.at(5)].lost


@pytest.mark.parametrize(
    "unsound",
    [
        replace(link(0, 4), erased=1),
        replace(link(0, 4), erased=4, was=SHA),
        replace(link(0, 4, rows=0), erased=-1, was=SHA),
        replace(link(0, 4, rows=0), erased=1, was=SHA, lost=True),
        replace(link(0, 4), was="x"),
        replace(erasure(chain(0, 5), redacted(chain(0, 5).links[0])), next=7),
        replace(erasure(chain(0, 5), redacted(chain(0, 5).links[0])), was=SHA),
        erasure(chain(0, 5)),
        erasure(chain(0, 5), redacted(chain(0, 5).links[0]), links={"1": SHA}),
        erasure(chain(0, 5), redacted(chain(0, 5).links[0]), links={"0": "ab"}),
        erasure(chain(0, 5), redacted(chain(0, 5).links[0]), links={"x": SHA}),
        erasure(chain(0, 5), redacted(chain(0, 5).links[0]), key="ada"),
        erasure(chain(0, 5), redacted(chain(0, 5).links[0]), records="1"),
    ],
)
def test_a_sealed_erasure_that_cannot_be_true_is_refused(unsound: Manifest) -> None:
    with pytest.raises(BrokenChain):
        decode(unsound.encoded())


def test_what_is_to_be_left_out_is_not_said() -> None:
    facts = unseal(chain(0, 5).links[0].encoded())
    for more in ({"erased": 0}, {"was": ""}, {"erasure": {}}):
        with pytest.raises(BrokenChain, match="left out"):
            decode(seal({**facts, **more}))


@pytest.mark.parametrize(
    ("name", "is_"),
    [
        (PLACE.data(0, 5, SHA), True),
        (PLACE.data(8, 12, SHA), True),
        (PLACE.data(9, 12, SHA), False),
        (f"{PLACE.folder}/.0-5-{SHA[:16]}.parquet.0123456789ab.part", True),
        (f"{PLACE.folder}/.9-12-{SHA[:16]}.parquet.0123456789ab.part", False),
        (PLACE.manifest(0), False),
        (PLACE.staged(0, SHA), False),
        (PLACE.head, False),
    ],
)
def test_only_data_below_the_end_can_no_more_be_named(name: str, is_: bool) -> None:
    assert overtaken(name, 9) is is_
