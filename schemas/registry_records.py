"""What the records of a ``_schemas`` topic say. No I/O.

Confluent's own record format, read as a Confluent registry reads it, so that its topics can be used
as they are: a later record of a key replaces the earlier one, a null value removes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import IncompatibleSchema, OtherSchema, UnsupportedFormat, UsageError
from .table import AvroSchema, SchemaVersion

logger = logging.getLogger("merganser.registry")

DEFAULT_LEVEL = "BACKWARD"

#: Attributes of a primitive key schema; `schemas.table` says what they mean.
ENCODING = "merganser.encoding"
COLUMN = "merganser.column"


@dataclass(frozen=True)
class Entry:
    """One SCHEMA record."""

    subject: str
    version: int
    id: int
    text: str
    type: str = "AVRO"
    references: bool = False
    deleted: bool = False

    def parsed(self) -> SchemaVersion:
        """UnsupportedFormat if this is no Avro schema that stands by itself."""
        if self.type != "AVRO":
            raise UnsupportedFormat(topic_of(self.subject), self.type)
        if self.references:
            raise UnsupportedFormat(topic_of(self.subject), "Avro (schema with references)")
        return SchemaVersion(self.subject, self.version, self.id, parse_text(self.text))


class Book:
    """The state that the records read so far amount to. Not thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[int, Entry]] = {}
        self._settings: dict[tuple[str, str | None], str] = {}  # (CONFIG or MODE, subject) → value
        self._highest_id = 0

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take one record in. One that is no registry record is passed over, with a log line."""
        try:
            head = json.loads(key or b"")
            body = None if value is None else json.loads(value)
            kind = head["keytype"]
            if kind == "SCHEMA":
                self._schema(head["subject"], int(head["version"]), body)
            elif kind in ("CONFIG", "MODE"):
                self._setting(kind, head.get("subject"), body)
            elif kind == "DELETE_SUBJECT" and body:
                self._delete(body["subject"], int(body["version"]))
            elif kind == "CLEAR_SUBJECT" and body:
                self._clear(body["subject"])
            # NOOP, CONTEXT and later kinds say nothing about a schema
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("passed over a record that is no registry record: %r (%s)", key, error)

    def subjects(self) -> list[str]:
        return sorted(s for s in self._entries if any(True for _ in self._live(s)))

    def versions(self, subject: str) -> list[SchemaVersion]:
        return [entry.parsed() for entry in self._live(subject)]

    def find(self, subject: str, schema: AvroSchema) -> SchemaVersion | None:
        """The version of *subject* that has this schema already."""
        wanted = canonical(schema)
        return next((v for v in self.versions(subject) if canonical(v.schema) == wanted), None)

    def next_version(self, subject: str) -> int:
        """Above deleted ones too: a version number never means two schemas."""
        return max(self._entries.get(subject, {}), default=0) + 1

    def id_for(self, schema: AvroSchema) -> int:
        """The id of this schema in any subject, or the next free one."""
        wanted = canonical(schema)
        for subject, versions in self._entries.items():
            if subject.startswith(":."):
                continue  # a context of Confluent's has ids of its own
            for entry in versions.values():
                if entry.type == "AVRO" and not entry.references and _canonical_text(entry.text) == wanted:
                    return entry.id
        return self._highest_id + 1

    def entry(self, subject: str, version: int) -> Entry | None:
        """That version, deleted or not."""
        return self._entries.get(subject, {}).get(version)

    def with_id(self, id_: int) -> list[Entry]:
        """Every version of that id, deleted or not."""
        return [
            entry
            for subject, versions in self._entries.items()
            if not subject.startswith(":.")
            for entry in versions.values()
            if entry.id == id_
        ]

    def level(self, subject: str) -> str:
        """The compatibility level that holds for *subject*."""
        own = self._settings.get(("CONFIG", subject))
        return own or self._settings.get(("CONFIG", None)) or DEFAULT_LEVEL

    def check_writable(self, subject: str) -> None:
        mode = self._settings.get(("MODE", subject)) or self._settings.get(("MODE", None)) or "READWRITE"
        if mode != "READWRITE":
            raise UsageError(f"the registry takes no schema for {subject!r}: its mode is {mode}")

    # -- inside ------------------------------------------------------------------------------

    def _live(self, subject: str) -> Iterator[Entry]:
        versions = self._entries.get(subject, {})
        return (versions[number] for number in sorted(versions) if not versions[number].deleted)

    def _schema(self, subject: str, version: int, body: Mapping[str, Any] | None) -> None:
        versions = self._entries.setdefault(subject, {})
        if body is None:
            versions.pop(version, None)
            return
        entry = Entry(
            subject,
            version,
            int(body["id"]),
            str(body["schema"]),
            str(body.get("schemaType") or "AVRO").upper(),
            bool(body.get("references")),
            bool(body.get("deleted")),
        )
        self._highest_id = max(self._highest_id, entry.id)
        versions[version] = entry

    def _setting(self, kind: str, subject: str | None, body: Mapping[str, Any] | None) -> None:
        value = body and body.get("compatibilityLevel" if kind == "CONFIG" else "mode")
        if value:
            self._settings[kind, subject] = str(value).upper()
        else:
            self._settings.pop((kind, subject), None)

    def _delete(self, subject: str, up_to: int) -> None:
        versions = self._entries.get(subject, {})
        for number in [n for n in versions if n <= up_to]:
            versions[number] = replace(versions[number], deleted=True)

    def _clear(self, subject: str) -> None:
        """Confluent's: forget the deleted versions for good."""
        versions = self._entries.get(subject, {})
        for number in [n for n, entry in versions.items() if entry.deleted]:
            del versions[number]


def check_registration(book: Book, subject: str, schema: AvroSchema) -> None:
    """Refuse a schema that the registry's settings or earlier versions rule out."""
    book.check_writable(subject)
    check_level(subject, book.level(subject), [v.schema for v in book.versions(subject)], schema)


def adoption(book: Book, versions: Sequence[SchemaVersion], *, live: bool) -> list[SchemaVersion]:
    """Those of *versions*, all that their subjects have, that are still to be written so that they are there with
    these numbers and ids; *live*, or reserved only. OtherSchema if the registry means something else by them."""
    wanted: dict[str, set[int]] = {}
    missing = []
    for version in versions:
        wanted.setdefault(version.subject, set()).add(version.version)
        known = book.entry(version.subject, version.version)
        if known is not None and not _is(known, version):
            raise OtherSchema(version.subject, f"version {version.version} is another here: id {known.id}")
        other = next((entry for entry in book.with_id(version.id) if not _is(entry, version)), None)
        if other is not None:
            raise OtherSchema(version.subject, f"id {version.id} is that of {other.subject!r} here")
        if known is None or (live and known.deleted):
            missing.append(version)
    for subject, numbers in wanted.items():
        more = [version.version for version in book.versions(subject) if version.version not in numbers]
        if more:
            raise OtherSchema(subject, f"it has a version {more[0]} here")
    return missing


def _is(entry: Entry, version: SchemaVersion) -> bool:
    plain = entry.type == "AVRO" and not entry.references
    return plain and entry.id == version.id and _canonical_text(entry.text) == canonical(version.schema)


def check_level(subject: str, level: str, earlier: list[AvroSchema], schema: AvroSchema) -> None:
    """Hold *schema* to a compatibility level of Confluent's, against the versions before it."""
    direction, _, transitive = level.partition("_")
    if direction not in ("NONE", "BACKWARD", "FORWARD", "FULL") or transitive not in ("", "TRANSITIVE"):
        raise IncompatibleSchema(subject, f"the registry asks for level {level}, which is not known here")
    for old in earlier if transitive else earlier[-1:]:
        if direction in ("BACKWARD", "FULL"):
            _check_readable(subject, old, schema)
        if direction in ("FORWARD", "FULL"):
            _check_readable(subject, schema, old)


def _check_readable(subject: str, written: AvroSchema, reader: AvroSchema) -> None:
    from .evolution import check_compatible

    if _only_names_column(written, reader):
        return
    check_compatible(subject, written, reader)


def bare(schema: AvroSchema) -> AvroSchema:
    """*schema* without our own attributes."""
    if not isinstance(schema, Mapping):
        return schema
    return {name: value for name, value in schema.items() if not name.startswith("merganser.")}


def _only_names_column(before: AvroSchema, after: AvroSchema) -> bool:
    """The one change a key's schema may see: saying which column the single Avro value of others is.
    Its bytes stay the same, which a change of ``merganser.encoding`` would not leave them."""
    if not isinstance(after, Mapping) or COLUMN not in after or ENCODING in after:
        return False
    return bare(before) == before and canonical(bare(after)) == canonical(before)


def schema_record(version: SchemaVersion, *, deleted: bool = False) -> tuple[bytes, bytes]:
    """Key and value of the SCHEMA record, byte for byte as Confluent writes keys: compaction and
    its registry compare them as bytes. A *deleted* version keeps its number and its id from others."""
    key = {"keytype": "SCHEMA", "subject": version.subject, "version": version.version, "magic": 1}
    value = {
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        "schema": text_of(version.schema),
        "deleted": deleted,
    }
    return _compact(key).encode(), _compact(value).encode()


def text_of(schema: AvroSchema) -> str:
    """The schema as JSON text, its properties in the order they were given."""
    return _compact(schema)


def parse_text(text: str) -> AvroSchema:
    """A registry keeps primitive schemas both as ``"string"`` and, in old ones, as bare ``string``."""
    try:
        schema: AvroSchema = json.loads(text)
    except ValueError:
        return text
    return schema


def canonical(schema: AvroSchema) -> str:
    """Text that is equal for schemas that differ in nothing but layout and order of properties."""
    if isinstance(schema, Mapping) and set(schema) == {"type"} and isinstance(schema["type"], str):
        schema = schema["type"]
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))


def topic_of(subject: str) -> str:
    return subject.removesuffix("-value").removesuffix("-key")


def _canonical_text(text: str) -> str:
    return canonical(parse_text(text))


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
