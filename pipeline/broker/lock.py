"""Write ``jars.lock``: ``python -m merganser.pipeline.broker.lock`` (extra ``local``, and the network).

Run it to move to another Kafka: change the versions here, run, read the diff, run the tests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .jars import LOCK_FILE, Jar, sha256_of
from .progress import PlainProgress

if TYPE_CHECKING:
    from jgo.maven import Artifact, Dependency

KAFKA = "4.3.1"
LOG4J = "2.25.4"  # the one that Kafka 4.3.1's own pom names; its slf4j is 1.7, so not log4j-slf4j2-impl

WITH_DEPENDENCIES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.logging.log4j", "log4j-core", LOG4J),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
)
# The console tools. Their 45 dependencies are Kafka Connect's (Jetty, Jersey): the tools run without.
ALONE = (("org.apache.kafka", "kafka-tools", KAFKA),)

HEADER = "# Written by `python -m merganser.pipeline.broker.lock`: group:artifact:version sha256\n"


def resolve(folder: Path) -> list[Jar]:
    """Every jar that the broker needs, hashed as fetched."""
    from jgo.maven import Dependency, MavenContext

    context = MavenContext(repo_cache=folder, local_repos=[], timeout=60)

    def wanted(group: str, artifact: str, version: str) -> Dependency:
        # raw: else jgo imports log4j's dependencyManagement over all, and that pins kafka-clients to 3.9.1.
        return Dependency(context.project(group, artifact).at_version(version).artifact(), raw=True)

    inputs, transitive = context.resolver.resolve([wanted(*coordinates) for coordinates in WITH_DEPENDENCIES])
    alone = [wanted(*coordinates) for coordinates in ALONE]
    return sorted((_hashed(found.artifact) for found in [*inputs, *transitive, *alone]), key=Jar.line)


def _hashed(artifact: Artifact) -> Jar:
    return Jar(artifact.groupId, artifact.artifactId, artifact.version, sha256_of(artifact.resolve()))


def render_lock(jars: list[Jar]) -> str:
    return HEADER + "".join(jar.line() + "\n" for jar in jars)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="merganser-lock-") as folder:
        jars = resolve(Path(folder))
    LOCK_FILE.write_text(render_lock(jars), encoding="utf-8")
    PlainProgress(sys.stdout).say(f"{LOCK_FILE}: {len(jars)} jars")


if __name__ == "__main__":
    main()
