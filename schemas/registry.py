"""Where schemas live: in the log itself, or in a Confluent-compatible registry by URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import UsageError
from .registry_log import LogRegistry
from .table import Registry


def open_registry(spec: str | None, client_config: Mapping[str, Any], timeout_s: float = 15.0) -> Registry:
    """The registry that *spec* names: ``None`` or ``"log"``, or an ``http(s)://`` URL.

    *timeout_s* bounds each call.
    """
    if spec is None or spec == "log":
        return LogRegistry(client_config, timeout_s=timeout_s)
    if spec.startswith(("http://", "https://")):
        from .registry_url import UrlRegistry

        return UrlRegistry(spec, {}, timeout_s=timeout_s)
    raise UsageError(f"no registry: {spec!r} (use 'log' or an http(s):// URL)")
