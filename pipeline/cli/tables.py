"""``merganser table``: make, show and change tables."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...schemas.errors import BadSchema, UsageError
from ...schemas.headers import kafkas_spelling
from ...schemas.rules import Conditions
from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    KeyFormat,
    RegistryUrl,
    SchemaFile,
    Servers,
    TableName,
    Timeout,
    comma_separated,
    one_a_line,
    open_log,
    option,
)
from .output import emit, emit_json, emit_table, say

if TYPE_CHECKING:
    from ...schemas.table import Table

app = typer.Typer(help="Tables: a topic, and its schemas in the registry.")

Key = Annotated[str | None, option("--key", "Key columns, comma-separated. With a key, the last write per key wins.")]
OptionalSchema = Annotated[
    Path | None, option("--schema", "Avro schema of a row: a record, as JSON. An existing topic may have one.")
]
Partitions = Annotated[int | None, option("--partitions", "Partitions of a new topic (default 4).", min=1)]
Existing = Annotated[bool, option("--existing", "Declare a topic that is there, made by any client, as a table.")]
KeyForm = Annotated[
    KeyFormat, option("--key-format", "How keys travel: as Avro, or as Kafka's plain serializers write.")
]
Compact = Annotated[bool, option("--compact", "Let Kafka drop overwritten rows of a keyed table.")]
Checks = Annotated[
    list[str] | None,
    option(
        "--check",
        'What each row has to hold, as SQL: "qty > 0". May be given several times.',
        metavar="EXPRESSION",
    ),
]
ConditionsTaken = Annotated[
    Conditions | None, option("--conditions", "Which conditional writes it takes (default any, of a keyed table).")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="TABLE", help="Its name, and its topic's.")],
    schema: OptionalSchema = None,
    key: Key = None,
    partitions: Partitions = None,
    existing: Existing = False,
    key_format: KeyForm = "avro",
    compact: Compact = False,
    check: Checks = None,
    conditions: ConditionsTaken = None,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Make a table. The same again changes nothing; another definition is refused."""
    parsed = None if schema is None else _read_schema(name, schema)
    with open_log(bootstrap_servers, registry, timeout) as log:
        table = log.create_table(
            name,
            parsed,
            comma_separated(key),
            partitions=partitions,
            key_encoding=key_format,
            compact=compact or None,
            checks=one_a_line("MERGANSER_CHECK", check),
            conditions=conditions,
            existing=existing,
        )
    _show(table, json)


@app.command("list")
def list_(
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """All tables of the log."""
    with open_log(bootstrap_servers, registry, timeout) as log:
        found = log.tables()
    if json:
        for table in found:
            emit_json(_fields(table))
    elif found:
        rows = [(t.name, ",".join(t.key) or "-", t.partitions, t.latest.version, _traits(t)) for t in found]
        emit_table(["table", "key", "partitions", "schema", "keys are"], rows, numeric=["partitions", "schema"])
    else:
        say("no tables yet: `merganser table create` makes one")


@app.command()
def describe(
    table: TableName,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """What a table is: columns with SQL types, key, partitions. Also what it asks of rows and writes."""
    from ...schemas.avro import row_type

    with open_log(bootstrap_servers, registry, timeout) as log:
        found = log.table(table)
    if json:
        emit_json({**_fields(found), "schema": found.latest.schema})
        return
    emit(_sentence(found))
    fields = row_type(found.name, found.latest.schema).fields
    rows = [
        (
            f.name,
            f.type.sql,
            "key" if f.name in found.key else "null" if f.type.nullable else "",
            jsonlib.dumps(f.default) if f.has_default else "",
        )
        for f in fields
    ]
    emit_table(["column", "type", "", "default"], rows)
    for check in found.checks:
        emit(f"check: {check}")
    emit(f"conditional writes: {found.conditions}")


@app.command()
def alter(
    table: TableName,
    schema: SchemaFile,
    bootstrap_servers: Servers = None,
    registry: RegistryUrl = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    json: AsJson = False,
) -> None:
    """Give a table a new version of its schema. Refused if readers of the earlier ones could not follow."""
    from ..tables import version_of

    parsed = _read_schema(table, schema)
    with open_log(bootstrap_servers, registry, timeout) as log:
        changed = log.alter_table(table, parsed)
    _show(changed, json)
    version = version_of(changed, parsed)
    if version is not None and version != changed.latest:
        say(
            f"nothing changed: that is version {version.version}, and {changed.latest.version} stays the latest "
            '(a version that is to be as it was needs another "doc")'
        )


def _show(table: Table, json: bool) -> None:
    if json:
        emit_json(_fields(table))
    else:
        emit(_sentence(table))


def _read_schema(table: str, path: Path) -> dict[str, Any]:
    try:
        parsed = jsonlib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"schema {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSchema(table, str(path), "not UTF-8 text") from error
    except ValueError as error:
        raise BadSchema(table, str(path), f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadSchema(table, str(path), "not a JSON object")
    return parsed


def _sentence(table: Table) -> str:
    key = f"key {', '.join(table.key)} ({table.key_encoding})" if table.key else "append only"
    compacted = ", compacted" if table.compacted else ""
    return f"table {table.name}: {key}, {table.partitions} partitions, schema version {table.latest.version}{compacted}"


def _traits(table: Table) -> str:
    return (table.key_encoding if table.key else "none") + (", compacted" if table.compacted else "")


def _fields(table: Table) -> dict[str, Any]:
    return {
        "table": table.name,
        "key": list(table.key),
        "key_format": table.key_encoding if table.key else None,
        "partitions": table.partitions,
        "schema_version": table.latest.version,
        "compacted": table.compacted,
        "checks": list(table.checks),
        "conditions": table.conditions,
        "topic_id": kafkas_spelling(table.topic_id),
    }
