"""What becomes of each record of a key, and of each link: decided without an archive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merganser.consumers.checks import Seen
from merganser.pipeline.archive.chain import Manifest, Place
from merganser.pipeline.erase.plan import Hit, changing, not_deleted, redacted, redaction, telling
from merganser.schemas.headers import Condition, Erased, Marks
from merganser.schemas.position import TopicPartition

ZERO = TopicPartition("t", 0)
FIRST = Marks("tx", {ZERO: 2}, Condition("absent"), ("op",), guarded=True)
PLACE = Place("t", "id", 0)
SHA = "ab" * 32


def link(seq: int, first: int, next_: int, last: int, rows: int = 1) -> Manifest:
    file = {"rows": rows, "file": PLACE.data(first, next_, SHA), "size": 9, "sha256": SHA} if rows else {}
    facts = {"min_ms": 5, "max_ms": 6, "newest_ms": 6, "last_offset": last, "last_digest": "00", **file}
    return Manifest(*PLACE, seq=seq, first=first, next=next_, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hit", "leaves", "in_doubt", "stands_in"),
    [
        (Hit(4), False, False, None),
        (Hit(4, deletes=True), False, False, None),
        (Hit(4, bad=True), False, False, None),
        (Hit(4, marks=Marks(condition=Condition("absent"))), False, False, None),
        (Hit(4, marks=Marks("tx")), True, False, Marks("tx", erased=Erased("k"))),
        (Hit(4, marks=Marks("tx"), bad=True), True, True, Marks("tx", erased=Erased("k"))),
        (Hit(4, marks=Marks(ops=("op",))), True, False, Marks(ops=("op",), erased=Erased("k"))),
        (Hit(4, marks=Marks(schema=7)), True, False, Marks(schema=7, erased=Erased("k"))),
        (Hit(4, marks=FIRST), True, True, replace(FIRST, condition=None, erased=Erased("k"))),
    ],
)
def test_a_record_goes_or_leaves_what_others_need(
    hit: Hit, leaves: bool, in_doubt: bool, stands_in: Marks | None
) -> None:
    assert (hit.leaves, hit.in_doubt) == (leaves, in_doubt)
    made = redaction([hit], "k", ())
    assert (made.gone, made.stand_ins) == ((frozenset(), {4: stands_in}) if stands_in else (frozenset({4}), {}))
    again = redaction([hit], "k", {4}).stand_ins
    assert {at: marks.erased for at, marks in again.items()} == ({4: Erased("k", True)} if stands_in else {})


@pytest.mark.parametrize(
    ("hits", "why"),
    [
        ([], None),
        ([Hit(1), Hit(2, deletes=True)], None),
        ([Hit(1, deletes=True), Hit(2)], "at offset 2, is no delete"),
        ([Hit(1, deletes=True), Hit(2, bad=True)], "at offset 2, is no delete"),
        ([Hit(1), Hit(2, deletes=True, marks=Marks("tx"))], "at offset 2, is a delete in a transaction"),
        ([Hit(1), Hit(2, deletes=True, marks=Marks(condition=Condition("present")))], "with a condition"),
    ],
)
def test_only_what_is_deleted_for_certain_may_go(hits: list[Hit], why: str | None) -> None:
    told = not_deleted(hits)
    assert told is None if why is None else told is not None and why in told


def test_links_change_that_have_such_a_record_or_remember_one() -> None:
    links = [link(0, 0, 5, 4), link(1, 5, 9, 8), link(2, 9, 11, 8, rows=0), link(3, 11, 13, 12), link(4, 13, 14, 12, 0)]
    assert [each.seq for each in changing(links, {1: [Hit(8)]})] == [1, 2]
    assert [each.seq for each in changing(links, {1: [Hit(7)]})] == [1]
    assert [each.seq for each in changing(links, {0: [Hit(0)], 3: [Hit(12)]})] == [0, 3, 4]
    assert changing(links, {}) == []


def test_what_takes_the_place_of_a_link_keeps_its_hash_and_its_offsets() -> None:
    old = link(1, 5, 9, 8)
    now = redacted(old, None, Seen(3, b"\x01", 2), 2)
    assert (now.hash, now.own_hash != old.own_hash, now.was) == (old.hash, True, old.own_hash)
    assert (now.seq, now.first, now.next, now.newest_ms) == (old.seq, old.first, old.next, old.newest_ms)
    assert (now.rows, now.file, now.erased, now.last_offset, now.last_digest, now.last_epoch) == (0, "", 2, 3, "01", 2)
    again = redacted(now, None, None, 1)
    assert (again.hash, again.erased, again.last_offset, again.last_digest) == (old.hash, 3, -1, "")


def test_an_erasure_tells_how_many_and_not_of_whom() -> None:
    changed = [redacted(link(1, 5, 9, 8), None, None, 1)]
    told = telling("k" * 16, "2026-01-31T14:32:00+00:00", [Hit(7), Hit(8, marks=Marks("tx"))], changed)
    assert (told.records, told.stand_ins, told.links) == (2, 1, {"1": changed[0].own_hash})
