"""What a producer can be told about its bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProducerOptions:
    """Bounds and trade-offs of a producer."""

    linger_ms: float = 2
    compression: str = "lz4"
    buffer_rows: int = 100_000
    buffer_bytes: int = 64 * 1024 * 1024
    delivery_timeout_s: float = 30.0  # from put to acknowledgement, retries included
    transaction_rows: int = 100_000
    transaction_bytes: int = 32 * 1024 * 1024  # of keys and values
    transaction_timeout_s: float = 10.0  # a killed producer's transaction hides what follows it for so long
