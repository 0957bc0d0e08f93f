"""What a cluster is, and the files that Kafka reads. Pure: no I/O here.

One node is broker and controller in one; three are a quorum of three such nodes, which goes on when
any one of them dies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
SIZES = (1, 3)
MIB = 1024 * 1024


@dataclass(frozen=True)
class Node:
    """One Kafka process: its id and its two ports."""

    id: int
    client_port: int
    controller_port: int

    @property
    def ports(self) -> tuple[int, int]:
        return self.client_port, self.controller_port


@dataclass(frozen=True)
class Cluster:
    """What was decided when the home was formatted, and never changes after."""

    cluster_id: str
    kafka_version: str
    nodes: tuple[Node, ...]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"{HOST}:{node.client_port}" for node in self.nodes)

    def to_json(self) -> str:
        nodes = [{"id": n.id, "client_port": n.client_port, "controller_port": n.controller_port} for n in self.nodes]
        whole = {
            "format": 1,
            "cluster_id": self.cluster_id,
            "kafka_version": self.kafka_version,
            "nodes": nodes,
        }
        return json.dumps(whole, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Cluster:
        """Raises ValueError for text that is no cluster of this format."""
        try:
            whole = json.loads(text)
            if whole["format"] != 1:
                raise ValueError(f"format {whole['format']} is not known to this version")
            nodes = tuple(Node(int(n["id"]), int(n["client_port"]), int(n["controller_port"])) for n in whole["nodes"])
            cluster = cls(str(whole["cluster_id"]), str(whole["kafka_version"]), nodes)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or wrong: {error}") from None
        if len(nodes) not in SIZES:
            raise ValueError(f"{len(nodes)} nodes")
        return cluster


def plan_cluster(cluster_id: str, kafka_version: str, ports: list[int]) -> Cluster:
    """A new cluster over ``ports``, two of them a node."""
    pairs = zip(ports[0::2], ports[1::2], strict=True)
    nodes = tuple(Node(i, client, controller) for i, (client, controller) in enumerate(pairs, start=1))
    return Cluster(cluster_id, kafka_version, nodes)


def render(properties: Mapping[str, object]) -> str:
    """A Java properties file. A path may have a backslash or non-ASCII letters, so both are escaped."""
    return "".join(f"{key}={_escape(str(value))}\n" for key, value in properties.items())


def _escape(value: str) -> str:
    text = value.replace("\\", "\\\\")
    return "".join(c if " " <= c <= "~" else "".join(f"\\u{u:04x}" for u in _utf16(c)) for c in text)


def _utf16(char: str) -> list[int]:
    raw = char.encode("utf-16-be")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]


def server_properties(cluster: Cluster, node: Node, data: Path) -> dict[str, object]:
    """The configuration of one node."""
    return {
        **_identity(cluster, node, data),
        **_replication(len(cluster.nodes)),
        **_groups(),
        **_failing(),
        **_stopping(len(cluster.nodes)),
        **_small(len(cluster.nodes)),
    }


def _identity(cluster: Cluster, node: Node, data: Path) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "controller.quorum.voters": ",".join(f"{n.id}@{HOST}:{n.controller_port}" for n in cluster.nodes),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{node.client_port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{node.client_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
    }


def _replication(brokers: int) -> dict[str, object]:
    min_isr = max(1, brokers - 1)
    return {
        "default.replication.factor": brokers,
        "min.insync.replicas": min_isr,
        "offsets.topic.replication.factor": brokers,
        "transaction.state.log.replication.factor": brokers,
        "transaction.state.log.min.isr": min_isr,
        "share.coordinator.state.topic.replication.factor": brokers,
        "share.coordinator.state.topic.min.isr": min_isr,
    }


def _stopping(brokers: int) -> dict[str, object]:
    # A node that stops asks the quorum to move its leaders away, and waits for the answer up to five minutes.
    # `broker stop` ends all nodes, so for the last one there is no quorum. Logs are closed cleanly all the same.
    return {} if brokers == 1 else {"controlled.shutdown.enable": "false"}


def _failing() -> dict[str, object]:
    # A node that was killed may register again only when its old session is over, 9 s by default. That is
    # what a start after a crash would wait, and a partition's new leader after a node's death.
    # Transactions whose time is over are looked for every 10 s, as by default, and no sooner: a node that is
    # back, and not registered yet, takes partitions without a leader for deleted ones and leaves out the marker
    # (Kafka 4.3: "likely deleted already and hence can be skipped"). What follows is half a transaction.
    return {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500}


def _groups() -> dict[str, object]:
    # 45 s is Kafka's default: a replica that was killed would wait that long to get its partitions back.
    return {
        "group.initial.rebalance.delay.ms": 0,
        "group.consumer.heartbeat.interval.ms": 1000,  # members learn of a rebalance by it
        "group.consumer.min.heartbeat.interval.ms": 1000,
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.session.timeout.ms": 6000,
    }


def _small(brokers: int) -> dict[str, object]:
    # Kafka's defaults are sized for a fleet: 50 partitions for each internal topic (150 files at the first
    # consumer), and a cleaner buffer of 128 MiB, taken from the heap at start.
    return {
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.num.partitions": 4,
        "log.cleaner.dedupe.buffer.size": (32 if brokers == 1 else 16) * MIB,
    }


def log4j2_properties(log: Path) -> dict[str, object]:
    """Kafka's own log into one file, rolled at 10 MB, three kept."""
    return {
        "rootLogger.level": "INFO",
        "rootLogger.appenderRef.file.ref": "file",
        "appender.file.type": "RollingFile",
        "appender.file.name": "file",
        "appender.file.fileName": log,
        "appender.file.filePattern": f"{log}.%i",
        "appender.file.layout.type": "PatternLayout",
        "appender.file.layout.pattern": "[%d] %p %m (%c)%n",
        "appender.file.policies.type": "Policies",
        "appender.file.policies.size.type": "SizeBasedTriggeringPolicy",
        "appender.file.policies.size.size": "10MB",
        "appender.file.strategy.type": "DefaultRolloverStrategy",
        "appender.file.strategy.max": 3,
    }


def heap_flags(brokers: int) -> list[str]:
    """Serial GC: half a second quicker to start than G1 and no slower at this heap on a laptop."""
    return [f"-Xmx{1024 if brokers == 1 else 512}m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
