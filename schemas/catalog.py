"""Which tables a log has: what its topics and its registry say together.

A table is there once its topic and its ``-value`` subject are; `create_table` makes the subject last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import BadKeyColumns, BadSchema, UnknownTable, UnsupportedFormat, UsageError
from .kafka import Cluster, TopicFacts
from .keys import key_of
from .rowcheck import check_rules
from .sniff import sniff_topic
from .table import Registry, SchemaVersion, Table, key_subject, value_subject


class Catalog:
    """Looks tables up. Safe across threads if its cluster and registry are."""

    def __init__(self, cluster: Cluster, registry: Registry, client_config: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.registry = registry
        self._config = client_config

    def table(self, name: str) -> Table:
        """The table as it is declared now.

        UnknownTable; UnsupportedFormat if it is a topic of another kind; BadSchema if its rules cannot be read.
        """
        if not isinstance(name, str) or not name:  # which confluent-kafka would refuse in words of its own
            raise UsageError(f"a table's name is text, and not empty; got {name!r}")
        facts = self.cluster.describe([name]).get(name)
        if facts is None:
            raise UnknownTable(name)
        values = self.registry.versions(value_subject(name))
        if not values:
            raise self.undeclared(facts)
        return assemble(facts, values, self.registry.versions(key_subject(name)))

    def tables(self) -> list[Table]:
        """Every table, by name. Topics whose schemas are not Avro, or whose rules cannot be read, are none."""
        suffix = value_subject("")
        declared = [s.removesuffix(suffix) for s in self.registry.subjects() if s.endswith(suffix)]
        found = []
        for name, facts in sorted(self.cluster.describe(declared).items()):
            try:
                values = self.registry.versions(value_subject(name))
                found.append(assemble(facts, values, self.registry.versions(key_subject(name))))
            except (UnsupportedFormat, BadKeyColumns, BadSchema):
                continue
        return found

    def undeclared(self, facts: TopicFacts) -> UnknownTable | UnsupportedFormat:
        """Why a topic without a value subject is no table."""
        look = sniff_topic(self._config, facts.name, facts.partitions)
        if look is None or look == "Confluent-framed":
            subject = value_subject(facts.name)
            why = f"the topic exists, the registry has no {subject!r}: `merganser table create --existing` declares it"
            return UnknownTable(facts.name, hint=why)
        return UnsupportedFormat(facts.name, look)


def assemble(facts: TopicFacts, values: Sequence[SchemaVersion], keys: Sequence[SchemaVersion]) -> Table:
    columns, encoding, key = key_of(facts.name, keys)
    table = Table(
        name=facts.name,
        topic_id=facts.topic_id,
        partitions=facts.partitions,
        values=tuple(values),
        key=columns,
        key_encoding=encoding,
        key_schema=key,
        compacted=facts.compacted,
        delete_retention_ms=int(facts.settings["delete.retention.ms"]),
    )
    # A check that cannot be read here may be of a newer Merganser: its table is not written or read without it.
    if table.checks:
        check_rules(table.name, values[0].schema, table.checks)
    return table
