"""The jars that the broker runs: named, versioned and hashed in ``jars.lock``, fetched once through jgo.

A jar is in the cache only under its final name and only after its hash was right: it is fetched into a
scratch folder, checked, and moved into place by one rename. So an interrupted fetch leaves nothing that
a later one could mistake for a jar, and several processes may fetch into one cache at once.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...schemas.errors import BrokerError
from .home import missing_extra
from .progress import Progress

LOCK_FILE = Path(__file__).with_name("jars.lock")
KAFKA = ("org.apache.kafka", "kafka_2.13")
ATTEMPTS = 4
FIRST_PAUSE_S = 0.5
AT_ONCE = 6
TIMEOUT_S = 60


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def line(self) -> str:
        return f"{self.name} {self.sha256}"


def parse_lock(text: str) -> tuple[Jar, ...]:
    """The jars that a lock file names. Raises ValueError for a line that is not one."""
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, sha256 = line.strip().partition(" ")
        parts = name.split(":")
        if len(parts) != 3 or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise ValueError(f"line {number} is not `group:artifact:version sha256`: {line!r}")
        jars.append(Jar(parts[0], parts[1], parts[2], sha256))
    return tuple(jars)


def locked_jars(lock: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """The jars of the committed lock."""
    return parse_lock(lock.read_text(encoding="utf-8"))


def kafka_version(jars: Sequence[Jar]) -> str:
    """The Kafka that these jars are."""
    return next(jar.version for jar in jars if (jar.group, jar.artifact) == KAFKA)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ensure_jars(jars: Sequence[Jar], cache: Path, progress: Progress) -> list[Path]:
    """Every jar, checked, in the cache; what is missing is fetched. The paths are in the lock's order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        present = pool.map(lambda jar: check_cached(jar, cache), jars)
        missing = [jar for jar, here in zip(jars, present, strict=True) if not here]
    if missing:
        fetch(missing, cache, progress)
    return [cache / jar.filename for jar in jars]


def check_cached(jar: Jar, cache: Path) -> bool:
    """True if the jar is in the cache and right, False if it is not there.

    A wrong one is an error, not something to repair in silence: somebody changed it.
    """
    path = cache / jar.filename
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return False
    if found == jar.sha256:
        return True
    path.unlink(missing_ok=True)
    raise BrokerError(
        f"{path} is not the pinned {jar.name}: its SHA-256 is {found[:12]}…, not {jar.sha256[:12]}…",
        hint="it was damaged or changed, and is deleted now; the same command again fetches it afresh",
    )


def fetch(jars: Sequence[Jar], cache: Path, progress: Progress) -> None:
    """Fetch jars, a few at once. The first failure ends it; what is already in the cache stays."""
    cache.mkdir(parents=True, exist_ok=True)
    progress.fetch_begin(len(jars))
    try:
        with _scratch(cache) as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(_fetch_one, jar, cache, scratch, progress) for jar in jars]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        progress.fetch_end()


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_one(jar: Jar, cache: Path, scratch: Path, progress: Progress) -> None:
    path = _with_retries(jar.name, lambda: download(jar.group, jar.artifact, jar.version, scratch, progress))
    found = sha256_of(path)
    if found != jar.sha256:
        path.unlink()
        raise BrokerError(
            f"fetched {jar.name}, but its SHA-256 is {found[:12]}…, not the pinned {jar.sha256[:12]}…",
            hint="it was deleted and will not run: the jar was changed on the way, or at its source",
        )
    path.replace(cache / jar.filename)
    progress.fetch_jar()


def _with_retries(name: str, attempt: Callable[[], Path]) -> Path:
    pause_s = FIRST_PAUSE_S
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's are RuntimeErrors
            if not left:
                raise BrokerError(
                    f"{name} could not be fetched in {ATTEMPTS} attempts: {_short(error)}",
                    hint="check the network (and HTTPS_PROXY, REQUESTS_CA_BUNDLE); what was fetched is kept",
                ) from error
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."


def download(
    group: str,
    artifact: str,
    version: str,
    into: Path,
    progress: Progress,
    classifier: str = "",
    packaging: str = "jar",
) -> Path:
    """One artifact, unchecked, through jgo into a folder of Maven's layout."""
    try:
        from jgo.maven import MavenContext, PythonResolver
    except ImportError:
        raise missing_extra("jgo") from None

    @contextmanager
    def received(_filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield progress.fetch_bytes

    resolver = PythonResolver(progress_callback=received)
    context = MavenContext(resolver=resolver, repo_cache=into, local_repos=[], timeout=TIMEOUT_S)
    wanted = context.project(group, artifact).at_version(version).artifact(classifier, packaging)
    partial = wanted.cached_path
    if partial is not None:
        partial.unlink(missing_ok=True)  # jgo takes any file of that name for a whole one
    return wanted.resolve()
