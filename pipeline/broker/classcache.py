"""Kafka's classes, loaded and linked once and kept beside its jars: a JVM that maps them starts in half the time.

It is Java's AOT cache (JEP 514), made by a start and a stop of a scratch node. Invariants: nothing needs it,
without it Kafka starts as ever, later; a file that is not to the byte what was made is not used; the name says
of which jars, in which places, and of which build of Java it is, so another one's is never asked for (the JVM
would find out, and pass over it).
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from ...schemas.errors import BrokerError
from .jars import sha256_of

#: The JVM's remarks on what it could not keep, or not use, are nobody's business: nothing depends on it.
QUIET = "-Xlog:aot*=off,cds*=off"

_NONE = "none: "


class ClassCache:
    """The cache for *jars* and the Java whose ``release`` file is *release*. Safe across processes."""

    def __init__(self, jars: Sequence[Path], release: Path) -> None:
        self._folder = jars[0].parent
        # Not where the Java is: each checkout's .venv has one, and any of the same build can map what another made.
        facts = [platform.machine(), release.read_text(encoding="utf-8"), *map(_stamp, jars)]
        self._name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        return self._folder / f"kafka-{self._name}.aot"

    @property
    def lock(self) -> Path:
        """Whoever makes the cache has it."""
        return self._folder / ".aot.lock"

    @property
    def _note(self) -> Path:
        """The hash of what was made; or, in its place, why nothing could be."""
        return self.path.with_suffix(".sha256")

    @property
    def settled(self) -> bool:
        """True if there is nothing to make: it is there, or could not be made."""
        try:
            return self._note.read_text(encoding="utf-8").startswith(_NONE) or self.path.exists()
        except FileNotFoundError:
            return False

    def flags(self) -> list[str]:
        """What a JVM is told, so that it uses the cache; nothing, if there is none to use. A damaged one goes,
        and is made again at the next start."""
        try:
            stat, noted = self.path.stat(), self._note.read_text(encoding="utf-8")
            if _hash(self.path, stat.st_mtime_ns, stat.st_size) == noted:
                return [f"-XX:AOTCache={self.path}", QUIET]
        except OSError:
            return []
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        return []

    def make(self, train: Callable[[Path], None]) -> str | None:
        """Keep what *train* writes to the path that it is given; why there is none, if so, and then not again."""
        for old in self._folder.glob("kafka-*.aot"):  # of other jars, or another Java: each takes 65 MiB
            old.unlink(missing_ok=True)
            old.with_suffix(".sha256").unlink(missing_ok=True)
        made = self.path.with_suffix(".making")
        try:
            train(made)
            noted, why = sha256_of(made), None
            made.replace(self.path)
        except (BrokerError, OSError) as error:
            noted, why = f"{_NONE}{error}\n", str(error)
        finally:
            made.unlink(missing_ok=True)
        self._note.write_text(noted, encoding="utf-8")
        return why


def _stamp(path: Path) -> str:
    """What the JVM compares, and where it is."""
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


@lru_cache(maxsize=4)
def _hash(path: Path, mtime_ns: int, size: int) -> str:
    """Once a process: it is read over for a tenth of a second."""
    return sha256_of(path)
