"""What a client takes: its Accept and Accept-Encoding, read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

#: By its short name, the media types of each format; the first one is what an answer says. JSON comes first: it is
#: what a client gets that takes anything.
MEDIA_TYPES = {
    "json": ("application/json",),
    "ndjson": ("application/x-ndjson", "application/ndjson", "application/jsonl"),
    "csv": ("text/csv",),
    "arrow": ("application/vnd.apache.arrow.stream",),
}

#: The best first.
ENCODINGS = ("zstd", "gzip")

_LONGEST = 2_000


def format_of(accept: str | None) -> str | None:
    """The format that *accept* prefers; None if it takes none that there is."""
    wanted = weights(accept or "*/*")
    best, best_weight = None, 0.0
    for name, types in MEDIA_TYPES.items():
        weight = max(_weight(wanted, type_) for type_ in types)
        if weight > best_weight:
            best, best_weight = name, weight
    return best


def encoding_of(accept_encoding: str | None) -> str | None:
    """How a body is to be compressed; None for not at all."""
    wanted = dict(weights(accept_encoding or ""))
    best, best_weight = None, 0.0
    for name in ENCODINGS:
        weight = wanted.get(name, wanted.get("*", 0.0))
        if weight > best_weight:
            best, best_weight = name, weight
    return best if best_weight >= wanted.get("identity", 0.0) else None


def weights(header: str) -> list[tuple[str, float]]:
    """Each part of *header* and its q. What is no q counts as 0: it was not meant to be taken."""
    found = []
    for part in header[:_LONGEST].lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            found.append((name, _q(parameters)))
    return found


def _q(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def _weight(wanted: Sequence[tuple[str, float]], type_: str) -> float:
    """Of *type_*: the most exact part that fits it says."""
    exact = dict(wanted)
    for name in (type_, type_.partition("/")[0] + "/*", "*/*"):
        if name in exact:
            return exact[name]
    return 0.0
