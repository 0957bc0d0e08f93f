"""The partitioner is Java's: known hashes here, the places that the real client chooses in tests/producers."""

from __future__ import annotations

import pytest

from merganser.schemas.partitioner import murmur2, partition_of

#: From org.apache.kafka.common.utils.UtilsTest.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hash_"), JAVA.items())
def test_hashes_are_those_of_java(key: bytes, hash_: int) -> None:
    assert murmur2(key) == hash_


def test_a_partition_is_the_hash_without_its_sign() -> None:
    assert partition_of(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7
    assert {partition_of(str(n).encode(), 4) for n in range(100)} == {0, 1, 2, 3}
