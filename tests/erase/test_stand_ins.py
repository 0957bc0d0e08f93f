"""What stands in for an erased record: told from records, read by no one as a row, and written by no one else."""

from __future__ import annotations

import pytest

from erase.people import People
from merganser.consumers.chunk import Chunk
from merganser.consumers.labels import label
from merganser.schemas.headers import BadHeader, Condition, Erased, Marks, decode, encode, is_no_row, stands_in
from merganser.schemas.position import TopicPartition

ID = "0123456789abcdef"
MANIFEST = {TopicPartition("t", 0): 2}


@pytest.mark.parametrize(
    "marks",
    [
        Marks("tx", erased=Erased(ID)),
        Marks("tx", MANIFEST, guarded=True, erased=Erased(ID, True)),
        Marks(ops=("a", "b"), erased=Erased(ID)),
        Marks(schema=7, erased=Erased(ID)),
    ],
)
def test_headers_say_it_and_are_read_back(marks: Marks) -> None:
    assert decode(encode(marks)) == marks and marks.no_row
    assert is_no_row(encode(marks)) and stands_in(encode(marks))


@pytest.mark.parametrize(
    "headers",
    [
        [("merganser-erased", b"ada")],
        [("merganser-erased", ID.encode() + b" perhaps")],
        [("merganser-erased", ID.encode())] * 2,
        [("merganser-erased", ID.encode()), *encode(Marks(condition=Condition("absent")))],
        [("merganser-erased", ID.encode()), *encode(Marks("tx", resolution="apply"))],
    ],
)
def test_other_text_is_none(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(BadHeader):
        decode(headers)
    assert not is_no_row(headers)


def test_a_row_that_says_so_of_itself_goes_to_quarantine() -> None:
    people = People(1, events=0)
    marks = Marks("tx", erased=Erased(ID))
    people.write("bob", 1, marks)
    people.log.put(*people.place("bob"), None, None, marks)
    chunk = Chunk()
    chunk.extend([record for record in people.log.partitions[people.place("bob")] if record is not None])
    labelled, bad = label(chunk, lambda keys: [("bob",) if key else None for key in keys])
    assert list(bad) == [0] and "has a key or a value" in bad[0]
    assert labelled.keys[1] == ((("merganser-erased", ID)),)
