"""Table: a topic with a value schema and, if rows are keyed, a key schema.

The registry is where a table is declared, so that every client sees the same one:

- subject ``<topic>-value`` holds the row's record schema, one version after the other;
- subject ``<topic>-key`` holds the key. An Avro record means Confluent-framed Avro keys with those
  columns. A primitive schema with ``merganser.encoding = "kafka"`` declares the plain form of Kafka's
  own String, Integer and Long serializers, and ``merganser.column`` names the one key column.
- no ``-key`` subject: rows are appended.
- the first version of ``<topic>-value`` may have the attribute ``merganser``: row checks, and which
  conditional writes the table takes (`schemas.rules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .rules import Conditions, Rules, rules_of

AvroSchema = Mapping[str, Any] | str
KeyEncoding = Literal["avro", "string", "int", "long"]

Adoption = Literal["check", "reserve", "use"]

#: Columns that a replica adds to each table; a schema may not use them.
RESERVED_COLUMNS = ("_partition", "_offset", "_timestamp")


@dataclass(frozen=True)
class SchemaVersion:
    """One version of a subject. *id* is what travels in a record's five-byte prefix."""

    subject: str
    version: int
    id: int
    schema: AvroSchema


class Registry(Protocol):
    """Where schemas live. Safe to share between threads."""

    def subjects(self) -> list[str]:
        """Every subject that has a version, sorted."""
        ...

    def versions(self, subject: str) -> list[SchemaVersion]:
        """All versions of *subject*, oldest first; ``[]`` if there are none.

        Reads the registry to an end sampled after the call began, so an id that is absent here was
        not registered before the call. RegistryUnavailable or LogUnavailable after a bounded wait.
        """
        ...

    def register(self, subject: str, schema: AvroSchema) -> SchemaVersion:
        """The version of *subject* with this schema, made if it is not there yet.

        IncompatibleSchema, with nothing written, if it breaks BACKWARD compatibility.
        """
        ...

    def adopt(self, versions: Sequence[SchemaVersion], stage: Adoption) -> None:
        """Have *versions*, all that their subjects have, with the very numbers and ids that they bear: records
        written elsewhere have these ids in their bytes.

        ``check``: only see whether that can be. ``reserve``: take numbers and ids, but show nothing yet.
        ``use``: show all of them, at once. OtherSchema, with nothing written, if it cannot be.
        """
        ...

    def close(self) -> None: ...


def value_subject(topic: str) -> str:
    return f"{topic}-value"


def key_subject(topic: str) -> str:
    return f"{topic}-key"


@dataclass(frozen=True)
class Table:
    """A table as the log and the registry declare it at one moment.

    *key* names the key columns, ``()`` for an append table. *values* are the versions of the value
    schema, oldest first. *topic_id* tells this topic from another of the same name. On a compacted topic
    a delete may vanish from the log *delete_retention_ms* after it was written.
    """

    name: str
    topic_id: str
    partitions: int
    values: tuple[SchemaVersion, ...]
    key: tuple[str, ...] = ()
    key_encoding: KeyEncoding = "avro"
    key_schema: SchemaVersion | None = None
    compacted: bool = False
    delete_retention_ms: int = 86_400_000

    @property
    def keyed(self) -> bool:
        """True for upsert (last write per key wins), False for append."""
        return bool(self.key)

    @property
    def latest(self) -> SchemaVersion:
        """The newest version of the value schema: what a producer writes."""
        return self.values[-1]

    @property
    def rules(self) -> Rules:
        """The table's checks and conditions as they were declared; BadSchema if they cannot be read."""
        return rules_of(self.name, self.values[0].schema) or Rules()

    @property
    def checks(self) -> tuple[str, ...]:
        """What each row must not break: SQL expressions, as they were written."""
        return self.rules.checks

    @property
    def conditions(self) -> Conditions:
        """Which conditional writes the table takes: over any partitions, within one, or none."""
        return "none" if self.conditions_refused else self.rules.conditions

    @property
    def conditions_refused(self) -> str | None:
        """Why the table takes no conditional write; None if it takes them (`conditions` says which)."""
        if not self.key:
            return "it has no key, so there is no row to ask about"
        if self.compacted:
            return "it is compacted: Kafka would keep a rejected write and drop the accepted one before it"
        return "it was created with conditions=none" if self.rules.conditions == "none" else None
