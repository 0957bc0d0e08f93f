"""What a republish will do: which tables of an archive a cluster is to get, and whether it can. Pure.

Invariants
- The cluster is another one than the archive's: a live topic is never written to.
- A topic that is there is gone on with only if it is alike; what is in it is looked at later, record by record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...schemas.errors import NotRepublishable
from ...schemas.kafka import TopicFacts, TopicId
from ...schemas.position import TopicPartition
from ...schemas.table import SchemaVersion
from ..restore.plan import RestorePlan

State = Literal["new", "begun", "there"]

#: What a new topic takes over from the old one. How many replicas have to answer is the new cluster's own.
_KEPT = ("cleanup.policy", "delete.retention.ms", "message.timestamp.type")

#: A new log has to hold every row, however old it is.
_WHOLE = {"retention.ms": "-1", "retention.bytes": "-1"}

#: The largest record grows by its origin's header. Archives that were begun earlier do not say how large it may be.
_LARGEST, _ORIGIN_BYTES = "max.message.bytes", 1024

#: Kafka's own default. Rows are written again in batches of nearly as much, however small the old ones had to be.
_BATCH_BYTES = 1_048_588


@dataclass(frozen=True)
class TableWay:
    """One table: as it was archived, with all versions of its schemas; and what the new cluster has of it: nothing,
    a topic that no schema declares yet, or the table."""

    facts: TopicFacts
    values: tuple[SchemaVersion, ...]
    keys: tuple[SchemaVersion, ...]
    state: State = "new"

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def versions(self) -> list[SchemaVersion]:
        return [*self.keys, *self.values]

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, number) for number in range(self.facts.partitions)]

    @property
    def settings(self) -> dict[str, str]:
        """Those of the new topic."""
        kept = {name: value for name, value in self.facts.settings.items() if name in _KEPT} | _WHOLE
        if _LARGEST in self.facts.settings:
            largest = int(self.facts.settings[_LARGEST]) + _ORIGIN_BYTES
            kept[_LARGEST] = str(min(max(largest, _BATCH_BYTES), 2**31 - 1))
        return kept

    def fields(self) -> dict[str, Any]:
        shown = {"table": self.name, "partitions": self.facts.partitions, "keyed": bool(self.keys)}
        return {**shown, "versions": len(self.values), "state": self.state}


@dataclass(frozen=True)
class RepublishPlan:
    """What a republish will do. *restore* leads to the rows; *cluster_id* is the new cluster's."""

    restore: RestorePlan
    from_cluster_id: str
    cluster_id: str
    tables: tuple[TableWay, ...]

    def fields(self) -> dict[str, Any]:
        whose = {"from_cluster": self.from_cluster_id, "cluster": self.cluster_id}
        return {**whose, **self.restore.fields(), "tables": [way.fields() for way in self.tables]}

    def lines(self) -> list[str]:
        said = {"new": "is made, topic and schemas", "begun": "is gone on with", "there": "is there, and is compared"}
        head = [f"republish cluster {self.from_cluster_id} to cluster {self.cluster_id}", *self.restore.lines()[1:]]
        return head + [
            f"table    {way.name}: partitions {way.facts.partitions}, schema versions {len(way.values)};"
            f" it {said[way.state]}"
            for way in self.tables
        ]


def plan_republish(
    restore: RestorePlan,
    from_cluster_id: str,
    cluster_id: str,
    tables: Sequence[TableWay],
    found: Mapping[str, TopicId],
    declared: Mapping[str, Sequence[SchemaVersion]],
) -> RepublishPlan:
    """*found* are the topics of these names that the cluster has, *declared* the versions of their value schemas.
    NotRepublishable."""
    if from_cluster_id == cluster_id:
        first = tables[0].name if tables else "?"
        raise NotRepublishable(first, f"this is cluster {cluster_id}, which the archive is of", _SAME)
    ways = []
    for way in tables:
        there = found.get(way.name)
        if there is not None and there.partitions != way.facts.partitions:
            why = f"its topic is there with {there.partitions} partitions, not {way.facts.partitions}"
            raise NotRepublishable(way.name, why)
        state: State = "new" if there is None else "there" if declared.get(way.name) else "begun"
        ways.append(TableWay(way.facts, way.values, way.keys, state))
    return RepublishPlan(restore, from_cluster_id, cluster_id, tuple(ways))


_SAME = "name the new cluster (--bootstrap-servers); a table of this one is made anew by `merganser replay`"
