"""Kafka's wire protocol by hand: records that no client of ours makes, such as with header names that are no text."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

#: Key, value, headers.
WireRecord = tuple[bytes | None, bytes | None, Sequence[tuple[bytes, bytes | None]]]

_PRODUCE, _VERSION = 0, 3


def produce(broker: str, topic: str, partition: int, records: Sequence[WireRecord]) -> None:
    """Append *records* to the partition as one batch, acknowledged by all."""
    batch = _batch(records)
    request = (
        struct.pack(">hhi", _PRODUCE, _VERSION, 1)
        + _text("wire")
        + struct.pack(">hhi", -1, -1, 20_000)  # in no transaction; by all replicas; within so many milliseconds
        + struct.pack(">i", 1) + _text(topic)
        + struct.pack(">iii", 1, partition, len(batch)) + batch
    )  # fmt: skip
    host, port = broker.split(",")[0].split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        answer = connection.recv(size, socket.MSG_WAITALL)
    at = 4 + 4 + len(_text(topic)) + 4 + 4  # correlation, topics, name, partitions, partition
    (error,) = struct.unpack_from(">h", answer, at)
    assert error == 0, f"Kafka's error {error}"


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _batch(records: Sequence[WireRecord]) -> bytes:
    now_ms, last = time.time_ns() // 1_000_000, len(records) - 1
    body = struct.pack(">hiqqqhii", 0, last, now_ms, now_ms, -1, -1, -1, len(records))
    body += b"".join(_record(n, *record) for n, record in enumerate(records))
    inner = struct.pack(">ibI", -1, 2, _crc32c(body)) + body
    return struct.pack(">qi", 0, len(inner)) + inner


def _record(n: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    said = b"".join(_bytes(name) + _bytes(text) for name, text in headers)
    body = b"\x00" + _varint(0) + _varint(n) + _bytes(key) + _bytes(value) + _varint(len(headers)) + said
    return _varint(len(body)) + body


def _bytes(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    left, out = number << 1 if number >= 0 else -number * 2 - 1, bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes([*out, left])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
