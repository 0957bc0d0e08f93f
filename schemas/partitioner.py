"""Which partition a record belongs to: Java's default partitioner, which librdkafka calls ``murmur2_random``.

Invariant: a key, or an operation id, has the same partition here as in librdkafka and in Java. A key that
lay in two partitions would have two rows.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_WORDS = struct.Struct("<I")


def murmur2(data: bytes) -> int:
    """``org.apache.kafka.common.utils.Utils.murmur2``: a signed 32-bit number."""
    size = len(data)
    whole = size & ~3
    hash_ = _SEED ^ size
    for (word,) in _WORDS.iter_unpack(data[:whole]):
        word = word * _M & _MASK
        hash_ = hash_ * _M & _MASK ^ (word ^ word >> 24) * _M & _MASK
    if whole != size:
        hash_ = (hash_ ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    hash_ = (hash_ ^ hash_ >> 13) * _M & _MASK
    hash_ ^= hash_ >> 15
    return hash_ - (1 << 32) if hash_ >> 31 else hash_


def partition_of(data: bytes, partitions: int) -> int:
    """The partition, of so many, that *data* hashes to."""
    return (murmur2(data) & 0x7FFFFFFF) % partitions
