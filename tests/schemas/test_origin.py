"""The header that names the record which another one repeats: one text for each, and none that is half understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.schemas.headers import ORIGIN, SCHEMA, BadHeader, Marks, Origin, decode, encode, origin
from merganser.schemas.position import TopicPartition

_ID = st.text("abcXYZ019_-", min_size=1, max_size=22)
_TOPIC = st.text("abcXYZ019._-", min_size=1, max_size=40)
_PLACE = st.builds(TopicPartition, _TOPIC, st.integers(0, 2**31 - 1))
_ORIGINS = st.builds(Origin, _ID, _ID, _PLACE, st.integers(0, 10**18 - 1))

GOOD = "Kc-7 aB_9 orders/0@119"


@given(_ORIGINS)
def test_what_was_written_is_read_back(made: Origin) -> None:
    assert Origin.parse(str(made)) == made
    assert origin([("other", b"1"), made.header]) == made


@given(st.one_of(st.text(max_size=30), st.text("ab01/@ .-", max_size=30)))
def test_what_can_be_read_has_no_other_spelling(text: str) -> None:
    try:
        found = Origin.parse(text)
    except BadHeader:
        return
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "orders/0@119",
        "Kc-7 orders/0@119",
        GOOD + " ",
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace(" ", "  "),
        GOOD.replace("/0", "/00"),
        GOOD.replace("/0", "/-1"),
        GOOD.replace("@119", ":119"),
        GOOD.replace("@119", "@0119"),
        GOOD.replace("@119", "@"),
        GOOD.replace("@119", "@١"),
        GOOD.replace("@119", "@" + "9" * 19),
        GOOD.replace("orders", "a/b"),
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadHeader):
        Origin.parse(text)


def test_two_or_what_is_no_text_are_refused() -> None:
    good = (ORIGIN, GOOD.encode())
    for headers in ([good, good], [(ORIGIN, b"\xff")], [(ORIGIN, None)]):
        with pytest.raises(BadHeader):
            origin(headers)
    assert origin([]) is None


def test_a_topics_id_is_spelt_as_kafka_does() -> None:
    made = Origin.of("Kc-7", "bIQo//sT+WqZw", TopicPartition("orders", 0), 119)
    assert made.topic_id == "bIQo__sT-WqZw" and Origin.parse(str(made)) == made


def test_it_is_information_only() -> None:
    """A record is what it is, whatever its origin says, and if that is none."""
    assert decode([(ORIGIN, GOOD.encode())]) is None
    assert decode([(ORIGIN, b"no origin"), ("merganser-op", b"x")]) == decode([("merganser-op", b"x")])


@given(st.integers(0, 2**31 - 1))
def test_a_schema_that_is_met_is_read_back(schema: int) -> None:
    assert decode(encode(Marks(schema=schema))) == Marks(schema=schema)


@pytest.mark.parametrize("values", [["x"], [""], ["-1"], ["07"], ["1 "], ["1\n"], ["٣"], ["1" * 11], ["1", "1"]])
def test_what_is_no_schema_id_is_refused(values: list[str]) -> None:
    with pytest.raises(BadHeader, match=SCHEMA):
        decode([(SCHEMA, value.encode()) for value in values])
