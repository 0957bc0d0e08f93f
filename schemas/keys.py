"""What the key of a table is, from the versions of its ``-key`` subject.

Invariant: the first version that declares columns decides, for good. A key is a function of the versions in order,
never of how many there were when somebody looked; a later version adds another spelling of the same columns, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .errors import BadKeyColumns
from .registry_records import COLUMN, ENCODING, bare, canonical
from .table import AvroSchema, KeyEncoding, SchemaVersion

#: The Avro type that stands for each of Kafka's own plain key serializers.
_PLAIN: Mapping[str, KeyEncoding] = {"string": "string", "int": "int", "long": "long"}


def key_of(topic: str, keys: Sequence[SchemaVersion]) -> tuple[tuple[str, ...], KeyEncoding, SchemaVersion | None]:
    """Columns, encoding and schema of the key that *keys*, the versions of its schema, declare."""
    if not keys:
        return (), "avro", None
    for version in keys:
        columns, encoding = _declared(version.schema)
        if columns:
            written = version if encoding != "avro" else as_record(_oldest_alike(keys, version), columns)
            return columns, encoding, written
    why = "its key is one Avro value: say which column that is, `merganser table create --existing --key COLUMN`"
    raise BadKeyColumns(topic, "?", why)


def _declared(schema: AvroSchema) -> tuple[tuple[str, ...], KeyEncoding]:
    """The columns that *schema* names, and how they are written; none if it is one Avro value without a name."""
    if not isinstance(schema, Mapping):
        return (), "avro"
    if schema.get("type") == "record":
        return tuple(field["name"] for field in schema["fields"]), "avro"
    if COLUMN not in schema:
        return (), "avro"
    plain = schema.get(ENCODING) == "kafka"
    return (str(schema[COLUMN]),), _PLAIN[str(schema["type"])] if plain else "avro"


def as_record(key: SchemaVersion, columns: Sequence[str]) -> SchemaVersion:
    """A key of one Avro value as a record of one column: the bytes are the same."""
    if len(columns) != 1 or (isinstance(key.schema, Mapping) and key.schema.get("type") == "record"):
        return key
    field = {"name": columns[0], "type": bare(key.schema)}
    return replace(key, schema={"type": "record", "name": "key", "fields": [field]})


def _oldest_alike(keys: Sequence[SchemaVersion], declares: SchemaVersion) -> SchemaVersion:
    """The oldest version that differs from *declares* in our annotations at most.

    A key's schema id is part of its bytes, hence of its partition: naming the column of a table that
    others write must not change the id that keys carry.
    """
    wanted = canonical(bare(declares.schema))
    return next(version for version in keys if canonical(bare(version.schema)) == wanted)
