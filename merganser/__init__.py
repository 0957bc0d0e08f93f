"""SQL replicas of a Kafka log.

import merganser as mg

log = mg.connect()
log.create_table("orders", schema={...}, key=["order_id"])
with log.producer() as producer:
    producer.put("orders", {"order_id": 1, "qty": 2})
    token = producer.flush()
with mg.Replica("shop.duckdb", log, group="shop", tables=["orders"]) as replica:
    replica.query("select * from orders", after=token).rows()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .schemas.errors import MerganserError
from .schemas.position import Position, TopicPartition
from .schemas.table import Table

if TYPE_CHECKING:
    from .consumers.apply import BatchLimits
    from .consumers.asked import Level
    from .consumers.dbfile import Limits
    from .consumers.outcome import Outcome
    from .consumers.replica import Replica
    from .consumers.result import Result
    from .pipeline.archive.archive import Archive
    from .pipeline.log import Log, connect
    from .pipeline.serving.client.client import Client
    from .producers.options import ProducerOptions
    from .producers.producer import Producer
    from .producers.transaction import Transaction
    from .producers.write import Write

__version__ = "0.1.0"

__all__ = [
    "Archive",
    "BatchLimits",
    "Client",
    "Level",
    "Limits",
    "Log",
    "MerganserError",
    "Outcome",
    "Position",
    "Producer",
    "ProducerOptions",
    "Replica",
    "Result",
    "Table",
    "TopicPartition",
    "Transaction",
    "Write",
    "connect",
    "errors",
]

_MODULES = {
    "Log": "pipeline.log",
    "connect": "pipeline.log",
    "Producer": "producers.producer",
    "ProducerOptions": "producers.options",
    "Transaction": "producers.transaction",
    "Write": "producers.write",
    "Replica": "consumers.replica",
    "Client": "pipeline.serving.client.client",
    "Archive": "pipeline.archive.archive",
    "Level": "consumers.asked",
    "Outcome": "consumers.outcome",
    "Limits": "consumers.dbfile",
    "BatchLimits": "consumers.apply",
    "Result": "consumers.result",
}

#: What brings the parts that a noun needs, beside the base install.
_EXTRAS = dict.fromkeys(("Replica", "Limits", "BatchLimits", "Outcome", "Result"), "replica") | {"Client": "client"}


if not TYPE_CHECKING:  # else a name that is misspelt would be one of type Any

    def __getattr__(name: str) -> Any:
        """Nouns come at their first use: the command line's help needs no Kafka client, and a service that
        only writes has not installed the DuckDB and Arrow of the read side."""
        if name not in _MODULES:
            raise AttributeError(f"module 'merganser' has no attribute {name!r}")
        from importlib import import_module

        try:
            module = import_module(f".{_MODULES[name]}", __name__)
        except ModuleNotFoundError as error:
            if name not in _EXTRAS or (error.name or "").startswith(__name__):
                raise
            raise ImportError(f"{error.name} is missing: pip install 'merganser[{_EXTRAS[name]}]'") from error
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
