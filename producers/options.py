"""What a producer can be told about its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..schemas.errors import UsageError

COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")

#: librdkafka takes milliseconds of 32 bits.
_LONGEST_S = 2_147_483

#: The least and the most of each number. librdkafka takes a bound of 0 for none at all.
_WITHIN: dict[str, tuple[float, float]] = {
    "linger_ms": (0, 900_000),
    "buffer_rows": (1, 10_000_000),
    "buffer_bytes": (1024, 2_147_483_647 * 1024),
    "delivery_timeout_s": (0.1, _LONGEST_S),
    "transaction_rows": (1, math.inf),
    "transaction_bytes": (1, math.inf),
    "transaction_timeout_s": (1, _LONGEST_S),
}


@dataclass(frozen=True)
class ProducerOptions:
    """Bounds and trade-offs of a producer. UsageError if one is out of its range."""

    linger_ms: float = 2
    compression: str = "lz4"
    buffer_rows: int = 100_000
    buffer_bytes: int = 64 * 1024 * 1024
    delivery_timeout_s: float = 30.0  # from put to acknowledgement, retries included
    transaction_rows: int = 100_000
    transaction_bytes: int = 32 * 1024 * 1024  # of keys and values
    transaction_timeout_s: float = 10.0  # a killed producer's transaction hides what follows it for so long

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise UsageError(
                f"ProducerOptions.compression is one of {', '.join(COMPRESSIONS)}; not {self.compression!r}"
            )
        for name, (least, most) in _WITHIN.items():
            value = getattr(self, name)
            whole = not name.endswith(("_ms", "_s"))
            kind = "a whole number" if whole else "a number"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise UsageError(f"ProducerOptions.{name} is {kind}, not {value!r}")
            if not least <= value <= most:
                bound = f"from {least:,} to {most:,}" if most < math.inf else f"{least:,} at least"
                raise UsageError(f"ProducerOptions.{name} is {kind} {bound}, not {value!r}")
