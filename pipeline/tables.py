"""Making and changing tables: each step can be repeated, and the last one makes the table.

The order is topic, ``-key`` subject, ``-value`` subject. Nobody takes the topic for a table before its
value subject is there, so a crash in between leaves what the same call, made again, completes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..schemas.avro import key_schema, parse_schema
from ..schemas.catalog import Catalog, assemble
from ..schemas.errors import BadKeyColumns, BadSchema, IncompatibleSchema, TableExists, UnknownTable, UsageError
from ..schemas.evolution import check_admissible, check_same_rules
from ..schemas.kafka import TopicFacts
from ..schemas.keys import key_of
from ..schemas.position import TopicPartition
from ..schemas.registry_records import COLUMN, DEFAULT_LEVEL, ENCODING, bare, canonical, check_level
from ..schemas.rowcheck import check_rules
from ..schemas.rules import (
    ATTRIBUTE,
    Conditions,
    Rules,
    checked_conditions,
    rules_of,
    shown,
    with_rules,
    without_rules,
)
from ..schemas.table import AvroSchema, KeyEncoding, SchemaVersion, Table, key_subject, value_subject

DEFAULT_PARTITIONS = 4

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True)
class Request:
    """A table as the caller wants it. None means: as it is, or the default."""

    name: str
    schema: AvroSchema | None
    key: tuple[str, ...] = ()
    key_encoding: KeyEncoding = "avro"
    partitions: int | None = None
    compact: bool | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[str, ...] | None = None
    conditions: Conditions | None = None


def check_texts(name: str, checks: Sequence[str]) -> tuple[str, ...]:
    """*checks* as a Request takes them. A text is a sequence too, but hardly meant as one check a letter."""
    if isinstance(checks, str) or not all(isinstance(check, str) for check in checks):
        raise UsageError(f"table {name!r}: checks is a list of texts, not {checks!r}")
    return tuple(checks)


def create_table(catalog: Catalog, request: Request) -> Table:
    """Make the table. The same again is a no-op; TableExists if it is there and differs."""
    wanted_key = _checked(request)
    name = request.name
    facts = catalog.cluster.describe([name]).get(name)
    values = catalog.registry.versions(value_subject(name))
    keys = catalog.registry.versions(key_subject(name))
    if facts is not None and values:
        return _same_or_refused(assemble(facts, values, keys), facts, request)
    _check_rules(request, bool(request.compact))
    _check_leftovers(request, values, keys, wanted_key)
    if facts is None:
        _check_similar(catalog, name)
        made = catalog.cluster.create_topic(name, request.partitions or DEFAULT_PARTITIONS, _settings(request))
        facts = None if made else catalog.cluster.describe([name]).get(name)
    if facts is not None:
        _check_half_made(catalog, facts, request)
    return _declare(catalog, request, wanted_key)


def declare_existing(catalog: Catalog, request: Request) -> Table:
    """Declare a topic that others made, and perhaps write, as a table. Its settings stay as they are."""
    _check_name(request.name)
    facts = catalog.cluster.describe([request.name]).get(request.name)
    if facts is None:
        raise UnknownTable(request.name, hint="the topic does not exist; leave --existing out to make it")
    values = catalog.registry.versions(value_subject(request.name))
    if not values:
        _check_can_declare(catalog, facts, request)
    _check_rules_of_others(values, facts, request)
    keys = catalog.registry.versions(key_subject(request.name))
    return _declare(catalog, request, _existing_key(request, keys))


def alter_table(catalog: Catalog, name: str, schema: AvroSchema) -> Table:
    """Add a version to the table's schema, or refuse and write nothing."""
    table = catalog.table(name)
    parsed = parse_schema(name, schema)
    if table.key and all(column in _columns(table.latest.schema) for column in table.key):
        before = key_schema(name, table.latest.schema, table.key)
        if _field_types(key_schema(name, parsed, table.key)) != _field_types(before):
            raise BadKeyColumns(name, ", ".join(table.key), "the type of a key column cannot change")
    check_same_rules(table, parsed)
    if version_of(table, parsed) is not None:
        return table
    check_admissible(table, parsed)
    catalog.registry.register(value_subject(name), parsed)
    return catalog.table(name)


# -- before anything is written --------------------------------------------------------------


def _checked(request: Request) -> AvroSchema | None:
    """The key schema to register, once the request holds in itself."""
    _check_name(request.name)
    if request.schema is None:
        raise UsageError(f"table {request.name!r} needs a schema")
    if request.partitions is not None and request.partitions < 1:
        raise UsageError(f"table {request.name!r} needs at least one partition")
    if request.compact and not request.key:
        raise UsageError(f"table {request.name!r} has no key, so it cannot be compacted")
    parse_schema(request.name, request.schema)
    if not request.key:
        return None
    by_column = key_schema(request.name, request.schema, request.key)
    return by_column if request.key_encoding == "avro" else _plain_key(request, by_column)


def _plain_key(request: Request, by_column: Mapping[str, object] | None) -> AvroSchema:
    """The declaration of a key in the form of Kafka's own serializers."""
    column = _one_column(request)
    if by_column is not None:
        found = _field_types(by_column)[0][1]
        if found != canonical(request.key_encoding):
            raise BadKeyColumns(request.name, column, f"key_encoding={request.key_encoding} needs that very type")
    return {"type": request.key_encoding, ENCODING: "kafka", COLUMN: column}


def _one_column(request: Request) -> str:
    if len(request.key) != 1:
        why = f"key_encoding={request.key_encoding} holds one column, not {len(request.key)}"
        raise BadKeyColumns(request.name, ", ".join(request.key), why)
    return request.key[0]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"no table name: {name!r} (letters, digits, '.', '_' and '-', 249 at most)")
    if name.startswith("_"):
        raise UsageError(f"no table name: {name!r} (a leading underscore is for Kafka's and our own topics)")


def _check_similar(catalog: Catalog, name: str) -> None:
    """Kafka tells Orders from orders, SQL does not."""
    for other in catalog.cluster.topics():
        if other.lower() == name.lower() and other != name:
            raise TableExists(name, f"{other!r} is the same name in SQL")


def _check_leftovers(
    request: Request, values: Sequence[SchemaVersion], keys: Sequence[SchemaVersion], wanted_key: AvroSchema | None
) -> None:
    """Subjects outlive their topic. What is left of an earlier table must fit, before a topic is made."""
    name, schema = request.name, request.schema
    if keys and (wanted_key is None or canonical(keys[-1].schema) != canonical(wanted_key)):
        columns = ", ".join(key_of(name, keys)[0])
        raise TableExists(name, f"the registry has a key of ({columns}) for it, from an earlier table of this name")
    if schema is not None and values:
        check_level(value_subject(name), DEFAULT_LEVEL, [v.schema for v in values], schema)
        have = rules_of(name, values[0].schema) or Rules()
        differences = _rule_differences(have, have.conditions, request)
        if differences:
            raise TableExists(name, f"an earlier table of this name left its schema: {'; '.join(differences)}")


def _check_half_made(catalog: Catalog, facts: TopicFacts, request: Request) -> None:
    """A topic without a schema is taken for our own unfinished work only if it is empty and alike."""
    differences = _differences_of_topic(facts, request)
    if differences:
        raise TableExists(request.name, "; ".join(differences))
    if any(catalog.cluster.ends([TopicPartition(facts.name, n) for n in range(facts.partitions)]).values()):
        raise TableExists(request.name, "the topic holds records already: existing=True (--existing) declares it")


def _check_can_declare(catalog: Catalog, facts: TopicFacts, request: Request) -> None:
    refusal = catalog.undeclared(facts)
    if not isinstance(refusal, UnknownTable):
        raise refusal
    if request.schema is None:
        raise UsageError(
            f"the registry has no {value_subject(facts.name)!r}: give the schema of its values (--schema, schema=)"
        )


def _check_rules(request: Request, compacted: bool) -> None:
    """BadSchema or UsageError unless the rules asked for fit the schema, the topic, and each other."""
    if request.schema is None:
        return
    said = rules_of(request.name, request.schema)
    asked = _asked_rules(request)
    if said is not None and asked != said:
        why = f"it says {said}; the call asks for {asked}"
        raise BadSchema(request.name, ATTRIBUTE, why, "say it once: leave the attribute out of the schema")
    check_rules(request.name, request.schema, asked.checks)
    checked_conditions(request.name, asked.conditions)
    if request.conditions not in (None, "none") and (compacted or not request.key):
        why = "is compacted" if compacted else "has no key"
        raise UsageError(f"table {request.name!r} {why}, so it cannot have conditions={request.conditions}")


def _check_rules_of_others(values: Sequence[SchemaVersion], facts: TopicFacts, request: Request) -> None:
    """The first registered schema of an existing topic decides; without one, the schema given becomes it."""
    if values:
        have = rules_of(request.name, values[0].schema) or Rules()
        found = _rule_differences(have, have.conditions, request)
        if found:
            why = "the registry has the schema of its values already, and its first version decides"
            raise UsageError(f"table {request.name!r}: {'; '.join(found)}: {why}")
    else:
        _check_rules(request, facts.compacted)


def _asked_rules(request: Request) -> Rules:
    """The rules that a new table gets: the call's, else those of the schema's own attribute, else none."""
    said = rules_of(request.name, request.schema) if request.schema is not None else None
    given = said or Rules()
    return Rules(
        given.checks if request.checks is None else request.checks,
        given.conditions if request.conditions is None else request.conditions,
    )


def _existing_key(request: Request, keys: Sequence[SchemaVersion]) -> AvroSchema | None:
    """The key declaration to register for a topic that others write; None if none is missing."""
    if not request.key:
        return None
    if request.key_encoding != "avro":
        return _plain_key(request, None)
    if not keys:
        why = "the registry has no schema of its keys; if they are plain, say which (--key-format, key_encoding=)"
        raise BadKeyColumns(request.name, ", ".join(request.key), why)
    latest = keys[-1].schema
    if isinstance(latest, Mapping) and latest.get("type") == "record":
        return None  # its fields are the key columns; a difference is told at the end
    primitive = bare(latest)
    declared = primitive if isinstance(primitive, Mapping) else {"type": primitive}
    return {**declared, COLUMN: _one_column(request)}


# -- writing ---------------------------------------------------------------------------------


def _settings(request: Request) -> dict[str, str]:
    """What a replica needs of a topic: nothing is dropped by age, and one batch has one time."""
    return {
        "cleanup.policy": "compact" if request.compact else "delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        **request.config,
    }


def _declare(catalog: Catalog, request: Request, key: AvroSchema | None) -> Table:
    if key is not None:
        catalog.registry.register(key_subject(request.name), key)
    if request.schema is not None:
        _register_values(catalog, request, parse_schema(request.name, request.schema))
    # Looked up again: of two callers who asked for different tables at once, one must be told.
    table = catalog.table(request.name)
    differences = _differences(table, request)
    if differences:
        raise TableExists(request.name, "; ".join(differences))
    return table


def _register_values(catalog: Catalog, request: Request, schema: Mapping[str, Any]) -> None:
    """The first version carries the rules; one that is there already is left as it is."""
    subject, wanted = value_subject(request.name), canonical(without_rules(schema))
    if not any(canonical(without_rules(_mapping(v.schema))) == wanted for v in catalog.registry.versions(subject)):
        catalog.registry.register(subject, with_rules(schema, _asked_rules(request)))


# -- what differs ----------------------------------------------------------------------------


def _same_or_refused(table: Table, facts: TopicFacts, request: Request) -> Table:
    differences = list(dict.fromkeys(_differences(table, request) + _differences_of_topic(facts, request)))
    if not request.key and table.key:
        differences.append(f"its key is ({', '.join(table.key)}), not none")
    if differences:
        raise TableExists(table.name, "; ".join(differences))
    return table


def _differences(table: Table, request: Request) -> list[str]:
    found = []
    if request.key and (table.key, table.key_encoding) != (request.key, request.key_encoding):
        found.append(f"its key is {_key_text(table)}, not ({', '.join(request.key)}) as {request.key_encoding}")
    if request.partitions is not None and request.partitions != table.partitions:
        found.append(f"it has {table.partitions} partitions, not {request.partitions}")
    if request.schema is not None:
        found += _schema_differences(table, parse_schema(table.name, request.schema))
    return found + _rule_differences(table.rules, table.conditions, request)


def _rule_differences(declared: Rules, effective: Conditions, request: Request) -> list[str]:
    """A caller who says nothing of rules, in words or in the schema, takes them as they are."""
    said = (rules_of(request.name, request.schema) if request.schema is not None else None) or declared
    checks = said.checks if request.checks is None else request.checks
    found = []
    if checks != declared.checks:
        found.append(f"its checks are {shown(declared.checks)}, not {shown(checks)}")
    if request.conditions is None and said.conditions != declared.conditions:
        found.append(f"its conditions are {declared.conditions}, not {said.conditions}")
    if request.conditions is not None and request.conditions != effective:
        found.append(f"its conditions are {effective}, not {request.conditions}")
    return found


def _differences_of_topic(facts: TopicFacts, request: Request) -> list[str]:
    found = []
    if request.partitions is not None and request.partitions != facts.partitions:
        found.append(f"it has {facts.partitions} partitions, not {request.partitions}")
    if request.compact is not None and request.compact != facts.compacted:
        found.append("it is compacted" if facts.compacted else "it is not compacted")
    for setting, value in request.config.items():
        if setting in facts.settings and facts.settings[setting] != value:
            found.append(f"its {setting} is {facts.settings[setting]}, not {value}")
    return found


def version_of(table: Table, schema: Mapping[str, object]) -> SchemaVersion | None:
    """Which of the table's versions *schema* is, if it is one."""
    wanted = canonical(without_rules(schema))
    return next((v for v in table.values if canonical(without_rules(_mapping(v.schema))) == wanted), None)


def _schema_differences(table: Table, schema: Mapping[str, object]) -> list[str]:
    """None if *schema* is any of the table's versions: an older service may still ask for its own."""
    if version_of(table, schema) is not None:
        return []
    have, want = dict(_field_types(table.latest.schema)), dict(_field_types(schema))
    found = [f"it has no column {name!r}" for name in want if name not in have]
    found += [f"it has a column {name!r} more" for name in have if name not in want]
    found += [f"its column {n!r} is {have[n]}, not {want[n]}" for n in want if n in have and have[n] != want[n]]
    return found or ["its schema differs in defaults, documentation or names"]


def _key_text(table: Table) -> str:
    return f"({', '.join(table.key)}) as {table.key_encoding}" if table.key else "none"


def _columns(schema: AvroSchema) -> list[str]:
    return [name for name, _ in _field_types(schema)]


def _field_types(schema: AvroSchema) -> list[tuple[str, str]]:
    return [(f["name"], canonical(f["type"])) for f in _mapping(schema)["fields"]]


def _mapping(schema: AvroSchema) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping):
        raise IncompatibleSchema("?", "not a record")
    return schema
