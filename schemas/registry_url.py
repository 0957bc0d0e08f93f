"""A Confluent-compatible schema registry by URL, through confluent-kafka's own client.

Needs ``pip install merganser[registry]``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from .errors import BadSchema, IncompatibleSchema, OtherSchema, RegistryUnavailable, UsageError
from .kafka import OneProcess
from .registry_records import DEFAULT_LEVEL, Entry, canonical, check_level, text_of, topic_of
from .table import Adoption, AvroSchema, SchemaVersion

T = TypeVar("T")


class UrlRegistry:
    """Schemas in a registry server. Safe across threads, not across a fork.

    Blocking: in asyncio call it through ``asyncio.to_thread``. The server decides what is compatible;
    its level is checked here too, and BACKWARD where it has none, because some servers (Apicurio) check
    nothing unless told to.
    """

    def __init__(self, url: str, config: Mapping[str, Any], *, timeout_s: float = 15.0) -> None:
        self._shown = _without_password(url)
        self._lock = threading.Lock()
        self._process = OneProcess("this registry")
        self._kept: dict[str, dict[int, SchemaVersion]] = {}
        self._errors, self._schema_type, client_type = _client_parts()
        # A request is tried three times, and between the tries it rests.
        bounds = {"timeout": timeout_s / 3, "max.retries": 2, "retries.wait.ms": 100, "retries.max.wait.ms": 1000}
        self._client = client_type({**bounds, **config, "url": url})

    def subjects(self) -> list[str]:
        with self._lock:
            return sorted(self._ask(self._client.get_subjects))

    def versions(self, subject: str) -> list[SchemaVersion]:
        with self._lock:
            return self._versions(subject)

    def register(self, subject: str, schema: AvroSchema) -> SchemaVersion:
        with self._lock:
            earlier = self._versions(subject)
            known = _same(earlier, schema)
            if known is not None:
                return known
            check_level(subject, self._level(subject), [v.schema for v in earlier], schema)
            wanted = self._schema_type(text_of(schema), "AVRO")
            given = self._ask(lambda: self._client.register_schema(subject, wanted), subject)
            return self._taken(subject, schema, given)

    def adopt(self, versions: Sequence[SchemaVersion], stage: Adoption) -> None:
        """It has them already, or it is refused: a server gives ids itself."""
        with self._lock:
            kept = {subject: self._versions(subject) for subject in {version.subject for version in versions}}
        for version in versions:
            found = next((each for each in kept[version.subject] if each.version == version.version), None)
            if found is None or found.id != version.id or canonical(found.schema) != canonical(version.schema):
                why = f"the registry has no version {version.version} of it with id {version.id}, and this schema"
                raise OtherSchema(version.subject, why, _OWN_DATA)

    def close(self) -> None:
        with self._lock:
            self._client.close()

    # -- inside ------------------------------------------------------------------------------

    def _versions(self, subject: str) -> list[SchemaVersion]:
        """The list and the latest version are asked for each time. Earlier ones are kept: versions never
        change, and one can only be made anew after it and all later ones were deleted."""
        numbers: list[int] = sorted(self._ask(lambda: self._client.get_versions(subject), missing=[]))
        latest = self._version(subject, "latest") if numbers else None
        kept = self._kept.pop(subject, {})
        if latest is None or kept.get(latest.version, latest) != latest:
            kept = {}
            self._client.clear_caches()
        if latest is not None:
            kept[latest.version] = latest
        found = {n: kept.get(n) or self._version(subject, n) for n in numbers}
        self._kept[subject] = {n: version for n, version in found.items() if version is not None}
        return list(self._kept[subject].values())

    def _version(self, subject: str, number: int | str) -> SchemaVersion | None:
        """None if it was deleted since the list was read."""
        answer = self._ask(lambda: self._client.get_version(subject, number), missing=None)
        if answer is None:
            return None
        schema = answer.schema
        kind = str(schema.schema_type or "AVRO").upper()
        id_, version = int(answer.schema_id), int(answer.version)
        return Entry(subject, version, id_, str(schema.schema_str), kind, bool(schema.references)).parsed()

    def _taken(self, subject: str, schema: AvroSchema, given: int) -> SchemaVersion:
        """The version that the server made, or took the schema for.

        Apicurio takes schemas for the same that differ in documentation, aliases or an enum's default.
        The first is no loss; of the others, whoever asked must know that they are not kept.
        """
        made = next((v for v in self._versions(subject) if v.id == given), None)
        if made is None:
            raise RegistryUnavailable(self._shown, f"took the schema of {subject!r} but does not list it")
        if canonical(_undocumented(made.schema)) != canonical(_undocumented(schema)):
            why = f"the registry takes it for version {made.version}, which differs in aliases or an enum's default"
            raise IncompatibleSchema(subject, why)
        return made

    def _level(self, subject: str) -> str:
        """The server's level. Apicurio says NONE where nobody set one, and checks nothing: then BACKWARD."""
        config = self._ask(lambda: self._client.get_config(subject), missing=None)
        level = config and (config.compatibility_level or config.compatibility)
        found = str(getattr(level, "value", level)).upper() if level else DEFAULT_LEVEL
        return DEFAULT_LEVEL if found == "NONE" else found

    def _ask(self, question: Callable[[], T], subject: str = "", **absent: Any) -> T:
        """One request, its failures as ours. *missing* is the answer to "not found"."""
        self._process.check()
        try:
            return question()
        except self._errors.refused as error:
            if error.http_status_code == 404 and "missing" in absent:
                missing: T = absent["missing"]
                return missing
            raise self._refusal(error, subject) from error
        except self._errors.transport as error:
            why = str(error) or type(error).__name__
            raise RegistryUnavailable(self._shown, why) from error

    def _refusal(self, error: Any, subject: str) -> Exception:
        why = str(error.error_message)
        if error.http_status_code == 409:
            return IncompatibleSchema(subject, why)
        if error.http_status_code == 422:
            return BadSchema(topic_of(subject), "", why)
        return RegistryUnavailable(self._shown, f"{why} (HTTP status {error.http_status_code})")


_OWN_DATA = "bring the registry back with its own data: ids are in the records; or leave --registry out"


class _Errors:
    def __init__(self, refused: type[Any], transport: tuple[type[Exception], ...]) -> None:
        self.refused = refused
        self.transport = transport


def _client_parts() -> tuple[_Errors, Any, Any]:
    """Imported on use: the base install has no HTTP client."""
    try:
        from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
        from confluent_kafka.schema_registry.common._httpx_compat import httpx
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError
    except ImportError as error:
        raise UsageError(
            f"a registry by URL needs more packages ({error}): pip install 'merganser[registry]'"
        ) from error
    transport = (httpx.HTTPError, OAuthTokenError, OSError)
    return _Errors(SchemaRegistryError, transport), Schema, SchemaRegistryClient


def _same(versions: list[SchemaVersion], schema: AvroSchema) -> SchemaVersion | None:
    wanted = canonical(schema)
    return next((v for v in versions if canonical(v.schema) == wanted), None)


def _undocumented(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _undocumented(value) for name, value in schema.items() if name != "doc"}
    return [_undocumented(item) for item in schema] if isinstance(schema, list) else schema


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
