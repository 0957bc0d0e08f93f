"""``merganser.toml``: a node, its doors, its archive and its backups.

Invariant: a file that cannot be followed to the letter is refused as a whole (BadConfig), with the key that is
wrong: an unknown key is never passed over, since it may be one that was meant.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..schemas.errors import BadConfig, UsageError
from .backup.policy import Policy
from .backup.schedule import Line, check

#: Every table of the file, its keys, and the type of each.
_KEYS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "replica": {"store": str, "group": str, "tables": list, "accept-partial": bool},
    "log": {"bootstrap-servers": str, "registry": str, "timeout": (int, float)},
    "limits": {"memory": int, "threads": int, "spill": int, "head-room": int, "pending-bytes": int},
    "archive": {"url": str, "key-file": str, "run": bool, "roll": (int, float)},
    "backup": {"cron": str, "type": str},
    "expire": {"keep-full": int, "keep-days": (int, float)},
    "serve": {
        "http": str,
        "flight": str,
        "users": str,
        "tls-cert": str,
        "tls-key": str,
        "insecure": bool,
        "request-log": str,
        "running": int,
        "query-seconds": (int, float),
    },
}

_SERVE_PATHS = ("users", "tls-cert", "tls-key", "request-log")

_UNITS = {"threads": "at least 1"}

_TYPES = {str: "text", list: "a list of texts", bool: "true or false", int: "a whole number", (int, float): "a number"}


@dataclass(frozen=True)
class ArchiveConfig:
    """Where the log is archived. *run*: the node archives its tables itself."""

    url: str
    key_file: Path | None = None
    run: bool = True
    roll_s: float | None = None
    """Seconds until a record is archived, at most."""


@dataclass(frozen=True)
class ServeConfig:
    """The doors of a node, and who may come in. Addresses are HOST:PORT; a door without one stays shut."""

    http: str = ""
    flight: str = ""
    users: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    request_log: Path | None = None
    running: int | None = None
    """Queries that run at once."""
    query_s: float | None = None
    """How long one may run."""

    @property
    def open(self) -> bool:
        """True if any door is to be opened."""
        return bool(self.http or self.flight)

    def after(self, given: ServeConfig) -> ServeConfig:
        """The same, but for what was *given*."""
        own = {f.name: getattr(given, f.name) or getattr(self, f.name) for f in fields(self)}
        return ServeConfig(**own)


@dataclass(frozen=True)
class NodeConfig:
    """What a node is to do. Texts are empty, and the rest None, where the file says nothing."""

    store: Path | None = None
    group: str = ""
    tables: tuple[str, ...] = ()
    accept_partial: bool = False
    bootstrap_servers: str | None = None
    registry: str | None = None
    timeout_s: float | None = None
    archive: ArchiveConfig | None = None
    backups: tuple[Line, ...] = ()
    expire: Policy | None = None
    serve: ServeConfig = field(default_factory=ServeConfig)
    limits: Mapping[str, int] = field(default_factory=dict)
    """Of the store, by the names that its Limits have."""

    def after(self, given: NodeConfig) -> NodeConfig:
        """The same, but for what was *given* of the replica."""
        return replace(
            self,
            store=given.store or self.store,
            group=given.group or self.group,
            tables=given.tables or self.tables,
            serve=self.serve.after(given.serve),
        )


def read_config(path: Path) -> NodeConfig:
    """The configuration in *path*. Paths in it are seen from its folder. BadConfig."""
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise BadConfig(str(path), "", error.strerror or str(error), hint="--config names a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), "", f"it is no TOML: {error}", hint="https://toml.io tells the form") from error
    return _Reader(path).read(found)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, found: Mapping[str, Any]) -> NodeConfig:
        for name in found:
            if name not in _KEYS:
                raise self._unknown("", name, _KEYS)
        replica, log = self._table(found, "replica"), self._table(found, "log")
        if not log.get("timeout", 1) > 0:
            raise self._bad("log", "timeout", "it is a number of seconds above 0")
        archive = self._archive(found)
        backups = self._backups(found.get("backup", []))
        expire = self._expire(found)
        if (backups or expire) and archive is None:
            raise self._bad("archive", "url", "backups need an archive", '[archive] with url = "file:///…"')
        return NodeConfig(
            self._beside(replica["store"]) if "store" in replica else None,
            replica.get("group", ""),
            tuple(replica.get("tables", ())),
            replica.get("accept-partial", False),
            log.get("bootstrap-servers"),
            log.get("registry"),
            log.get("timeout"),
            archive,
            backups,
            expire,
            self._serve(found),
            self._limits(found),
        )

    def _limits(self, found: Mapping[str, Any]) -> Mapping[str, int]:
        facts = self._table(found, "limits")
        for name, value in facts.items():
            if value < (1 if name == "threads" else 0):
                raise self._bad("limits", name, f"it is a whole number ({_UNITS.get(name, 'bytes')}), not {value}")
        return {name.replace("-", "_"): value for name, value in facts.items()}

    def _serve(self, found: Mapping[str, Any]) -> ServeConfig:
        facts = self._table(found, "serve")
        for name in ("running", "query-seconds"):
            if facts.get(name, 1) <= 0:
                raise self._bad("serve", name, "it is above 0")
        paths = {name: self._beside(facts[name]) for name in _SERVE_PATHS if name in facts}
        return ServeConfig(
            http=facts.get("http", ""),
            flight=facts.get("flight", ""),
            users=paths.get("users"),
            tls_cert=paths.get("tls-cert"),
            tls_key=paths.get("tls-key"),
            insecure=facts.get("insecure", False),
            request_log=paths.get("request-log"),
            running=facts.get("running"),
            query_s=facts.get("query-seconds"),
        )

    def _archive(self, found: Mapping[str, Any]) -> ArchiveConfig | None:
        if "archive" not in found:
            return None
        facts = self._table(found, "archive")
        if not facts.get("url"):
            raise self._bad("archive", "url", "it is missing", 'url = "file:///var/lib/merganser/archive"')
        url = facts["url"] if "://" in facts["url"] else str(self._beside(facts["url"]))
        key_file = self._beside(facts["key-file"]) if "key-file" in facts else None
        if facts.get("roll", 1) <= 0:
            raise self._bad("archive", "roll", "it is a number of seconds above 0")
        return ArchiveConfig(url, key_file, facts.get("run", True), facts.get("roll"))

    def _backups(self, found: Any) -> tuple[Line, ...]:
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self._bad("backup", "", "it is not a list of tables", "write [[backup]], with two brackets")
        lines: list[Line] = []
        for each in found:
            facts = self._table({"backup": each}, "backup")
            if "cron" not in facts:
                raise self._bad("backup", "cron", "it is missing", 'cron = "0 3 * * *"')
            if why := check(facts["cron"]):
                raise self._bad("backup", "cron", f"{facts['cron']!r}: {why}", 'like "0 3 * * *", in UTC')
            if facts.get("type", "full") not in ("full", "incr"):
                raise self._bad("backup", "type", f"{facts['type']!r} is neither full nor incr")
            lines.append(Line(facts["cron"], facts.get("type", "full")))
        return tuple(lines)

    def _expire(self, found: Mapping[str, Any]) -> Policy | None:
        if "expire" not in found:
            return None
        facts = self._table(found, "expire")
        try:
            return Policy(facts.get("keep-full"), facts.get("keep-days"))
        except UsageError as error:
            raise self._bad("expire", "", str(error).replace("--", "")) from None

    def _table(self, found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """The table *name*, its keys known and their values of the right type."""
        facts = found.get(name, {})
        if not isinstance(facts, dict):
            raise self._bad(name, "", "it is not a table", f"write [{name}] on a line of its own")
        for key, value in facts.items():
            if key not in _KEYS[name]:
                raise self._unknown(name, key, _KEYS[name])
            wanted = _KEYS[name][key]
            wrong = not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
            if wrong or (wanted is list and not all(isinstance(each, str) and each for each in value)):
                raise self._bad(name, key, f"it is {_TYPES[wanted]}, not {value!r}")
        return facts

    def _beside(self, path: str) -> Path:
        return self._path.parent / Path(path).expanduser()

    def _unknown(self, table: str, key: str, known: Sequence[str] | Mapping[str, Any]) -> BadConfig:
        near = difflib.get_close_matches(key, list(known), 1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return self._bad(table, key, "there is no such key", hint)

    def _bad(self, table: str, key: str, why: str, hint: str = "") -> BadConfig:
        error = BadConfig(str(self._path), ".".join(filter(None, (table, key))), why)
        return BadConfig(error.file, error.key, error.why, hint or error.hint)
